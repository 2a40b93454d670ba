"""A map of relation vectors in which what varies inside relations counts less; fitted to labelled sentences."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from relpt import _core
from relpt.errors import FormatError

__all__ = ["Projection", "load_projection", "save_projection", "sentences_to_fit"]

FILE: Final = "projection.safetensors"


class Projection(NamedTuple):
    """x -> weight x + bias, where x is a relation vector divided by its length.

    Attributes:
        weight: float32 (dim, dim).
        bias: float32 (dim,).
        card: how it was fitted: inputs, sentences (per relation), shrinkage.
    """

    weight: np.ndarray
    bias: np.ndarray
    card: dict[str, Any]

    def apply(self, vectors: np.ndarray, num_threads: int) -> np.ndarray:
        """Projections of float32 vectors (n, dim); a row's does not depend on the others."""
        return _core.project(vectors, self.weight, self.bias, num_threads)


def sentences_to_fit(relation: np.ndarray, sentences: int) -> np.ndarray:
    """Up to ``sentences`` rows of each relation that has two or more, evenly spread over its rows; int64, ascending."""
    chosen = []
    for number in np.unique(relation[relation >= 0]):
        rows = np.flatnonzero(relation == number)
        if len(rows) > 1:
            count = min(sentences, len(rows))
            chosen.append(rows[np.arange(count) * len(rows) // count])
    return np.sort(np.concatenate(chosen)).astype(np.int64) if chosen else np.empty(0, np.int64)


def save_projection(folder: Path, projection: Projection) -> None:
    """Writes projection.safetensors, synced."""
    from relpt.weights import save_tensors

    tensors = {"weight": projection.weight, "bias": projection.bias}
    save_tensors(folder / FILE, [(name, value.shape, partial(np.asarray, value)) for name, value in tensors.items()])


def load_projection(folder: Path, dim: int, card: dict[str, Any]) -> Projection:
    """Reads projection.safetensors.

    Raises:
        FormatError: the file is not there or damaged, or its tensors are missing or of another shape.
    """
    from relpt.weights import load_tensors

    tensors = load_tensors(folder, FILE)
    for name, shape in (("weight", (dim, dim)), ("bias", (dim,))):
        if name not in tensors or tensors[name].shape != shape:
            found = f"has shape {tensors[name].shape}" if name in tensors else "is missing"
            raise FormatError(f"{folder / FILE}: tensor {name} {found}, expected {shape}")
    return Projection(tensors["weight"], tensors["bias"], card)
