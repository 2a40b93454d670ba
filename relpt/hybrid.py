"""Relation vectors of several sources side by side: encoders that were pre-trained apart, embeddings of entities."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np

from relpt.cnn import MODEL_TYPE, CNNEncoder
from relpt.encoder import Encoder
from relpt.errors import FormatError
from relpt.fields import refused_in
from relpt.files import read_table, replace_folder, replaceable, write_json
from relpt.inputs import DTYPES, choice, input_name
from relpt.weights import load_tensors, save_tensors

__all__ = ["EntityTable", "HybridEncoder", "open_encoder"]

_CARD: Final = "hybrid.json"
_PARTS: Final = ("[0-9]*", "relpt.json", "*.safetensors")  # what stands beside it, a classifier's among them
_TABLE_CARD, _TABLE_FILE = "entities.json", "entities.safetensors"


class EntityTable:
    """An embedding for each entity, whatever the sentence; the relation vector is [head's, tail's].

    Made by ``EntityTable.from_corpus`` from an encoder that stays as it is: the entity embeddings that are not trained
    for relations, beside which a relation embedding shows what it adds (arXiv 2312.11062, "Entity or Relation
    Embeddings?", section 3.3). Since an entity is looked up and not read, its vector is the same in every input
    setting: with OnlyC a table still knows who is meant.

    A mention is looked up by its id; where the table lacks the id, by its name among the entities without id. A mention
    without id is looked up by its name, where that is one entity's name alone. Case and blanks of names do not count.

    Args:
        vectors: float32 (entities, H), those with an id first.
        ids: the row of each id, 0 to len(ids) - 1 in order.
        names: the row of each name that is one entity's alone.
        card: how it was made: encoder, inputs, max_length, data.

    Attributes:
        vectors, ids, names, card: as given.
        dim: size of a relation vector, 2 H.
    """

    def __init__(
        self, vectors: np.ndarray, *, ids: Mapping[str, int], names: Mapping[str, int], card: Mapping[str, Any]
    ) -> None:
        self.vectors, self.ids, self.names, self.card = vectors, dict(ids), dict(names), dict(card)

    @classmethod
    def from_corpus(
        cls,
        encoder: Encoder,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        show_progress_bar: bool | None = None,
    ) -> EntityTable:
        """Averages an encoder's hidden states at the start markers of each entity over all its mentions.

        Args:
            encoder: opened with representation "entity_start", without projection: the first half of its vectors
                counts for the head, the second for the tail.
            data: a ``Dataset``, or what ``relpt.load`` takes, with ids or names of entities; labels are not used. A
                name without id is the entity whose id all other mentions of that name have.
            inputs, max_length, show_progress_bar: see ``Encoder.encode``.

        Raises:
            ValueError: another representation, a projection, a ``Corpus`` (whose entities are numbers of its own), or
                data without ids and names.
        """
        from relpt.data.report import entity_keys

        _check_entity_start(encoder)
        dataset, _ = _entities_of(data)
        pairs = entity_keys(dataset)
        keys = sorted({key for pair in pairs for key in pair if key is not None})  # "id:…" stands before "name:…"
        numbers: dict[str | None, int] = {key: row for row, key in enumerate(keys)}
        rows = np.array([[numbers.get(key, -1) for key in pair] for pair in pairs], np.int64)
        if not keys:
            raise ValueError(f"{dataset.name}: holds no sentences, and so no entities to average")
        vectors = encoder.encode(dataset, inputs=inputs, max_length=max_length, show_progress_bar=show_progress_bar)
        vectors = vectors.reshape(len(rows), 2, -1)
        _warn(int((rows < 0).sum()), rows.size, "have neither id nor name and are left out")
        ids = {key.removeprefix("id:"): row for row, key in enumerate(keys) if key.startswith("id:")}
        mentioned = [name for i in dataset for name in (i.head_name, i.tail_name)]
        names = _names(zip(mentioned, rows.reshape(-1).tolist(), strict=True), len(ids))
        card = {"encoder": encoder.name, "inputs": input_name(inputs), "max_length": max_length, "data": dataset.name}
        return cls(_averages(vectors, rows, len(keys)), ids=ids, names=names, card=card)

    @property
    def dim(self) -> int:
        """Size of a relation vector, 2 H."""
        return 2 * int(self.vectors.shape[1])

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"entities of {self.card.get('encoder', 'a table')}"

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"<relpt.EntityTable: {len(self):,} entities ({len(self.ids):,} by id), [head, tail] -> {self.dim}>"

    def encode(
        self,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        dtype: str | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """The vectors of the head and of the tail, side by side.

        Args:
            data: a ``Dataset``, or what ``relpt.load`` takes, with ids or names; one ``Instance`` or dict gives one
                vector.
            normalize_embeddings: divide each vector by its Euclidean length.
            inputs, max_length, dtype, show_progress_bar: those of ``Encoder.encode``, without effect here.

        Returns:
            float32 (n, 2 H) in the data's order, or (2 H,) for one instance. An entity that the table lacks gets
            zeros, counted in one warning.

        Raises:
            ValueError: a ``Corpus``, data without ids and names, or an unknown input setting.
        """
        input_name(inputs)
        dataset, single = _entities_of(data)
        mentions = [pair for i in dataset for pair in ((i.head_name, i.head_id), (i.tail_name, i.tail_id))]
        rows = np.array([self._row(*mention) for mention in mentions], np.int64)
        lacking = Counter(id_ or name or "unnamed" for (name, id_), row in zip(mentions, rows, strict=True) if row < 0)
        shown = ", ".join(f"{entity!r} ({count:,})" for entity, count in lacking.most_common(3))
        _warn(lacking.total(), len(rows), f"are of entities that the table lacks, such as {shown}: they get zeros")
        vectors = np.where(rows[:, None] < 0, np.float32(0), self.vectors[rows]).reshape(len(dataset), self.dim)
        if normalize_embeddings:
            vectors = _unit(vectors)
        return vectors[0] if single else vectors

    def _row(self, name: str | None, id_: str | None) -> int:
        """The row of a mention, -1 for none."""
        from relpt.data.report import plain_name

        if id_ is not None and id_ in self.ids:
            return self.ids[id_]
        row = -1 if name is None else self.names.get(plain_name(name), -1)
        return -1 if id_ is not None and row < len(self.ids) else row  # another id is another entity

    def check_corpus(self, corpus: Any) -> None:
        """ValueError: a corpus numbers its entities itself, without ids and names to look them up by."""
        _refuse_corpus(corpus)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes entities.safetensors and entities.json; a table that is there is replaced once they are complete.

        Raises:
            FileExistsError: something else than a table is there.
            OSError: the folder cannot be written.
        """
        target = replaceable(folder, _TABLE_CARD, "relpt-entities", _TABLE_FILE)
        with replace_folder(target) as new:
            entry = ("vectors", self.vectors.shape, partial(np.asarray, self.vectors))
            save_tensors(new / _TABLE_FILE, [entry])
            own = {"format": "relpt-entities", "version": 1, "ids": self.ids, "names": self.names}
            write_json(new / _TABLE_CARD, {"card": self.card, **own})
        return Path(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> EntityTable:
        """Opens what ``save`` wrote.

        Raises:
            FileNotFoundError: there is no table.
            FormatError: a file is missing, damaged, or does not fit the other.
        """
        card = _read_card(folder, _TABLE_CARD, {"ids": dict, "names": dict, "card": dict}, "EntityTable.save")
        vectors = load_tensors(Path(folder), _TABLE_FILE).get("vectors")
        rows, ids = [*card["ids"].values(), *card["names"].values()], list(card["ids"].values())
        if (
            vectors is None
            or vectors.ndim != 2
            or not all(type(row) is int and 0 <= row < len(vectors) for row in rows)
        ):
            raise FormatError(f"{folder}: {_TABLE_FILE} does not hold the rows that {_TABLE_CARD} names; save it again")
        if ids != list(range(len(ids))):
            raise FormatError(f"{Path(folder) / _TABLE_CARD}: ids are not the first rows in order; save it again")
        return cls(vectors, ids=card["ids"], names=card["names"], card=card["card"])


class HybridEncoder:
    """Several encoders' relation vectors, side by side.

    With one encoder pre-trained for the entities and one for the relation this is the hybrid [H,T]+Mask of arXiv
    2312.11062 ("Entity or Relation Embeddings?", section 3.3): both are pre-trained separately and joined afterwards.
    An encoder that was not trained, or an ``EntityTable`` of one, gives its form with frozen entity embeddings.

    Each row of a part is divided by its Euclidean length by default, so that no part outweighs the others by the scale
    of its hidden states: a classifier behind the vectors learns that scale, a similarity of vectors cannot. Zeros stay
    zeros.

    Args:
        encoders: two or more of ``Encoder``, ``CNNEncoder``, ``EntityTable``, ``HybridEncoder``.
        weights: above 0, what each part is multiplied by; None for 1. With ``scale``, the parts' cosines count in the
            similarity of two vectors by the weights' squares.
        scale: whether parts are divided by their lengths.

    Attributes:
        encoders, weights, scale: as given.
        dim: size of a relation vector, the sum of the parts'.

    Raises:
        ValueError: fewer than two encoders, or weights that are not one positive number for each.
        TypeError: something that is no encoder.
    """

    def __init__(
        self,
        *encoders: Encoder | CNNEncoder | EntityTable | HybridEncoder,
        weights: Sequence[float] | None = None,
        scale: bool = True,
    ) -> None:
        if len(encoders) < 2:
            raise ValueError(f"a hybrid joins two encoders or more, got {len(encoders)}; use one encoder as it is")
        for encoder in encoders:
            if not isinstance(encoder, tuple(_KINDS.values())):
                raise TypeError(f"cannot join a {type(encoder).__name__}; expected {', '.join(_KINDS)}")
        self.encoders, self.scale = encoders, scale
        self.weights = tuple(float(weight) for weight in (weights if weights is not None else [1] * len(encoders)))
        if len(self.weights) != len(encoders) or not all(0 < weight < np.inf for weight in self.weights):
            raise ValueError(f"weights is {weights!r}; expected {len(encoders)} numbers above 0, one for each encoder")

    @property
    def dim(self) -> int:
        """Size of a relation vector."""
        return sum(encoder.dim for encoder in self.encoders)

    @property
    def name(self) -> str:
        """The parts' names."""
        return " + ".join(encoder.name for encoder in self.encoders)

    def get_params(self) -> dict[str, Any]:
        """The options by name."""
        return {"weights": self.weights, "scale": self.scale}

    def __repr__(self) -> str:
        parts = ", ".join(f"{encoder!r}" for encoder in self.encoders)
        return f"<relpt.HybridEncoder -> {self.dim}, weights {self.weights}, scale {self.scale}: {parts}>"

    def encode(
        self,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        dtype: str | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """The parts' vectors, scaled, weighted and side by side in the order of the encoders.

        Args:
            data: see ``Encoder.encode``; each encoder tokenizes it by its own tokenizer. A ``Corpus`` must be of the
                one tokenizer that all share.
            normalize_embeddings: divide the whole vector by its Euclidean length.
            inputs, max_length, dtype, show_progress_bar: see ``Encoder.encode``; dtype None is each one's own.

        Returns:
            float32 (n, dim) in the data's order, or (dim,) for one instance.

        Raises:
            ValueError: a corpus of another tokenizer than one of the encoders'; what the parts raise.
        """
        from relpt.corpus import Corpus
        from relpt.data.reading import as_dataset

        single = False
        if isinstance(data, Corpus):
            self.check_corpus(data)
        else:
            data, single = as_dataset(data)
        parts = []
        for encoder, weight in zip(self.encoders, self.weights, strict=True):
            vectors = encoder.encode(
                data, inputs=inputs, max_length=max_length, dtype=dtype, show_progress_bar=show_progress_bar
            )
            parts.append((_unit(vectors) if self.scale else vectors) * np.float32(weight))
        joined = np.concatenate(parts, axis=1)
        if normalize_embeddings:
            joined = _unit(joined)
        return joined[0] if single else joined

    def check_corpus(self, corpus: Any) -> None:
        """ValueError when a part cannot use a corpus, since it was tokenized by another tokenizer than the part's."""
        for encoder in self.encoders:
            try:
                encoder.check_corpus(corpus)
            except ValueError as error:
                raise ValueError(
                    f"the corpus {corpus.name!r} cannot serve all parts of the hybrid ({encoder.name} differs); "
                    "give the data untokenized (a Dataset or a path), which each encoder reads by itself"
                ) from error

    # -- saving and opening ------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Writes each part into a sub-folder "0", "1", … and hybrid.json.

        Everything is written to a temporary folder beside ``folder``, which takes its place when it is complete.

        Raises:
            FileExistsError: something else than a hybrid is there.
            OSError: the folder cannot be written; what was there stays.
        """
        with self.replace(folder) as new:
            self._write(new)
        return Path(folder)

    @staticmethod
    def replace(folder: str | os.PathLike[str]) -> AbstractContextManager[Path]:
        """A temporary folder that takes the place of ``folder`` when the block ends well; FileExistsError where
        something else than a hybrid is there."""
        return replace_folder(replaceable(folder, _CARD, "relpt-hybrid", *_PARTS))

    def _write(self, new: Path) -> None:
        for number, encoder in enumerate(self.encoders):
            save = encoder.save if isinstance(encoder, EntityTable) else encoder.save_pretrained
            save(new / str(number))
        parts = [_part_card(encoder) for encoder in self.encoders]
        options = {"weights": list(self.weights), "scale": self.scale}
        write_json(new / _CARD, {"format": "relpt-hybrid", "version": 1, "encoders": parts, **options})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str = "cpu",
        dtype: str | None = None,
        num_threads: int | None = None,
    ) -> HybridEncoder:
        """Opens what ``save_pretrained`` wrote.

        Args:
            folder: the folder.
            dtype: that of each encoder; None: the one that it was saved with.
            device, num_threads: those of each encoder, see ``Encoder.from_pretrained``.

        Raises:
            FileNotFoundError: there is no hybrid.
            FormatError: a file is missing or damaged.
        """
        kinds = {"encoders": list, "weights": list, "scale": bool}
        card = _read_card(folder, _CARD, kinds, "HybridEncoder.save_pretrained")
        path = Path(folder) / _CARD
        for part in card["encoders"]:
            if not isinstance(part, dict) or part.get("kind") not in [*_KINDS]:
                raise FormatError(f"{path}: an encoder's kind is none of {', '.join(_KINDS)}; save it again")
        with refused_in(path):
            for part in card["encoders"]:
                choice(part.get("dtype", "float32"), DTYPES, "an encoder's dtype")
            if not all(type(weight) in (int, float) for weight in card["weights"]):
                raise TypeError(f"weights is {card['weights']!r}; expected a number above 0 for each encoder")
        parts = [
            _open_part(Path(folder) / str(number), part, device=device, dtype=dtype, num_threads=num_threads)
            for number, part in enumerate(card["encoders"])
        ]
        with refused_in(path):
            return cls(*parts, weights=card["weights"], scale=card["scale"])


_KINDS: Final[dict[str, type]] = {
    "Encoder": Encoder,
    "CNNEncoder": CNNEncoder,
    "EntityTable": EntityTable,
    "HybridEncoder": HybridEncoder,
}


def _part_card(encoder: Any) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if isinstance(encoder, cls))
    return {"kind": kind, "dtype": encoder.dtype} if hasattr(encoder, "dtype") else {"kind": kind}


def _open_part(
    folder: Path, part: Mapping[str, Any], *, device: str, dtype: str | None, num_threads: int | None
) -> Any:
    if part["kind"] == "EntityTable":
        return EntityTable.open(folder)
    if part["kind"] == "HybridEncoder":
        return HybridEncoder.from_pretrained(folder, device=device, dtype=dtype, num_threads=num_threads)
    own = part.get("dtype", "float32") if dtype is None else dtype
    if part["kind"] == "CNNEncoder":
        return CNNEncoder.from_pretrained(folder, dtype=own, num_threads=num_threads)
    return Encoder.from_pretrained(folder, device=device, dtype=own, num_threads=num_threads)


def open_encoder(name: str | os.PathLike[str], **options: Any) -> Encoder | CNNEncoder | HybridEncoder:
    """The encoder of a name or folder: a hybrid or a CNN where the folder holds one, else an ``Encoder``.

    Args:
        name: see ``Encoder.from_pretrained``.
        options: of the ``from_pretrained`` of what is there.

    Raises:
        ValueError: an option that the encoder of this folder does not have.
    """
    folder = Path(name)
    kind: Any = Encoder
    if (folder / _CARD).is_file():
        kind = HybridEncoder
    elif (folder / "config.json").is_file() and read_table(folder / "config.json").get("model_type") == MODEL_TYPE:
        kind = CNNEncoder
    known = kind.from_pretrained.__kwdefaults__
    if kind is CNNEncoder and options.get("device") == "cpu":
        options = {key: value for key, value in options.items() if key != "device"}
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"{name} holds a {kind.__name__}, which has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
    return kind.from_pretrained(name, **options)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean length; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def _check_entity_start(encoder: Encoder) -> None:
    if encoder.representation != "entity_start":
        raise ValueError(
            f"entities are averaged over their start markers, but {encoder.name} gives {encoder.representation!r}; "
            "open it with representation='entity_start'"
        )
    if encoder.projection is not None:
        raise ValueError(
            f"{encoder.name} has a projection, which mixes head and tail; open it with representation='entity_start' "
            "for plain hidden states, or set its projection to None"
        )


def _refuse_corpus(corpus: Any) -> NoReturn:
    raise ValueError(
        f"the corpus {corpus.name!r} has no ids and names of entities; give the Dataset that it was made of"
    )


def _entities_of(data: Any) -> tuple[Any, bool]:
    """The Dataset, and whether it is one sentence; ValueError where nothing tells its entities apart."""
    from relpt.corpus import Corpus
    from relpt.data.reading import as_dataset

    if isinstance(data, Corpus):
        _refuse_corpus(data)
    dataset, single = as_dataset(data)
    if len(dataset) and not any(x for i in dataset for x in (i.head_id, i.tail_id, i.head_name, i.tail_name)):
        raise ValueError(
            f"{dataset.name}: no entity has an id or a name to look it up by; add 'id' or 'name' to h and t"
        )
    return dataset, single


def _averages(vectors: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Means float32 (n, H) of vectors (sentences, 2, H) by the entities' rows (sentences, 2), -1 for none."""
    known = rows >= 0
    sums = np.zeros((n, vectors.shape[2]))
    np.add.at(sums, rows[known], vectors[known])
    return (sums / np.bincount(rows[known], minlength=n)[:, None]).astype(np.float32)


def _names(mentions: Iterable[tuple[str | None, int]], n_ids: int) -> dict[str, int]:
    """The row of each name: that of its mentions without id, else that of the only id it has (rows below n_ids)."""
    from relpt.data.report import plain_name

    found: dict[str, set[int]] = {}
    for name, row in mentions:
        if name is not None:
            found.setdefault(plain_name(name), set()).add(row)
    return {name: max(rows) for name, rows in sorted(found.items()) if len(rows) == 1 or max(rows) >= n_ids}


def _warn(count: int, total: int, what: str) -> None:
    if count:
        warnings.warn(f"{count:,} of {total:,} mentions {what}", stacklevel=3)


def _read_card(folder: str | os.PathLike[str], file: str, kinds: Mapping[str, type], writer: str) -> dict[str, Any]:
    path = Path(folder) / file
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: has no {file}; give a folder written by {writer}")
    card = read_table(path)
    for key, kind in kinds.items():
        if not isinstance(card.get(key), kind):
            raise FormatError(f"{path}: {key!r} is missing or no {kind.__name__}; save it again")
    return card
