"""Intervals and paired tests of a few figures, such as those of an experiment's seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "known",
    "known_intervals",
    "mean_interval",
    "paired_t",
    "student_quantile",
    "student_within",
    "with_interval",
]


def student_within(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's t with ``freedom`` degrees, a finite sum (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(abs(t), math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(1, (freedom - 1) // 2 if odd else freedom // 2):
        term *= squared * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        total += term
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside


def student_quantile(level: float, freedom: int) -> float:
    """The t with P(|T| <= t) = level, found by halving the range of its angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if student_within(math.sqrt(freedom) * math.tan(middle), freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def known(half: float | None) -> float | None:
    """The half width of an interval as JSON has it: null where one value has none, which is NaN in Python."""
    return None if half is None or math.isnan(half) else half


def known_intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of figures as JSON has it, by ``known``."""
    return {name: known(value) if name.endswith("ci95") else value for name, value in row.items()}


def with_interval(value: float, half: float | None, digits: int) -> str:
    """A figure and its interval as text: "0.800 ± 0.012", "0.800 ± –" where the interval is not known."""
    width = known(half)
    return f"{value:.{digits}f} ± {'–' if width is None else f'{width:.{digits}f}'}"


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float | None]:
    """The mean, and the half width of its interval by Student's t; None for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, student_quantile(level, len(values) - 1) * error


def paired_t(differences: Sequence[float]) -> float | None:
    """The two-sided p of the paired t-test that the differences are 0 on average; None for a single one.

    Where all are the same number, it is 1 for zeros and else 0.
    """
    if len(differences) < 2:
        return None
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 1 - student_within(mean / error, len(differences) - 1)
