"""Parts of labelled data: the same share of every relation."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from relpt.data.dataset import Dataset

__all__ = ["fraction_rows"]


def _rank(seed: int, relation: str, number: int) -> bytes:
    """A relation's instances in the order of this hash are shuffled, the same way anywhere."""
    return hashlib.blake2b(f"{seed}\0{number}\0{relation}".encode(), digest_size=16).digest()


def fraction_rows(data: Dataset, share: Any, seed: int) -> np.ndarray:
    """The rows of ``Dataset.fraction``, int64, ascending; its errors."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ValueError(f"the fraction is {share!r}; expected a number above 0, at most 1 (0.01 for 1 %)")
    of: dict[str, list[int]] = {}
    for row, instance in enumerate(data):
        if instance.relation is None:
            raise ValueError(
                f"{data.name}: {instance.source or f'instance {row}'} has no relation; a fraction is taken of each "
                "relation's sentences: give it one, or filter it out"
            )
        of.setdefault(instance.relation, []).append(row)
    exact = Fraction(str(share))  # 0.07 * 100 is above 7 in floating point
    kept = [
        row
        for relation, rows in of.items()
        for _, row in sorted((_rank(seed, relation, i), row) for i, row in enumerate(rows))[
            : math.ceil(exact * len(rows))
        ]
    ]
    return np.sort(np.array(kept, np.int64))
