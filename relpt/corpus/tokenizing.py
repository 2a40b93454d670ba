"""From a Dataset to a Corpus: word pieces, and mentions aligned to them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.corpus.store import Corpus
from relpt.errors import FormatError, TruncationWarning
from relpt.progress import progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from relpt.data.dataset import Dataset

__all__ = ["TAGS", "continuations", "number_relations", "tag_names", "tokenize", "tokenizer_fingerprint", "type_text"]

_BATCH: Final = 2048  # sentences handed to the tokenizer at once
_EXTRA: Final = 6  # [CLS], [SEP] and the four markers; an encoder says its own (Encoder.input_lengths)
_BLANKS: Final = "Ġ▁"  # a blank, in pieces of bytes and of SentencePiece's
_BEGINS_WORD: Final = _BLANKS + string.punctuation
_UNLABELLED: Final = "unlabelled"
_WORD: Final = re.compile(r"\S+")
TAGS: Final = ("pos", "ner")


def tokenize(
    data: Dataset,
    encoder_or_tokenizer: Any,
    *,
    max_length: int = 64,
    tags: Sequence[str] = (),
    show_progress_bar: bool | None = None,
) -> Corpus:
    """The Corpus of a Dataset; see ``Dataset.tokenize``."""
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1:
        raise ValueError(f"max_length={max_length!r} must be a whole number of word pieces, 1 or more")
    shared = _find_tokenizer(encoder_or_tokenizer)
    plain = PlainTokenizer(shared)
    names = {tag: tag_names(data, tag) for tag in tags}
    parts = []
    with progress(len(data), show_progress_bar, desc="tokenize", unit=" sentences") as bar:
        for start in range(0, len(data), _BATCH):
            batch = data[start : start + _BATCH]
            parts.append(_align(batch, plain, names))
            bar.update(len(batch))
    none = (
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        np.empty((0, 4), np.int32),
        *[np.empty(0, np.int32)] * len(tags),
    )
    ids, lengths, spans, *numbers = (np.concatenate(arrays) for arrays in zip(none, *parts, strict=True))
    relations, relation = number_relations(data)
    head_id, tail_id, entities = _entities(data)
    types, head_type, tail_type = _types(data)
    type_ids, type_lengths = plain.encode([f" {type_text(name)}" for name in types])[:2]  # as inside a sentence
    if (type_lengths == 0).any():
        raise FormatError(f"the type {types[int(np.argmin(type_lengths))]!r} has no word piece; rename it")
    arrays = {
        "ids": ids,
        "offsets": _offsets(lengths),
        "spans": spans,
        "relation": relation,
        "head_id": head_id,
        "tail_id": tail_id,
        "head_type": head_type,
        "tail_type": tail_type,
        "type_ids": type_ids,
        "type_offsets": _offsets(type_lengths),
        **{f"{tag}_tag": array for tag, array in zip(tags, numbers, strict=True)},
    }
    own = getattr(encoder_or_tokenizer, "input_lengths", None)
    needed = lengths + _EXTRA if own is None else own(lengths, spans)
    n_longer = int((needed > max_length).sum())
    if n_longer:
        warnings.warn(
            f"{n_longer:,} of {len(data):,} sentences are longer than max_length={max_length} word pieces "
            f"(the longest needs {int(needed.max())}): they get a window around both entities; "
            "raise max_length to keep them whole",
            TruncationWarning,
            stacklevel=3,
        )
    tables = {
        "relations": relations,
        "types": types,
        "vocab_size": shared.get_vocab_size(with_added_tokens=True),
        "tokenizer": tokenizer_fingerprint(shared),
        "labelled": data.labelled,
        "n_entities": len(entities),
        **{f"{tag}_tags": found for tag, found in names.items()},
    }
    return Corpus(
        arrays=arrays, tables=tables, entities=entities, name=data.name, max_length=max_length, n_longer=n_longer
    )


def tokenizer_fingerprint(encoder_or_tokenizer: Any) -> str:
    """SHA-256 of what turns plain text into word pieces: normalizer, pre-tokenizer, model, added words.

    Special tokens, padding, truncation and templates do not count, since plain text does not meet them; so an encoder
    that adds markers to a tokenizer keeps its fingerprint. Takes what ``Dataset.tokenize`` takes.
    """
    parts = json.loads(_find_tokenizer(encoder_or_tokenizer).to_str())
    words = [token for token in parts.get("added_tokens") or () if not token.get("special")]
    kept = {"added_tokens": words, **{key: parts.get(key) for key in ("normalizer", "pre_tokenizer", "model")}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def continuations(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """Which word pieces go on with the word before them: uint8 (vocab_size,).

    By the vocabulary's own signs: WordPiece's prefix ("##ing") begins such a piece; where pieces hold the blank before
    them ("Ġthe", "▁the"), it is one without that begins with no punctuation. A vocabulary of words alone has none.
    """
    model, vocabulary = json.loads(tokenizer.to_str())["model"], tokenizer.get_vocab(with_added_tokens=False)
    prefix = model.get("continuing_subword_prefix")
    by_blanks = model["type"] in ("BPE", "Unigram") and any(token[:1] in _BLANKS for token in vocabulary)
    flags = np.zeros(vocab_size, np.uint8)
    for token, number in vocabulary.items():
        flags[number] = token.startswith(prefix) if prefix else by_blanks and token[:1] not in _BEGINS_WORD
    flags[[number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]] = 0
    return flags


class PlainTokenizer:
    """A private copy of a tokenizer that takes all text as plain text: no special tokens, no truncation, no padding.

    Args:
        shared: the user's tokenizer, which stays as it is.
    """

    def __init__(self, shared: Tokenizer) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(shared.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        model = json.loads(shared.to_str())["model"]
        unk = model.get("unk_token") or (None if model.get("unk_id") is None else model["vocab"][model["unk_id"]][0])
        self._unk = None if unk is None else self._tokenizer.token_to_id(unk)
        self._special = np.array([i for i, token in added.items() if token.special and i != self._unk], np.int32)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Word pieces int32 (N,), pieces per text int64 (n,), and half-open characters of each piece int64 (N, 2)."""
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        lengths = np.fromiter((len(e) for e in encodings), np.int64, len(encodings))
        n = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32, n)
        chars = np.fromiter(chain.from_iterable(chain.from_iterable(e.offsets for e in encodings)), np.int64, 2 * n)
        special = np.isin(ids, self._special)  # a pre-tokenizer that splits at blanks alone leaves "[MASK]" whole
        if special.any():
            if self._unk is None:
                token = self._tokenizer.id_to_token(int(ids[special][0]))
                raise FormatError(
                    f"the text holds {token!r}, which this tokenizer cannot read as plain text; remove it from the text"
                )
            ids[special] = self._unk
        return ids, lengths, chars.reshape(n, 2)


def _find_tokenizer(source: Any) -> Tokenizer:
    """The tokenizers.Tokenizer of an encoder, a transformers tokenizer, a path, or the object itself."""
    from tokenizers import Tokenizer

    if isinstance(source, (str, os.PathLike)):
        path = os.path.join(source, "tokenizer.json") if os.path.isdir(source) else os.fspath(source)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: no such file; give a tokenizer.json or a folder that holds one")
        try:
            return Tokenizer.from_file(path)
        except Exception as error:  # the library raises bare Exception
            raise FormatError(f"{path}: no tokenizer.json of the tokenizers library ({error})") from None
    for candidate in (source, getattr(source, "tokenizer", None)):
        for tokenizer in (candidate, getattr(candidate, "backend_tokenizer", None)):
            if isinstance(tokenizer, Tokenizer):
                return tokenizer
    raise TypeError(
        f"cannot tokenize with a {type(source).__name__}; pass an Encoder, a tokenizers.Tokenizer, "
        "or the path of a tokenizer.json"
    )


def tag_names(data: Dataset, tag: str) -> list[str]:
    """The names of the tags "pos" or "ner" that the data's words have, sorted, behind "" for no tag.

    Raises:
        ValueError: another kind of tag, or a sentence without tags (says how many).
    """
    if tag not in TAGS:
        raise ValueError(f"tags: {tag!r} is unknown; expected {' or '.join(TAGS)}")
    lacking = [i for i in data if getattr(i, tag) is None]
    if lacking:
        raise ValueError(
            f"{data.name}: {len(lacking):,} of {len(data):,} sentences have no {tag} tags (first: "
            f"{lacking[0].source or 'an instance'}); give a tag a word under {tag!r}, or switch them off"
        )
    return ["", *sorted({name for instance in data for name in getattr(instance, tag)})]


def _align(batch: Dataset, plain: PlainTokenizer, names: dict[str, list[str]]) -> tuple[np.ndarray, ...]:
    """Word pieces, pieces per sentence int64 (n,), and mention spans int32 (n, 4) of a batch; then, for each kind of
    tags whose ``names`` are given, the tag's number of each piece, int32.

    A mention covers every piece that holds one of its characters. Where both mentions want the same piece (they touch
    without a blank), the sentence is tokenized anew with a blank at the inner ends of the mentions.
    """
    texts = [i.text for i in batch]
    blanks: dict[int, list[int]] = {}  # of the texts that got some, where
    mentions = np.array([(*i.head, *i.tail) for i in batch], np.int64).reshape(-1, 4)
    ids, lengths, chars = plain.encode(texts)
    spans = _cover(lengths, chars, mentions)
    common = np.flatnonzero(
        (spans[:, 0] < spans[:, 3])
        & (spans[:, 2] < spans[:, 1])
        & (spans[:, 0] < spans[:, 1])
        & (spans[:, 2] < spans[:, 3])
    )
    if common.size:
        for i in common.tolist():
            texts[i], mentions[i], blanks[i] = _parted(texts[i], mentions[i].tolist())
        ids, lengths, chars = plain.encode(texts)
        spans = _cover(lengths, chars, mentions)
    _refuse(batch, spans)
    columns = (_piece_tags(batch, tag, numbers, blanks, lengths, chars) for tag, numbers in names.items())
    return ids, lengths, spans.astype(np.int32), *columns


def _piece_tags(
    batch: Dataset, tag: str, names: list[str], blanks: dict[int, list[int]], lengths: np.ndarray, chars: np.ndarray
) -> np.ndarray:
    """The number of each piece's tag, that of the word in which the piece begins; int32."""
    numbers = {name: number for number, name in enumerate(names)}
    at, first = np.empty(len(chars), np.int32), 0
    for i, instance in enumerate(batch):
        tags = np.zeros(len(instance.text), np.int32)  # of each character
        for word, name in zip(_WORD.finditer(instance.text), getattr(instance, tag), strict=True):
            tags[word.start() : word.end()] = numbers[name]
        if i in blanks:
            tags = np.insert(tags, blanks[i], 0)
        at[first : first + lengths[i]] = tags[chars[first : first + lengths[i], 0]]
        first += int(lengths[i])
    return at


def _cover(lengths: np.ndarray, chars: np.ndarray, mentions: np.ndarray) -> np.ndarray:
    """Half-open pieces int64 (n, 4) that the mentions' characters (n, 4) touch; start above end where there is none."""
    row = np.repeat(np.arange(lengths.size), lengths)
    place = np.arange(chars.shape[0]) - _offsets(lengths)[row]
    spans = np.empty((lengths.size, 4), np.int64)
    for column in (0, 2):
        hit = (chars[:, 0] < mentions[row, column + 1]) & (chars[:, 1] > mentions[row, column])
        first = np.full(lengths.size, np.iinfo(np.int32).max, np.int64)
        last = np.full(lengths.size, -1, np.int64)
        np.minimum.at(first, row[hit], place[hit])
        np.maximum.at(last, row[hit], place[hit])
        spans[:, column], spans[:, column + 1] = first, last + 1
    return spans


def _parted(text: str, mentions: list[int]) -> tuple[str, list[int], list[int]]:
    """The text with a blank after the first mention and one before the second (a single one where they touch), the
    mentions in it, and where of the former text the blanks are put in."""
    head, tail = mentions[:2], mentions[2:]
    first, second = (head, tail) if head < tail else (tail, head)
    blanks = sorted({first[1], second[0]})
    moved = [second[0] + len(blanks), second[1] + len(blanks)]
    for at in reversed(blanks):
        text = f"{text[:at]} {text[at:]}"
    return text, [*head, *moved] if head < tail else [*moved, *tail], blanks


def _refuse(batch: Dataset, spans: np.ndarray) -> None:
    """FormatError at the first mention without a piece, or pair of mentions with a piece in common."""
    for column, role in ((0, "head"), (2, "tail")):
        empty = np.flatnonzero(spans[:, column] >= spans[:, column + 1])
        if empty.size:
            instance = batch[int(empty[0])]
            text = instance.head_text if role == "head" else instance.tail_text
            raise FormatError(
                f"{instance.source or 'instance'}: the {role} mention {text!r} has no word piece in this "
                "tokenizer; remove the record"
            )
    common = np.flatnonzero((spans[:, 0] < spans[:, 3]) & (spans[:, 2] < spans[:, 1]))
    if common.size:
        instance = batch[int(common[0])]
        raise FormatError(
            f"{instance.source or 'instance'}: the mentions {instance.head_text!r} and "
            f"{instance.tail_text!r} share a word piece; put other words between them, or remove the record"
        )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _numbered(keys: Iterable[str | None]) -> tuple[np.ndarray, dict[str, int]]:
    """Numbers in order of first appearance, -1 for None; int32."""
    numbers: dict[str, int] = {}
    out = [-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(out, np.int32), numbers


def number_relations(data: Dataset) -> tuple[list[str], np.ndarray]:
    """The relations' names, sorted, and each sentence's number; one pseudo relation for unlabelled data."""
    names = data.labels
    if not names:
        return [_UNLABELLED], np.zeros(len(data), np.int32)
    numbers = {name: i for i, name in enumerate(names)}
    out = np.empty(len(data), np.int32)
    for row, instance in enumerate(data):
        if instance.relation is None:
            raise ValueError(
                f"{instance.source or f'instance {row}'} has no relation, though others have one; "
                "give it one, or filter it out"
            )
        out[row] = numbers[instance.relation]
    return names, out


def _entities(data: Dataset) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from relpt.data.report import entity_keys

    flat, numbers = _numbered(chain.from_iterable(entity_keys(data)))
    pairs = flat.reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy(), list(numbers)


def _types(data: Dataset) -> tuple[list[str], np.ndarray, np.ndarray]:
    names = data.types
    numbers = {name: i for i, name in enumerate(names)}
    head = np.array([-1 if i.head_type is None else numbers[i.head_type] for i in data], np.int32)
    tail = np.array([-1 if i.tail_type is None else numbers[i.tail_type] for i in data], np.int32)
    return names, head, tail


def type_text(name: str) -> str:
    """A type's name as text: ``WORK_OF_ART`` as ``WORK OF ART``; a name of punctuation alone stays as it is."""
    return re.sub(r"[\W_]+", " ", name).strip() or name
