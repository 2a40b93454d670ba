"""Words of a network that reads words and no word pieces: its vocabulary, its tokenizer, word vectors of a file."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.errors import FormatError
from relpt.inputs import choice

if TYPE_CHECKING:
    from relpt.data import Dataset

__all__ = ["MARKERS", "SPLITS", "count_words", "load_word_vectors", "word_tokenizer", "word_tokens"]

_log = logging.getLogger("relpt")
SPLITS: Final = ("blanks", "punctuation")
UNKNOWN: Final = "[UNK]"
# What stands in place of words, by role.
MARKERS: Final = {"mask": "[MASK]", "blank": "[BLANK]", "subject": "[SUBJ]", "object": "[OBJ]"}
SPECIAL: Final = (UNKNOWN, *MARKERS.values())  # the first words of every vocabulary


def word_tokenizer(words: Iterable[str], *, lowercase: bool, split: str) -> Any:
    """A ``tokenizers.Tokenizer`` of whole words, in their order behind the special ones; a word counts once.

    Args:
        words: the vocabulary.
        lowercase: put text into lower case.
        split: where words end: "blanks", as for text that is tokenized, or "punctuation", before and behind it too.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    choice(split, SPLITS, "split")
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    if lowercase:
        made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if split == "blanks" else pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(SPECIAL))
    return made


def word_tokens(tokenizer: Any, where: str) -> dict[str, Any]:
    """Ids for the core of sequences of words alone: mask, blank, subject, object and the flags ``special``.

    Raises:
        FormatError: the tokenizer has no such token.
    """
    ids: dict[str, Any] = {"bare": True}
    for role, token in {"unk": UNKNOWN, **MARKERS}.items():
        ids[role] = tokenizer.token_to_id(token)
        if ids[role] is None:
            raise FormatError(f"{where}: the tokenizer has no token {token} ({role}); give the one of this network")
    special = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), np.uint8)
    special[[number for role, number in ids.items() if role != "bare"]] = 1
    return {**ids, "special": special}


def count_words(data: Dataset, *, lowercase: bool, split: str) -> tuple[Counter[str], list[str]]:
    """How often each word stands in the data's sentences, and the words of the names of types, sorted."""
    from relpt.corpus.tokenizing import type_text

    tokenizer = word_tokenizer((), lowercase=lowercase, split=split)
    normal = tokenizer.normalizer.normalize_str if lowercase else str

    def words(text: str) -> list[str]:
        return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal(text))]

    counts: Counter[str] = Counter()
    for instance in data:
        counts.update(words(instance.text))
    types = {name for instance in data for name in (instance.head_type, instance.tail_type) if name is not None}
    return counts, sorted({word for name in types for word in words(type_text(name))})


def load_word_vectors(
    path: str | os.PathLike[str], words: Collection[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Word vectors in GloVe's text format: a word and its numbers a line, between blanks.

    The first line says how many numbers there are: by its length, or as word2vec and fastText write it, by the number
    of words and that of numbers, behind which the words begin. Some of GloVe's words hold blanks; the numbers are the
    last of the line. Of a word that stands there twice, the first vector counts; the log says how many there are.

    Args:
        path: the file, UTF-8, perhaps gzipped.
        words: those that are wanted; None takes all.

    Returns:
        The words in the file's order, and float32 (words, size).

    Raises:
        FormatError: a line with fewer or no numbers, or no UTF-8 (names it); fewer words than the first line says; no
            vector at all; a file of another kind, such as word2vec's binary one or a zip archive.
        OSError: the file cannot be read.
    """
    path, size, said, twice, number = Path(path), 0, None, 0, 0
    found: dict[str, np.ndarray] = {}
    wanted = None if words is None else set(words)
    for number, line in _lines(path):
        parts = line.rstrip("\r\n ").split(" ")
        if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            said, size = (int(part) for part in parts)
            continue
        size = size or len(parts) - 1
        if len(parts) <= size:
            raise FormatError(_expected(f"{path}:{number}", size))
        word = " ".join(parts[: len(parts) - size])
        if wanted is not None and word not in wanted:
            continue
        twice += word in found
        found.setdefault(word, _numbers(parts[len(parts) - size :], size, f"{path}:{number}"))
    if said is not None and number - 1 < said:
        raise FormatError(
            f"{path}: holds {number - 1:,} words, and its first line says {said:,}; the file is cut off: copy it again"
        )
    if not found:
        raise FormatError(f"{path}: holds no vector{' of these words' if wanted else ''}; give a file of word vectors")
    if twice:
        _log.info("%s: %d vectors of words that stand there before are left out", path, twice)
    return list(found), np.stack(list(found.values()))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1; only a line feed ends one: GloVe's words hold other spaces."""
    with open(path, "rb") as raw:
        start = raw.peek(4)[:4]
        if start == b"PK\x03\x04":
            raise FormatError(f"{path}: is a zip archive; unpack it, and give the text file inside")
        packed = start[:2] == b"\x1f\x8b"
        number = 0
        try:
            for number, line in enumerate(gzip.GzipFile(fileobj=raw) if packed else raw, 1):
                yield number, line.decode()
        except UnicodeDecodeError:
            hint = "word2vec's binary format? save it as text" if number <= 2 else "save the file as UTF-8"
            raise FormatError(f"{path}:{number}: is no UTF-8; {hint}") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(f"{path}: damaged gzip file ({error}); copy it again") from None


def _numbers(parts: Sequence[str], size: int, where: str) -> np.ndarray:
    try:
        vector = np.array(parts, np.float32)
    except ValueError:
        vector = np.empty(0, np.float32)
    if size < 1 or vector.shape != (size,) or not np.isfinite(vector).all():
        raise FormatError(_expected(where, size))
    return vector


def _expected(where: str, size: int) -> str:
    first = "" if where.endswith(":1") else ", as many as the first line says"
    return f"{where}: expected a word and {max(size, 1)} numbers between blanks{first}; the file is damaged"
