"""How well predictions fit their labels: a number that says what it is, and the table behind it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt import metrics
from relpt.frames import data_frame
from relpt.inputs import choice
from relpt.metrics import METRICS, BagCurve, ConfusionMatrix, Measures, RelationScore
from relpt.runlog import counted

if TYPE_CHECKING:
    from relpt.data.bags import Bag

__all__ = [
    "BAG_AUC",
    "BagScore",
    "ClassReport",
    "Score",
    "check_facts",
    "choose_measures",
    "score_bags",
    "score_labels",
    "unknown_text",
]

BAG_AUC: Final = "bag_auc"  # the measure of bags, beside those of sentences
_PLACES: Final = (100, 200, 300)  # of P@N, as Lin et al. 2016 print it


class Score(float):
    """A figure from 0 to 1, a float that knows what it says.

    Attributes:
        metric: the measure's name.
        negative: the class that it leaves out, or None.
        official, official_metric: the measure that the data's authors prescribe, beside it; often the same.
        sentences: how many were scored.
        unknown: those of them whose relation the classifier does not know, each counted as wrong.
    """

    metric: str
    negative: str | None
    official: float
    official_metric: str
    sentences: int
    unknown: int

    def __new__(cls, value: float, **details: Any) -> Score:
        made = super().__new__(cls, value)
        made.__dict__.update(details)
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        return (float(self),), dict(self.__dict__)

    def __repr__(self) -> str:
        without = f" without {self.negative!r}" if self.negative is not None and self.metric != "accuracy" else ""
        beside = f", {self.official_metric} {self.official:.4f}" if self.official_metric != self.metric else ""
        wrong = f", {self.unknown:,} of unknown relations counted as wrong" if self.unknown else ""
        return f"<{self.metric}{without} {float(self):.4f}{beside}, {counted(self.sentences, 'sentence')}{wrong}>"

    __str__ = __repr__


def choose_measures(labels: Sequence[str], metric: str | None, negative: str | None, *, bags: bool = False) -> Measures:
    """The measures of data with these labels: those that go with their names, what is given over them; ``bags``: what
    is scored are bags, unless a measure of sentences is given.

    Raises:
        ValueError: no such measure, no such class, or a measure that needs labels with a direction.
    """
    found = metrics.measures_of(labels)
    if metric is None and bags:
        metric = BAG_AUC
    if metric is not None:
        choice(metric, (*METRICS, BAG_AUC), "metric")
    if negative is not None and negative not in labels:
        raise ValueError(f"negative is {negative!r}; expected one of the {len(labels)} relations: {_listed(labels)}")
    negative = found.negative if negative is None else negative
    if metric == "semeval":
        bare = [label for label in metrics.undirected(labels) if label != (negative or "Other")]
        if bare or len(labels) < 2:
            raise ValueError(
                f"metric 'semeval' needs relations with a direction, such as 'Cause-Effect(e1,e2)'; {len(bare)} of "
                f"{len(labels)} have none: {_listed(bare)}; take accuracy, micro_f1 or macro_f1"
            )
    return Measures(metric or found.metric, found.official if metric is None else metric, negative)


def score_labels(gold: Sequence[str], predicted: Sequence[str], measures: Measures, unknown: int = 0) -> Score:
    """The score of predictions by the given measures."""
    figures = [metrics.score(name, gold, predicted, measures.negative) for name in (measures.metric, measures.official)]
    return Score(
        figures[0],
        metric=measures.metric,
        negative=measures.negative,
        official=figures[1],
        official_metric=measures.official,
        sentences=len(gold),
        unknown=unknown,
    )


def score_bags(bags: Sequence[Bag], labels: Sequence[str], scores: np.ndarray, negative: str | None = None) -> BagScore:
    """The held-out evaluation of scores float64 (bags, relations), from 0 on, of the relations ``labels``.

    Relations of the bags that are none of the labels are facts that are never found: they have the last places. The
    negative class is no fact, trained or not; None: that of the bags' relations (``relpt.metrics.measures_of``).

    Raises:
        ValueError: no bag has a relation beside the negative one; a score is NaN.
    """
    negative = check_facts(bags, negative)
    others = sorted({relation for bag in bags for relation in bag.relations} - {*labels})
    names = [*labels, *others]
    gold = np.array([[name in bag.relations for name in names] for bag in bags], bool)
    padded = np.append(scores, np.full((len(bags), len(others)), -1.0), axis=1)
    return BagScore(list(bags), names, padded, gold, negative, len(others))


def check_facts(bags: Sequence[Bag], negative: str | None) -> str | None:
    """The negative class of bags; ValueError where no bag has a relation beside it."""
    there = {relation for bag in bags for relation in bag.relations}
    negative = metrics.measures_of(there).negative if negative is None else negative
    if not there - {negative}:
        beside = "" if negative is None else f" beside {negative!r}"
        raise ValueError(f"none of {len(bags):,} bags has a relation{beside}; give data with facts to find")
    return negative


@dataclass(frozen=True, repr=False)
class BagScore:
    """How well facts (head, relation, tail) are ranked that distantly supervised data have: the held-out evaluation
    (Mintz et al. 2009; Lin et al. 2016). A curve in a notebook's ``plot()``, a table, or text.

    Attributes:
        bags: the ``Bag`` of each pair of entities.
        labels: the relations; those that were not trained are the last.
        scores: float64 (bags, relations), larger is likelier; -1 of a relation that was not trained.
        gold: bool (bags, relations), the relations that each bag has.
        negative: the relation that is no fact, or None.
        unknown: relations that were not trained.
    """

    bags: list[Bag]
    labels: list[str]
    scores: np.ndarray
    gold: np.ndarray
    negative: str | None
    unknown: int

    @cached_property
    def curve(self) -> BagCurve:
        """Precision and recall down the ranking."""
        column = None if self.negative is None else self.labels.index(self.negative)
        return metrics.bag_curve(self.scores, self.gold, column)

    @property
    def auc(self) -> float:
        """The area under precision over recall."""
        return self.curve.auc

    @property
    def max_f1(self) -> float:
        """The best F1 of a threshold on the score."""
        return self.curve.max_f1

    def precision_at(self, n: int) -> float:
        """P@N: the share of true facts among the first ``n``; ValueError where there are fewer."""
        return self.curve.precision_at(n)

    def top(self, n: int = 10) -> list[dict[str, Any]]:
        """The first ``n`` facts: head, relation, tail, score, whether the data have it, sentences (their indices)."""
        found = self.scores.copy()
        if self.negative is not None:
            found[:, self.labels.index(self.negative)] = -np.inf
        best = np.argsort(-found, axis=None, kind="stable")[: max(0, min(n, len(self.curve.precision)))]
        facts = []
        for bag, relation in zip(*np.unravel_index(best, found.shape), strict=True):
            head, tail, rows, _ = self.bags[bag]
            fact = {"head": head, "relation": self.labels[relation], "tail": tail, "score": float(found[bag, relation])}
            facts.append({**fact, "true": bool(self.gold[bag, relation]), "sentences": list(rows)})
        return facts

    def plot(self, ax: Any = None) -> Any:
        """Draws precision over recall; returns the Axes."""
        from relpt.report.plots import plot_bags

        return plot_bags({f"AUC {self.auc:.3f}": self.curve}, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """bags, facts (true ones), auc, max_f1, p_at_100, p_at_200 and p_at_300 (those there are) as plain values."""
        kept = [column for column, name in enumerate(self.labels) if name != self.negative]
        facts = int(self.gold[:, kept].sum())
        places = {f"p_at_{n}": self.precision_at(n) for n in _PLACES if n <= len(self.curve.precision)}
        return {"bags": len(self.bags), "facts": facts, "auc": self.auc, "max_f1": self.max_f1, **places}

    def __str__(self) -> str:
        figures = self.to_dict()
        said = ", ".join(
            f"{_bag_figure(name)} {figures[name]:.4f}" for name in figures if name not in ("bags", "facts")
        )
        without = f" without {self.negative!r}" if self.negative is not None else ""
        lacking = f", {self.unknown} relations not trained" if self.unknown else ""
        return f"<{said}: {counted(figures['facts'], 'fact')}{without} of {counted(figures['bags'], 'bag')}{lacking}>"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{_bag_figure(name)}</th><td>{value if isinstance(value, int) else f'{value:.4f}'}</td></tr>"
            for name, value in self.to_dict().items()
        )
        return f"<table>{rows}</table>"


def _bag_figure(name: str) -> str:
    return {"auc": "AUC", "max_f1": "max F1"}.get(name, name.replace("p_at_", "P@"))


@dataclass(frozen=True, repr=False)
class ClassReport:
    """Precision, recall and F1 of each relation; a table in a notebook and as text.

    Attributes:
        rows: a ``RelationScore`` for each relation that occurs as gold or predicted, the negative class left out.
        score: the measure of them all.
        confusion: how often each relation was taken for each.
    """

    rows: list[RelationScore]
    score: Score
    confusion: ConfusionMatrix

    @classmethod
    def of(cls, gold: Sequence[str], predicted: Sequence[str], score: Score) -> ClassReport:
        """The report of predictions whose score is known."""
        rows = metrics.relation_report(gold, predicted, score.negative)
        return cls(rows, score, metrics.confusion_matrix(gold, predicted))

    def plot(self, ax: Any = None) -> Any:
        """Draws the confusion matrix; returns the Axes."""
        from relpt.report.plots import plot_confusion

        return plot_confusion(self.confusion, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Score and rows as plain values."""
        return {"metric": self.score.metric, "score": float(self.score), "rows": [row._asdict() for row in self.rows]}

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
        return data_frame(self.rows, RelationScore._fields)

    def __str__(self) -> str:
        width = max([len(row.relation) for row in self.rows] + [8])
        lines = [f"{'relation':<{width}}  precision  recall     F1  sentences"]
        lines += [
            f"{row.relation:<{width}}  {row.precision:9.3f}  {row.recall:6.3f}  {row.f1:5.3f}  {row.support:9,}"
            for row in self.rows
        ]
        return "\n".join([*lines, repr(self.score)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("relation", "precision", "recall", "F1", "sentences"))
        rows = "".join(
            f"<tr><td>{html.escape(row.relation)}</td><td>{row.precision:.3f}</td><td>{row.recall:.3f}</td>"
            f"<td>{row.f1:.3f}</td><td>{row.support:,}</td></tr>"
            for row in self.rows
        )
        return f"<b>{html.escape(repr(self.score)[1:-1])}</b><table><tr>{head}</tr>{rows}</table>"


def unknown_text(gold: Sequence[str], known: Sequence[str]) -> str:
    """The labels outside the known ones with their counts; empty where there are none."""
    counts = Counter(label for label in gold if label not in set(known))
    return ", ".join(f"{label!r} ({count:,})" for label, count in counts.most_common(5)) + (
        f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:5])) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
