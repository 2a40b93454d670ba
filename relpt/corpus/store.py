"""The tokenized corpus: its arrays, its folder on disk, its hash."""

from __future__ import annotations

import functools
import hashlib
import html
import json
import os
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.errors import FormatError
from relpt.fields import LARGEST
from relpt.files import parse_json, replace_folder, write_file

if TYPE_CHECKING:
    from relpt.data.bags import Bag

__all__ = ["Corpus"]

_FORMAT: Final = "relpt-corpus"
_VERSION: Final = 1
_I32, _I64 = np.dtype("<i4"), np.dtype("<i8")
# name: (dtype, shape), the shape in terms of n sentences, n_ids word pieces, types and the pieces of the types' names.
_ARRAYS: Final[dict[str, tuple[np.dtype[Any], str]]] = {
    "ids": (_I32, "n_ids"),
    "offsets": (_I64, "n+1"),
    "spans": (_I32, "n,4"),
    "relation": (_I32, "n"),
    "head_id": (_I32, "n"),
    "tail_id": (_I32, "n"),
    "head_type": (_I32, "n"),
    "tail_type": (_I32, "n"),
    "type_ids": (_I32, "n_type_ids"),
    "type_offsets": (_I64, "n_types+1"),
}
# Arrays that a corpus may hold, of one tag for each word piece: number into the table "<name>s", 0 for no tag.
_TAGS: Final = ("pos_tag", "ner_tag")
_TABLES: Final = {
    "relations": list,
    "types": list,
    "vocab_size": int,
    "tokenizer": str,
    "labelled": bool,
    "n_entities": int,
}
_NOTES: Final = {"name": str, "max_length": int, "n_longer": int}


class Corpus:
    """Sentences as word pieces with two marked spans, in flat arrays.

    Made by ``Dataset.tokenize`` or ``Corpus.open``. With n sentences, N word pieces, t types:

    Attributes:
        ids: int32 (N,), word pieces without [CLS], markers or [SEP].
        offsets: int64 (n + 1,), sentence i is ``ids[offsets[i]:offsets[i + 1]]``.
        spans: int32 (n, 4), head start, head end, tail start, tail end: half-open, counted from the sentence's start.
        relation: int32 (n,), numbers into ``relations``.
        head_id, tail_id: int32 (n,), entity numbers, -1 unknown.
        head_type, tail_type: int32 (n,), numbers into ``types``, -1 unknown.
        type_ids, type_offsets: int32 and int64 (t + 1,), the word pieces of the types' names.
        pos_tag, ner_tag: int32 (N,), numbers into ``pos_tags`` and ``ner_tags``; None where it was made without tags.
        pos_tags, ner_tags: the tags' names, the first one "" for no tag; None likewise.
        relations: the relations' names; unlabelled data has one pseudo relation, and ``labelled`` is False.
        types: the types' names.
        vocab_size: every word piece is below it.
        tokenizer: fingerprint of the tokenizer's text side (see ``relpt.corpus.tokenizer_fingerprint``).
        n_entities: distinct entities.
        name, max_length, n_longer: the data's name; sentences that are longer than max_length with all markers.

    Raises:
        FormatError: an array or table has the wrong type, shape or length.
    """

    ids: np.ndarray
    offsets: np.ndarray
    spans: np.ndarray
    relation: np.ndarray
    head_id: np.ndarray
    tail_id: np.ndarray
    head_type: np.ndarray
    tail_type: np.ndarray
    type_ids: np.ndarray
    type_offsets: np.ndarray
    pos_tag: np.ndarray | None = None
    ner_tag: np.ndarray | None = None
    pos_tags: list[str] | None = None
    ner_tags: list[str] | None = None
    relations: list[str]
    types: list[str]
    vocab_size: int
    tokenizer: str
    labelled: bool
    n_entities: int

    def __init__(
        self,
        *,
        arrays: dict[str, np.ndarray],
        tables: dict[str, Any],
        name: str = "corpus",
        max_length: int = 64,
        n_longer: int = 0,
        entities: list[str] | Path | None = None,
        where: str = "corpus",
    ) -> None:
        _check(arrays, tables, where)
        for key, array in arrays.items():
            setattr(self, key, array)
        for key, table in tables.items():
            setattr(self, key, table)
        self.name, self.max_length, self.n_longer = name, max_length, n_longer
        self._entities = entities  # the names, or the file that has them
        self._hash: str | None = None
        self._core: Any = None
        self._where = where

    def __len__(self) -> int:
        return int(self.relation.shape[0])

    @property
    def entities(self) -> list[str] | None:
        """What tells each entity from the others, in the order of their numbers: "id:…", or without id "name:…"; None
        in a corpus that was saved without. Read when it is first asked for: there can be more entities than sentences.

        Raises:
            FormatError: the file of the names is damaged.
        """
        if isinstance(self._entities, Path):
            self._entities = _read_entities(self._entities, self.n_entities)
        return self._entities

    @property
    def labels(self) -> list[str]:
        """The relations' names; empty for unlabelled data."""
        return list(self.relations) if self.labelled else []

    def label_counts(self) -> dict[str, int]:
        """Sentences per relation, the most frequent first, then by name; empty for unlabelled data."""
        counts = np.bincount(self.relation, minlength=len(self.relations)).tolist()
        pairs = sorted(zip(self.relations, counts, strict=True), key=lambda item: (-item[1], item[0]))
        return dict(pairs) if self.labelled else {}

    def bags(self) -> list[Bag]:
        """The sentences grouped by their pair of entities; as ``Dataset.bags``, with its errors."""
        from relpt.data.bags import bags_of_corpus

        return bags_of_corpus(self)

    def lengths(self) -> np.ndarray:
        """Word pieces of each sentence, int64 (n,), without [CLS], markers and [SEP]."""
        return np.diff(self.offsets)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {key: getattr(self, key) for key in (*_ARRAYS, *self._tags())}

    def tables(self) -> dict[str, Any]:
        """Names of relations, types and tags, sizes and the tokenizer's fingerprint."""
        return {key: getattr(self, key) for key in (*_TABLES, *(f"{key}s" for key in self._tags()))}

    def _tags(self) -> list[str]:
        return [key for key in _TAGS if getattr(self, key) is not None]

    @property
    def data_hash(self) -> str:
        """SHA-256 of arrays and tables in hexadecimal: equal for equal data, wherever it lies and whatever its name.

        The tokenizer's fingerprint is left out, since it may change with the tokenizers library; the word pieces count.
        So are the entities' names, since their numbers count.
        """
        if self._hash is None:
            digest = hashlib.sha256()
            for key, array in self.arrays().items():
                digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            tables = {key: value for key, value in self.tables().items() if key != "tokenizer"}
            digest.update(json.dumps(tables, sort_keys=True).encode())
            self._hash = digest.hexdigest()
        return self._hash

    def core(self, tags: Mapping[str, Sequence[str]] | None = None) -> Any:
        """The C core's view of the arrays (``relpt._core.Corpus``), checked and indexed at the first call.

        Args:
            tags: of each array of tags that is wanted, the names in the order of the numbers that it shall hold, the
                first one for no tag and for all names that are not among them. None: no tags.

        Raises:
            ValueError: the corpus has no such tags.
            FormatError: a value is out of range; names folder, row and array.
        """
        if tags:
            counts = {f"n_{key[:3]}": len(names) for key, names in tags.items()}
            return self._view({**self._renumbered(tags), **counts})
        if self._core is None:
            self._core = self._view({})
        return self._core

    def _view(self, tags: dict[str, Any]) -> Any:
        from relpt import _core

        arrays: dict[str, Any] = {key: np.asarray(getattr(self, key)) for key in _ARRAYS}
        try:
            return _core.Corpus(**arrays, **tags, n_relations=len(self.relations), vocab_size=self.vocab_size)
        except ValueError as error:
            raise FormatError(f"{self._where}: {error}") from None

    def _renumbered(self, tags: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
        out = {}
        for key, names in tags.items():
            array, own = getattr(self, key), getattr(self, f"{key}s")
            if array is None:
                raise ValueError(f"{self.name}: the corpus has no {key}s; tokenize the data with this encoder")
            numbers = {name: number for number, name in enumerate(names)}
            out[key] = np.array([numbers.get(name, 0) for name in own], np.int32)[np.asarray(array)]
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_core": None}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the corpus as a folder of .npy files, corpus.json and the entities' names in entities.json.

        Everything is written to a temporary folder beside ``path``, synced, and renamed, so that ``path`` never holds
        half a corpus; a corpus that is there is replaced once the new one is complete.

        Raises:
            FileExistsError: something else than a corpus is there.
            OSError: the folder cannot be written.
        """
        target = Path(os.path.realpath(path))
        empty = target.is_dir() and not any(target.iterdir())
        if target.exists() and not empty and not (target / "corpus.json").is_file():
            raise FileExistsError(f"{target} is there and is no corpus; give another path, or remove it")
        arrays, entities = {key: np.ascontiguousarray(array) for key, array in self.arrays().items()}, self.entities
        with replace_folder(target) as new:
            for key, array in arrays.items():
                write_file(new / f"{key}.npy", functools.partial(np.save, arr=array, allow_pickle=False))
            text = json.dumps(self._json(arrays), indent=1, ensure_ascii=False) + "\n"
            write_file(new / "corpus.json", lambda file: file.write(text.encode()))
            if entities is not None:
                names = json.dumps(entities, ensure_ascii=False)
                write_file(new / "entities.json", lambda file: file.write(names.encode()))
        return Path(path)

    def _json(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        shapes = {key: {"dtype": array.dtype.str, "shape": list(array.shape)} for key, array in arrays.items()}
        notes = {key: getattr(self, key) for key in _NOTES}
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "sentences": len(self),
            "data_hash": self.data_hash,
            **notes,
            **self.tables(),
            "arrays": shapes,
        }

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = False) -> Corpus:
        """Opens a saved corpus; the arrays are mapped into memory, and word pieces and spans read when they are used.

        Args:
            path: the folder.
            verify: read everything and compare with the hash that was saved.

        Raises:
            FileNotFoundError: no such folder, or it is no corpus.
            FormatError: a file is missing, damaged, or does not fit the others (named in the message).
        """
        folder = Path(path)
        if not (folder / "corpus.json").is_file():
            what = "has no corpus.json" if folder.is_dir() else "is no folder"
            raise FileNotFoundError(f"{folder} {what}; give a folder written by Corpus.save")
        meta = _read_json(folder / "corpus.json")
        tags = [key for key in _TAGS if key in meta["arrays"]]
        arrays = {key: _map(folder / f"{key}.npy", meta["arrays"].get(key)) for key in (*_ARRAYS, *tags)}
        corpus = cls(
            arrays=arrays,
            tables={key: meta.get(key) for key in (*_TABLES, *(f"{key}s" for key in tags))},
            entities=folder / "entities.json" if (folder / "entities.json").is_file() else None,
            where=str(folder),
            **{key: meta[key] for key in _NOTES},
        )
        if verify and corpus.data_hash != meta["data_hash"]:
            raise FormatError(f"{folder}: the arrays do not have the hash in corpus.json; tokenize and save again")
        return corpus

    def __repr__(self) -> str:
        labels = f"{len(self.relations):,} relations" if self.labelled else "unlabelled"
        return f"<relpt.Corpus {self.name!r}: {len(self):,} sentences, {self.ids.size:,} word pieces, {labels}>"

    def _repr_html_(self) -> str:
        lengths = self.lengths()
        spread = f"median {int(np.median(lengths)):,}, longest {int(lengths.max()):,}" if len(self) else "–"
        rows = [
            ("sentences", f"{len(self):,}"),
            ("word pieces", f"{self.ids.size:,} ({spread})"),
            ("relations", f"{len(self.relations):,}" if self.labelled else "unlabelled"),
            ("entities", f"{self.n_entities:,}"),
            ("types", f"{len(self.types):,}"),
            (f"longer than {self.max_length}", f"{self.n_longer:,} (get a window around both entities)"),
            ("data hash", self.data_hash[:16] + "…"),
        ]
        rows += [(label, f"{count:,}") for label, count in list(self.label_counts().items())[:8]]
        cells = "".join(
            f'<tr><th style="text-align:left">{html.escape(a)}</th>'
            f'<td style="text-align:left">{html.escape(b)}</td></tr>'
            for a, b in rows
        )
        return f"<b>{html.escape(self.name)}</b><table>{cells}</table>"


def _check(arrays: dict[str, np.ndarray], tables: dict[str, Any], where: str) -> None:
    """Types, shapes, lengths, and numbers into tables; the core checks word pieces and spans when it indexes them."""
    for key, kind in _TABLES.items():
        if type(tables[key]) is not kind:
            raise FormatError(f"{where}: {key} is a {type(tables[key]).__name__}, expected a {kind.__name__}")
    for key, least in (("vocab_size", 1), ("n_entities", 0)):
        if not least <= tables[key] <= LARGEST:
            raise FormatError(f"{where}: {key} is {tables[key]}; expected {least} to {LARGEST}")
    tags = [key for key in _TAGS if key in arrays]
    for key in ("relations", "types", *(f"{key}s" for key in tags)):
        names = tables.get(key)
        if (
            not isinstance(names, list)
            or not all(isinstance(item, str) for item in names)
            or len(set(names)) != len(names)
        ):
            raise FormatError(f"{where}: {key} must be distinct names")
    sizes = {
        "n": arrays["relation"].size,
        "n_ids": arrays["ids"].size,
        "n_types": len(tables["types"]),
        "n_type_ids": arrays["type_ids"].size,
    }
    for key, (dtype, shape) in (_ARRAYS | dict.fromkeys(tags, (_I32, "n_ids"))).items():
        array = arrays[key]
        expected = {"n+1": (sizes["n"] + 1,), "n,4": (sizes["n"], 4), "n_types+1": (sizes["n_types"] + 1,)}.get(
            shape, (sizes.get(shape, 0),)
        )
        if array.dtype != dtype or array.shape != expected:
            raise FormatError(
                f"{where}: {key} is {array.dtype} {array.shape}, expected {dtype} {expected}; tokenize and "
                "save the data again"
            )
    for offsets, ids in (("offsets", "ids"), ("type_offsets", "type_ids")):
        array = arrays[offsets]
        if array[0] != 0 or array[-1] != arrays[ids].size or (array[1:] < array[:-1]).any():
            raise FormatError(
                f"{where}: {offsets} must rise from 0 to the {arrays[ids].size} {ids}, got "
                f"{int(array[0])} to {int(array[-1])}; tokenize and save again"
            )
    relations, types, entities = len(tables["relations"]), len(tables["types"]), tables["n_entities"]
    ranges: dict[str, tuple[int, int]] = {"relation": (0, relations)}
    ranges |= {key: (0, len(tables[f"{key}s"])) for key in tags}
    for side in ("head", "tail"):
        ranges |= {f"{side}_id": (-1, entities), f"{side}_type": (-1, types)}
    for key, (least, end) in ranges.items():
        array = arrays[key]
        if array.size and (array.min() < least or array.max() >= end):
            raise FormatError(f"{where}: {key} holds numbers out of {least} .. {end - 1}; tokenize and save again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = parse_json(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: damaged ({str(error).split(':')[0]}); tokenize and save again") from None
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise FormatError(f"{path}: is no relpt corpus; give a folder written by Corpus.save")
    if meta.get("version") != _VERSION:
        raise FormatError(
            f"{path}: version {meta.get('version')!r}, this relpt reads {_VERSION}; tokenize the data again"
        )
    for key, kind in {**_TABLES, **_NOTES, "arrays": dict, "data_hash": str}.items():
        if type(meta.get(key)) is not kind:
            raise FormatError(f"{path}: {key} is missing or no {kind.__name__}; tokenize and save again")
    return meta


def _read_entities(path: Path, count: int) -> list[str]:
    try:
        names = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: damaged ({str(error).split(':')[0]}); tokenize and save again") from None
    if (
        not isinstance(names, list)
        or not all(isinstance(item, str) for item in names)
        or not len(set(names)) == len(names) == count
    ):
        raise FormatError(f"{path}: entities must be the distinct names of {count} entities; tokenize and save again")
    return names


def _map(path: Path, expected: Any) -> np.ndarray:
    """A .npy file mapped read-only, of the type and shape that corpus.json names."""
    try:
        with open(path, "rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("not version 1.0 of the format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
    except FileNotFoundError:
        raise FormatError(f"{path}: missing; tokenize and save again") from None
    except (ValueError, EOFError, TypeError, OverflowError, SyntaxError, tokenize.TokenError) as error:
        raise FormatError(  # NumPy lets its parsers' errors through
            f"{path}: damaged .npy file ({str(error).splitlines()[0]}); tokenize and save again"
        ) from None
    if not isinstance(expected, dict) or (
        [dtype.str, list(shape), fortran] != [expected.get("dtype"), expected.get("shape"), False]
    ):
        raise FormatError(f"{path}: holds {dtype} {shape}, corpus.json says {expected}; tokenize and save again")
    size, need = os.path.getsize(path), start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if dtype.hasobject or size != need:
        raise FormatError(f"{path}: {size:,} bytes, expected {need:,}; the file is cut or overwritten: save again")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.load(path, mmap_mode="r", allow_pickle=False)
