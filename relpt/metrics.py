"""Measures of relation extraction: of single sentences, of distantly supervised bags, of link prediction.

Every measure is a fraction, 0 to 1, and never NaN: a ratio without cases counts as 0.

The measures of sentences take ``gold`` and ``predicted``, a relation's name for each sentence, and raise ValueError
where these are empty, differ in length, or hold anything but text. ``score`` takes such a measure by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relpt.inputs import choice

__all__ = [
    "METRICS",
    "PRF",
    "BagCurve",
    "ConfusionMatrix",
    "Measures",
    "RelationScore",
    "accuracy",
    "aligned_labels",
    "bag_curve",
    "confusion_matrix",
    "filtered_ranks",
    "hits_at",
    "macro_f1",
    "measures_of",
    "micro_f1",
    "micro_prf",
    "mrr",
    "relation_report",
    "score",
    "semeval_f1",
    "undirected",
]

Labels: TypeAlias = Iterable[str]
_DIRECTED: Final = re.compile(r"(.+)\((?:e1,e2|e2,e1)\)")


class PRF(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


class RelationScore(NamedTuple):
    """A relation's row of the report; ``support`` is its number of gold labels."""

    relation: str
    precision: float
    recall: float
    f1: float
    support: int


class ConfusionMatrix(NamedTuple):
    """How often each label was taken for each.

    Attributes:
        labels: names in alphabetical order, n of them.
        counts: int64 (n, n); row: gold label, column: predicted label.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]


# -- sentences ---------------------------------------------------------------------------------------------------------


def confusion_matrix(gold: Labels, predicted: Labels) -> ConfusionMatrix:
    """Counts of every pair of gold and predicted label, over the labels that occur in either."""
    gold, predicted = aligned_labels({"gold": gold, "predicted": predicted})
    labels = tuple(sorted({*gold, *predicted}))
    number = {label: i for i, label in enumerate(labels)}
    cells = [number[g] * len(labels) + number[p] for g, p in zip(gold, predicted, strict=True)]
    counts = np.bincount(cells, minlength=len(labels) ** 2).astype(np.int64)
    return ConfusionMatrix(labels, counts.reshape(len(labels), len(labels)))


def accuracy(gold: Labels, predicted: Labels) -> float:
    """Share of sentences whose label is right, a negative class included."""
    counts = confusion_matrix(gold, predicted).counts
    return float(counts.trace() / counts.sum())


def micro_prf(gold: Labels, predicted: Labels, negative: str | None = None) -> PRF:
    """Precision, recall and F1 over all sentences together, the negative class left out.

    A prediction counts unless it is ``negative``, a gold label counts unless it is ``negative``, and a sentence is
    right when both are equal and not ``negative``. Without a negative class all three are the accuracy.

    Source: the scorer of TACRED (Zhang et al. 2017). Where nothing is predicted, it calls the precision 1; here that is
    0, and the F1 is the same.

    Raises:
        ValueError: ``negative`` is neither text nor None.
    """
    _, tally = _tally(gold, predicted, negative)
    precision, recall, f1 = _prf(tally.sum(axis=1))
    return PRF(float(precision), float(recall), float(f1))


def micro_f1(gold: Labels, predicted: Labels, negative: str | None = None) -> float:
    """The F1 of ``micro_prf``."""
    return micro_prf(gold, predicted, negative).f1


def relation_report(gold: Labels, predicted: Labels, negative: str | None = None) -> list[RelationScore]:
    """A row for each label that occurs as gold or predicted, alphabetically, without that of ``negative``."""
    labels, tally = _tally(gold, predicted, negative)
    columns = (labels, *(column.tolist() for column in (*_prf(tally), tally[2])))
    return [RelationScore(*row) for row in zip(*columns, strict=True)]


def macro_f1(gold: Labels, predicted: Labels, negative: str | None = None) -> float:
    """Mean F1 over the rows of ``relation_report``: every label counts alike, however rare; 0 without a row."""
    rows = relation_report(gold, predicted, negative)
    return float(np.mean([row.f1 for row in rows])) if rows else 0.0


def semeval_f1(gold: Labels, predicted: Labels, negative: str = "Other") -> float:
    """SemEval-2010 task 8's official score: macro F1 over relations with direction, without the negative class.

    Labels are such as "Cause-Effect(e1,e2)". The two directions of a relation are one class, in which only an exact
    label is right: a prediction in the wrong direction costs its relation both precision and recall. The mean is over
    the relations of the gold labels, in the task's test file all nine; a relation that is only predicted is not in it.

    Source: Hendrickx et al. 2010; the organisers' scorer, version 1.2, evaluation (iii), (9+1)-way with directionality
    taken into account. Data in the same form, such as KBP37, name their negative class.

    Raises:
        ValueError: a label is neither ``negative`` nor ends in a direction.
    """
    labels, tally = _tally(gold, predicted, negative)
    relations = np.array([_relation(label, negative) for label in labels], str)
    pooled = tally @ (relations[:, None] == np.unique(relations))  # (3, labels) @ (labels, relations)
    f1 = _prf(pooled)[2][pooled[2] > 0]
    return float(f1.mean()) if f1.size else 0.0


def score(name: str, gold: Labels, predicted: Labels, negative: str | None = None) -> float:
    """The measure called ``name``, one of ``METRICS``.

    Args:
        name: "accuracy", "micro_f1", "macro_f1" or "semeval".
        negative: the negative class. "accuracy" counts it like any other; "semeval" takes "Other" for None.

    Raises:
        ValueError: no such measure (names them); what the measure itself raises.
    """
    choice(name, METRICS, "metric")
    return _METRICS[name](gold, predicted, negative)


def _semeval(gold: Labels, predicted: Labels, negative: str | None) -> float:
    return semeval_f1(gold, predicted) if negative is None else semeval_f1(gold, predicted, negative)


_METRICS: Final[dict[str, Callable[[Labels, Labels, str | None], float]]] = {
    "accuracy": lambda gold, predicted, _: accuracy(gold, predicted),
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "semeval": _semeval,
}
METRICS: Final = tuple(_METRICS)


class Measures(NamedTuple):
    """How data are scored.

    Attributes:
        metric: the name of the measure that papers report, one of ``METRICS``.
        official: that of the measure which the data's authors prescribe; often the same.
        negative: the class that means "none of these relations", or None.
    """

    metric: str
    official: str
    negative: str | None


# TACRED and KBP37, SemEval, NYT-FB, Wiki-WD; Wiki80 and ChemProt as released have none.
_NEGATIVES: Final = ("no_relation", "Other", "NA", "P0")
_CHEMPROT: Final = {
    *("ACTIVATOR", "AGONIST", "AGONIST-ACTIVATOR", "AGONIST-INHIBITOR", "ANTAGONIST", "DOWNREGULATOR", "INHIBITOR"),
    *("INDIRECT-DOWNREGULATOR", "INDIRECT-UPREGULATOR", "PRODUCT-OF", "SUBSTRATE", "SUBSTRATE_PRODUCT-OF"),
    "UPREGULATOR",
}


def measures_of(labels: Labels) -> Measures:
    """The measures of a data set, told by the names of its relations (Peng et al. 2020, appendix B).

    Micro-F1 without the negative class where there is one ("no_relation", "Other", "NA" or "P0"): TACRED, SemEval,
    KBP37; beside it ``semeval_f1`` where the other labels have a direction. Micro-F1 for ChemProt, which has no
    negative class. Accuracy for all others, Wiki80 among them.
    """
    labels = set(labels)
    negative = next((name for name in _NEGATIVES if name in labels), None)
    metric = "micro_f1" if negative is not None or (labels and labels <= _CHEMPROT) else "accuracy"
    directed = negative is not None and len(labels) > 1 and not undirected(labels - {negative})
    return Measures(metric, "semeval" if directed else metric, negative)


def undirected(labels: Labels) -> list[str]:
    """The labels that "semeval" cannot count, since they do not end in a direction."""
    return sorted(label for label in labels if _DIRECTED.fullmatch(label) is None)


def aligned_labels(lists: Mapping[str, Labels]) -> list[list[str]]:
    """The labels by name as lists, the same number of each.

    Raises:
        ValueError: they are empty, differ in length, or hold anything but text; says which by its name.
    """
    aligned: list[list[str]] = []
    for name, labels in lists.items():
        if isinstance(labels, str):
            raise ValueError(f"{name} is the text {labels!r}; expected a list of labels, one a sentence")
        aligned.append(list(labels))
        for i, label in enumerate(aligned[-1]):
            if not isinstance(label, str):
                raise ValueError(f"{name}[{i}] is {label!r}; expected text: give relations by name, not by number")
    first, *others = lists
    for name, labels in zip(others, aligned[1:], strict=True):
        if len(labels) != len(aligned[0]):
            raise ValueError(
                f"{first} has {len(aligned[0])} labels and {name} {len(labels)}; give both one for each sentence"
            )
    if not aligned[0]:
        raise ValueError(f"{' and '.join(lists)} are empty; give at least one sentence's labels")
    return aligned


def _tally(gold: Labels, predicted: Labels, negative: str | None) -> tuple[list[str], NDArray[np.int64]]:
    """Labels without ``negative``; int64 (3, labels): how often each is predicted rightly, predicted, gold."""
    if negative is not None and not isinstance(negative, str):
        raise ValueError(f"negative is {negative!r}; expected the negative class's name as text, or None")
    labels, counts = confusion_matrix(gold, predicted)
    kept = [i for i, label in enumerate(labels) if label != negative]
    tally = np.stack([counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)])
    return [labels[i] for i in kept], tally[:, kept]


def _prf(tally: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall, F1, each (...), of counts (3, ...) as in ``_tally``."""
    correct, predicted, support = tally
    return _ratio(correct, predicted), _ratio(correct, support), _ratio(2 * correct, predicted + support)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.zeros(np.shape(whole))
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _relation(label: str, negative: str) -> str:
    """The label without its direction."""
    match = _DIRECTED.fullmatch(label)
    if match is None:
        raise ValueError(
            f"label {label!r} has no direction; expected one such as 'Cause-Effect(e1,e2)', or {negative!r}"
        )
    return match[1]


# -- bags --------------------------------------------------------------------------------------------------------------


class BagCurve(NamedTuple):
    """Precision and recall of the first 1, 2, ... facts, best score first.

    Attributes:
        precision: float64 (facts,).
        recall: float64 (facts,).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def precision_at(self, n: int) -> float:
        """P@N: the share of true facts among the first ``n``.

        Raises:
            ValueError: there are not ``n`` facts.
        """
        if not 1 <= n <= len(self.precision):
            raise ValueError(f"n is {n}; expected 1 to {len(self.precision)}, the number of scored facts")
        return float(self.precision[n - 1])

    @property
    def auc(self) -> float:
        """The area under precision over recall, by trapezoids, with the first precision also at recall 0."""
        precision, recall = np.append(self.precision[0], self.precision), np.append(0.0, self.recall)
        return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))

    @property
    def max_f1(self) -> float:
        """The best F1 that a threshold on the score reaches."""
        return float(_ratio(2 * self.precision * self.recall, self.precision + self.recall).max())


def bag_curve(scores: ArrayLike, gold: ArrayLike, negative: int | None = None) -> BagCurve:
    """Ranks the facts (bag, relation) of distantly supervised data by score: the held-out evaluation.

    Facts with one score share their true ones evenly, which is the mean over all orders of them: no figure depends on
    the order of bags or relations, and a constant score earns no more than chance.

    Source: Mintz et al. 2009 (held-out evaluation); P@N as in Lin et al. 2016.

    Args:
        scores: float (bags, relations), larger is likelier.
        gold: bool (bags, relations), the relations that each bag has.
        negative: the column of the negative class, which is left out.

    Raises:
        ValueError: shapes differ or are not (bags, relations), a score is NaN, no such column, no true fact.
    """
    scores, gold = np.asarray(scores, np.float64), np.asarray(gold)
    if scores.ndim != 2 or scores.shape != gold.shape:
        raise ValueError(f"scores have shape {scores.shape} and gold {gold.shape}; expected (bags, relations) of both")
    if not np.isin(gold, (0, 1)).all():
        raise ValueError("gold has other values than 0 and 1; expected whether each bag has each relation")
    if negative is not None:
        if not 0 <= negative < scores.shape[1]:
            raise ValueError(f"negative is {negative}; expected a column, 0 to {scores.shape[1] - 1}, or None")
        scores, gold = np.delete(scores, negative, axis=1), np.delete(gold, negative, axis=1)
    _refuse_nan(scores)
    if not gold.any():
        raise ValueError("gold has no true fact; recall needs one outside the negative class")
    return _curve(scores.ravel(), gold.ravel().astype(bool))


def _curve(scores: NDArray[np.float64], gold: NDArray[np.bool_]) -> BagCurve:
    order = np.argsort(-scores)
    scores, gold = scores[order], gold[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) + 1  # facts down to each distinct score
    facts = np.arange(1, len(scores) + 1)
    found = np.interp(facts, np.append(0, ends), np.append(0, gold.cumsum()[ends - 1]))
    return BagCurve(found / facts, found / gold.sum())


# -- link prediction ---------------------------------------------------------------------------------------------------


def filtered_ranks(
    scores: ArrayLike, true: ArrayLike, known: Sequence[Sequence[int] | NDArray[np.integer[Any]]]
) -> NDArray[np.float64]:
    """Ranks of the true entities, from 1, among those not known to be right as well.

    A rank is 1 + the entities that score better + half of those that score the same: the mean over all orders of ties,
    so that a constant score ranks in the middle, not first (Berrendorf et al. 2020). Source: Bordes et al. 2013.

    Args:
        scores: float (queries, entities), larger is likelier (for TransE, minus the distance).
        true: int (queries,), the entity to be ranked.
        known: for each query the entities that answer it in any split, left out of the ranking but for ``true`` itself;
            an empty one leaves out none.

    Raises:
        ValueError: numbers of queries differ, a score is NaN, an entity is no column of scores.
    """
    scores, true = np.asarray(scores), np.asarray(true)
    if scores.ndim != 2 or not len(scores) == len(known) or true.shape != scores.shape[:1]:
        raise ValueError(
            f"scores have shape {scores.shape}, true {true.shape}, known length {len(known)}; "
            "expected (queries, entities), (queries,), queries"
        )
    _refuse_nan(scores)
    queries = np.arange(len(scores))
    rival = np.ones(scores.shape, bool)
    for query, entities in enumerate(known):
        rival[query, _entities(entities, scores.shape[1], f"known[{query}]")] = False
    rival[queries, _entities(true, scores.shape[1], "true")] = False
    target = scores[queries, true][:, None]
    better, same = ((rival & case).sum(axis=1) for case in (scores > target, scores == target))
    return np.asarray(1 + better + same / 2, np.float64)


def mrr(ranks: ArrayLike) -> float:
    """Mean reciprocal rank.

    Args:
        ranks: (queries,), from 1, as of ``filtered_ranks``.

    Raises:
        ValueError: no ranks, or one below 1.
    """
    return float(np.mean(1 / _ranks(ranks)))


def hits_at(ranks: ArrayLike, k: int) -> float:
    """Hits@k: the share of ranks that are at most ``k``; ranks and errors as in ``mrr``."""
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 or more")
    return float(np.mean(_ranks(ranks) <= k))


def _ranks(ranks: ArrayLike) -> NDArray[np.float64]:
    ranks = np.asarray(ranks, np.float64)
    if ranks.ndim != 1 or not ranks.size:
        raise ValueError(f"ranks have shape {ranks.shape}; expected (queries,), at least one")
    if not (ranks >= 1).all():
        raise ValueError(f"a rank is {ranks[~(ranks >= 1)][0]}; expected ranks that count from 1")
    return ranks


def _entities(numbers: ArrayLike, entities: int, name: str) -> NDArray[np.int64]:
    numbers = np.asarray(numbers)
    if numbers.size and (numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= entities):
        raise ValueError(f"{name} is {numbers}; expected columns of scores, 0 to {entities - 1}")
    return numbers.astype(np.int64)


def _refuse_nan(scores: NDArray[Any]) -> None:
    if np.isnan(scores).any():
        place = tuple(int(i) for i in np.argwhere(np.isnan(scores))[0])
        raise ValueError(f"scores have {np.isnan(scores).sum()} NaN, the first at {place}; has the run diverged?")
