"""None of the above: what speaks for a query's best way, where to draw the line, and what comes out.

In FewRel 2.0 (Gao et al. 2019) the relation of some queries is none of the episode's. Models that are trained for it
learn a score of their own for that answer: BERT-PAIR the smallest score of "not the same" over the ways, MNAV vectors
that stand for it (Sabo et al. 2021). Prototypes alone say how near they are, so that a query is none of the above where
the nearest is not near enough. What is near enough is learned here: the best threshold on other relations.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOTA_SCORES", "accuracies", "best_threshold", "nota_scores", "ratio"]

NOTA_SCORES: Final = ("similarity", "margin", "similarity+margin")

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def nota_scores(name: str, similarity: Floats, margin: Floats) -> Floats:
    """The score that is compared with the threshold, of one of NOTA_SCORES.

    Args:
        similarity: to the most similar prototype.
        margin: what it has over the second most similar one.
    """
    parts = {"similarity": similarity, "margin": margin}
    first, *others = (parts[part] for part in name.split("+"))
    return sum(others, first)


def best_threshold(scores: Floats, right: Flags, none: Flags) -> float:
    """The threshold below which a query is said to be none of the above, so that the most answers are right.

    It stands half way between two scores that occur, or just outside all of them, and is finite. Of equal ones the
    highest is taken.

    Args:
        scores: any shape, finite.
        right: the same shape, whether the best way is the query's.
        none: the same shape, whether no way is; such a query is not right.
    """
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked = scores.ravel()[order]
    gain = np.concatenate([[0], np.cumsum(right.ravel()[order].astype(np.int64) - none.ravel()[order])])
    cut = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])  # a threshold parts no equal scores
    taken = int(np.argmax(np.where(cut, gain, np.iinfo(np.int64).min)))
    if taken == 0:
        return float(np.nextafter(ranked[0], np.inf))
    if taken == len(ranked):
        return float(ranked[-1])
    low, high = float(ranked[taken]), float(ranked[taken - 1])
    middle = low + (high - low) / 2
    return middle if middle > low else high


def ratio(hits: NDArray[np.int64], totals: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """The share of hits, and the half width of its 95 % interval over episodes; None where there is nothing to hit.

    One episode has no interval: its half width is NaN.

    Episodes hold different numbers of queries of a kind, and those of one episode share its supports: hence the
    ratio estimator and its linearised standard error (Cochran 1977, "Sampling Techniques", chapter 6), which is the
    standard error of the mean where all totals are equal.

    Args:
        hits, totals: (episodes,).
    """
    total, n = int(totals.sum()), len(totals)
    if total == 0:
        return None, None
    share = float(hits.sum()) / total
    if n < 2:
        return share, math.nan
    residuals = hits - share * totals
    return share, 1.96 * math.sqrt(n / (n - 1) * float((residuals**2).sum())) / total


def accuracies(right: Flags, none: Flags) -> dict[str, float | None]:
    """Accuracy on the queries of a way and on those that are none of the above, with intervals.

    Args:
        right: (episodes, queries), whether the answer is right, "none of the above" being one.
        none: (episodes, queries), whether this is the right answer.

    Returns:
        ``known_accuracy``, ``known_ci95``, ``none_accuracy``, ``none_ci95``; None where there are no such queries.
    """
    known, known_ci95 = ratio((right & ~none).sum(axis=1), (~none).sum(axis=1))
    found, found_ci95 = ratio((right & none).sum(axis=1), none.sum(axis=1))
    return {"known_accuracy": known, "known_ci95": known_ci95, "none_accuracy": found, "none_ci95": found_ci95}
