"""How well predictions fit their labels: a number that says what it is, and the table behind it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relpt import metrics
from relpt.inputs import choice
from relpt.metrics import METRICS, ConfusionMatrix, Measures, RelationScore

__all__ = ["ClassReport", "Score", "choose_measures", "score_labels"]


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
        return f"<{self.metric}{without} {float(self):.4f}{beside}, {self.sentences:,} sentences{wrong}>"

    __str__ = __repr__


def choose_measures(labels: Sequence[str], metric: str | None, negative: str | None) -> Measures:
    """The measures of data with these labels: those that go with their names, what is given over them.

    Raises:
        ValueError: no such measure, no such class, or a measure that needs labels with a direction.
    """
    found = metrics.measures_of(labels)
    if metric is not None:
        choice(metric, METRICS, "metric")
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
        """The rows as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows, columns=RelationScore._fields)

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
