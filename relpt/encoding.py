"""What every encoder does to encode: data to a corpus, the corpus' rows through the core, one warning for cut ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from relpt import _core
from relpt.errors import TruncationWarning
from relpt.inputs import DTYPES, input_number
from relpt.progress import progress

__all__ = ["Runs", "as_corpus", "check_corpus", "encode_rows", "unit_length", "warn_truncated"]

_CHUNK: Final = 256  # sentences a call of the core for each thread, between which the progress bar moves
_CAPACITY: Final = 512  # tokens a batch: what one thread takes through the network at a time
_GPU_CHUNK: Final = 8_192  # the same on a GPU: a call is several batches, of which one is gathered while another runs
_GPU_CAPACITY: Final = 32_768
_GPU_BATCH: Final = 1_024  # sentences a batch, at most


class Runs:
    """The core's workspaces of a model, one for each dtype, made when they are first needed.

    Attributes:
        chunk: sentences to give them in one call.
    """

    def __init__(self, model: Any, num_threads: int) -> None:
        self._model, self._num_threads = model, num_threads
        self._gpu = model.backend.startswith("cuda")
        self.chunk = _GPU_CHUNK if self._gpu else _CHUNK * num_threads
        self._made: dict[str, tuple[int, Any]] = {}  # tokens that fit, and the workspace

    def of(self, max_length: int, dtype: str) -> Any:
        """The ``_core.EncodeRun`` for sentences of this length."""
        tokens = max(_GPU_CAPACITY if self._gpu else _CAPACITY, max_length)
        if dtype not in self._made or self._made[dtype][0] < tokens:
            most = _GPU_BATCH if self._gpu else _CHUNK
            run = _core.EncodeRun(self._model, most, tokens, self._num_threads, DTYPES.index(dtype))
            self._made[dtype] = tokens, run
        return self._made[dtype][1]


def encode_rows(
    run: Any,
    core: Any,
    tokens: Mapping[str, Any],
    rows: np.ndarray,
    *,
    inputs: str,
    max_length: int,
    parts: Sequence[int],
    dim: int,
    chunk: int,
    show: bool | None,
) -> np.ndarray:
    """Vectors float32 (n, dim) of rows of the core's corpus, by `chunk` of them in a call; cut sentences count in one
    TruncationWarning.

    Called by a method that ``encode`` calls: the warning points at who called ``encode``.
    """
    number = input_number(inputs)
    vectors = np.empty((len(rows), dim), np.float32)
    cut, rows = np.zeros(3, np.int64), rows.astype(np.int64)
    with progress(len(rows), show, desc=f"encode {inputs}", unit="sent") as bar:
        for first in range(0, len(rows), chunk):
            part = rows[first : first + chunk]
            found, counts = run.rows(core, tokens, part, number, max_length, parts)
            vectors[first : first + len(part)] = found
            cut += counts
            bar.update(len(part))
    warn_truncated(int(cut[1]), int(cut[2]), max_length, stacklevel=5)
    return vectors


def warn_truncated(cut: int, mentions: int, max_length: int, *, drawn: int = 0, stacklevel: int = 4) -> None:
    """One TruncationWarning with the counts, where a sentence was cut; in training, of so many that were drawn."""
    if not cut:
        return
    also = f", {mentions} of them inside a mention" if mentions else ""
    what = f"of {drawn:,} drawn sentences are" if drawn else "sentence is" if cut == 1 else "sentences are"
    warnings.warn(
        f"{cut:,} {what} longer than max_length={max_length}: a window around both entities is used{also}",
        TruncationWarning,
        stacklevel=stacklevel,
    )


def as_corpus(encoder: Any, data: Any, max_length: int, show: bool | None) -> tuple[Any, bool]:
    """The Corpus of what ``encode`` takes, tokenized by the encoder, and whether that was one sentence alone."""
    from relpt.corpus import Corpus
    from relpt.data.reading import as_dataset

    if isinstance(data, Corpus):
        encoder.check_corpus(data)
        return data, False
    data, single = as_dataset(data)
    with warnings.catch_warnings():  # the window is counted once, by encode_rows
        warnings.simplefilter("ignore", TruncationWarning)
        return data.tokenize(encoder, max_length=max_length, show_progress_bar=show), single


def check_corpus(encoder: Any, corpus: Any) -> None:
    """ValueError when a corpus was tokenized by another tokenizer than this encoder's."""
    from relpt.corpus import tokenizer_fingerprint

    if corpus.tokenizer != tokenizer_fingerprint(encoder):
        raise ValueError(
            f"the corpus {corpus.name!r} was tokenized by another tokenizer than {encoder.name}'s; "
            "tokenize the data with this encoder"
        )


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Each vector divided by its Euclidean length, in place."""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors
