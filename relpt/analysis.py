"""What settings and representations have in common and where they differ: predictions, sentences, vectors.

Figures are taken in float64. Every function raises ValueError, with what was got and the remedy, where its inputs are
empty, differ in length, or hold NaN or infinity.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relpt.data.instance import Instance
from relpt.fewshot import FewShot, FewShotResult
from relpt.frames import data_frame
from relpt.inputs import SIMILARITIES, choice
from relpt.intervals import with_interval
from relpt.metrics import Labels, aligned_labels, confusion_matrix
from relpt.runlog import counted

__all__ = [
    "Agreement",
    "Cases",
    "Complementarity",
    "Neighbours",
    "Probe",
    "RelationGain",
    "agreement",
    "cases",
    "cka",
    "complementarity",
    "nearest",
    "probe",
]

_CELLS: Final = 1 << 22  # similarities held at a time
_SHOWN: Final = 50  # rows of a table in a notebook

Table = NDArray[np.float64]


# -- predictions -------------------------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """How far two settings' predictions agree. Shares are of all sentences; the four outcomes add up to 1.

    Attributes:
        sentences: how many.
        both_right, both_wrong, only_a, only_b: the shares on which both, neither, a alone, b alone is right.
        same_wrong: the part of ``both_wrong`` with one answer from both.
        kappa: Cohen's kappa of the two predictions, the agreement beyond chance; 0 where both only ever say one label.
        p_value: of McNemar's exact two-sided test that a and b are right equally often.
    """

    sentences: int
    both_right: float
    both_wrong: float
    same_wrong: float
    only_a: float
    only_b: float
    kappa: float
    p_value: float


def agreement(gold: Labels, a: Labels, b: Labels) -> Agreement:
    """Compares two settings' predictions of the same sentences.

    Sources: Cohen 1960 (kappa); McNemar 1947, in its exact form: among the sentences on which one alone is right, a is
    right in as many as heads fall in as many throws of a coin.

    Args:
        gold: a relation's name for each sentence.
        a, b: the two settings' predictions.
    """
    gold, a, b = aligned_labels({"gold": gold, "a": a, "b": b})
    right_a, right_b, same = _equal(gold, a), _equal(gold, b), _equal(a, b)
    wrong = ~right_a & ~right_b
    only_a, only_b = right_a & ~right_b, right_b & ~right_a
    return Agreement(
        sentences=len(gold),
        both_right=float((right_a & right_b).mean()),
        both_wrong=float(wrong.mean()),
        same_wrong=float((wrong & same).mean()),
        only_a=float(only_a.mean()),
        only_b=float(only_b.mean()),
        kappa=_kappa(confusion_matrix(a, b).counts),
        p_value=_mcnemar(int(only_a.sum()), int(only_b.sum())),
    )


def _equal(a: list[str], b: list[str]) -> NDArray[np.bool_]:
    return np.array([x == y for x, y in zip(a, b, strict=True)])


def _kappa(counts: NDArray[np.int64]) -> float:
    n = int(counts.sum())
    chance = float(counts.sum(axis=0) @ counts.sum(axis=1)) / n**2
    return (float(counts.trace()) / n - chance) / (1 - chance) if chance < 1 else 0.0


def _mcnemar(only_a: int, only_b: int) -> float:
    """Twice the binomial tail: its largest term exactly, the others by their ratios to it."""
    n, low = only_a + only_b, min(only_a, only_b)
    steps = np.arange(low, 0, -1)
    tail = 1 + float(np.cumprod(steps / (n - steps + 1)).sum())
    return min(1.0, 2 * (math.comb(n, low) / 2**n) * tail)


# -- sentences ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Cases:
    """Sentences on which settings differ; a table in a notebook, right answers in bold.

    Attributes:
        settings: their names.
        rows: for each sentence a dict: "row" (its number in the data), "text", "head", "tail", "gold" and, under each
            setting's name, its prediction.
        differing: sentences on which settings differ, those beyond the limit included.
        sentences: all sentences compared.
    """

    settings: tuple[str, ...]
    rows: list[dict[str, Any]]
    differing: int
    sentences: int

    def to_markdown(self) -> str:
        """The table in Markdown; text shows as it is, without effect as Markdown or HTML."""
        bold = [[f"**{cell}**" if cell and right else cell for cell, right in row] for row in self._cells(_markdown)]
        return _markdown_table(self._columns, bold)

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
        return data_frame(self.rows, self._columns)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*_CASE, *self.settings)

    def _cells(self, escape: Callable[[str], str]) -> list[list[tuple[str, bool]]]:
        """For each row its cells, escaped, and whether each is a right prediction."""
        return [
            [(escape(str(row[name])), name in self.settings and row[name] == row["gold"]) for name in self._columns]
            for row in self.rows
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        settings = ", ".join(self.settings)
        return f"<relpt.Cases: {settings} differ on {self.differing:,} of {self.sentences:,} sentences>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self._columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{f'<b>{cell}</b>' if right else cell}</td>" for cell, right in row) + "</tr>"
            for row in self._cells(html.escape)[:_SHOWN]
        )
        shown = f", the first {min(_SHOWN, len(self))} shown" if min(_SHOWN, len(self)) < self.differing else ""
        return f"<p>{html.escape(repr(self)[1:-1])}{shown}</p><table><tr>{head}</tr>{body}</table>"


_CASE: Final = ("row", "text", "head", "tail", "gold")


def cases(
    data: Sequence[Instance], gold: Labels, predictions: Mapping[str, Labels], *, limit: int | None = None
) -> Cases:
    """The sentences on which the settings' predictions differ, the most telling first.

    First come sentences that some setting gets right, those that the fewest get right before others; then those that
    all get wrong. Among equals, more different answers come first, then the order of the data decides.

    Args:
        data: a ``Dataset`` or list of instances.
        gold: a relation's name for each sentence.
        predictions: by the settings' names, at least two.
        limit: keeps that many sentences; None keeps all.
    """
    settings = tuple(predictions)
    _check_cases(settings, limit)
    named = {"gold": gold, **{f"predictions[{name!r}]": labels for name, labels in predictions.items()}}
    gold, *answers = aligned_labels(named)
    if len(data) != len(gold):
        raise ValueError(f"data has {len(data)} sentences and gold {len(gold)} labels; give one label for each")
    differing = [(i, said) for i, said in enumerate(zip(*answers, strict=True)) if len(set(said)) > 1]

    def telling(case: tuple[int, tuple[str, ...]]) -> tuple[int, int, int]:
        i, said = case
        return said.count(gold[i]) or len(said), -len(set(said)), i

    rows = []
    for i, said in sorted(differing, key=telling)[:limit]:
        case = (i, data[i].text, data[i].head_text, data[i].tail_text, gold[i])
        rows.append(dict(zip((*_CASE, *settings), (*case, *said), strict=True)))
    return Cases(settings, rows, len(differing), len(gold))


def _check_cases(settings: tuple[str, ...], limit: int | None) -> None:
    if len(settings) < 2:
        raise ValueError(f"predictions hold {len(settings)} settings; give two or more to compare")
    for name in settings:
        if not isinstance(name, str) or name in _CASE:
            raise ValueError(f"a setting is called {name!r}; expected text other than {', '.join(_CASE)}: rename it")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected 1 or more, or None for all")


def _markdown(text: str) -> str:
    """One line that Markdown shows as it is; an underscore inside a word marks nothing up."""
    return re.sub(r"([\\`*\[\]|~$]|\b_|_\b|(?<=_)_)", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table with an escaped header and cells as they are."""
    names = [_markdown(name) for name in header]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))


# -- vectors -----------------------------------------------------------------------------------------------------------


def _html_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


class Neighbours(NamedTuple):
    """The nearest rows, best first.

    Attributes:
        indices: int64 (queries, k), or (k,) of a single query.
        similarities: float64, likewise.
    """

    indices: NDArray[np.int64]
    similarities: Table


def nearest(vectors: ArrayLike, query: ArrayLike, k: int = 10, similarity: str = "cosine") -> Neighbours:
    """The ``k`` rows most similar to each query, exactly; of equal ones the lower index comes first.

    A query that is itself a row is among its own neighbours. Beyond the table itself, memory does not grow with the
    number of queries.

    Args:
        vectors: float (n, dim).
        query: float (dim,) or (queries, dim).
        k: 1 to n.
        similarity: "cosine" (0 with a vector of zeros), "dot", or "euclidean": minus the distance.
    """
    choice(similarity, SIMILARITIES, "similarity")
    single = np.ndim(query) == 1
    rows, queries = _table(vectors, "vectors"), _table(np.atleast_2d(query), "query")
    if rows.shape[1] != queries.shape[1]:
        raise ValueError(
            f"vectors have {rows.shape[1]} columns and query {queries.shape[1]}; encode both with one encoder"
        )
    if not 1 <= k <= len(rows):
        raise ValueError(f"k is {k}; expected 1 to {len(rows)}, the number of vectors")
    if similarity == "cosine":
        rows, queries = _unit(rows), _unit(queries)
    indices, similarities = _nearest(rows, queries, k, similarity == "euclidean")
    return Neighbours(indices[0], similarities[0]) if single else Neighbours(indices, similarities)


def _nearest(rows: Table, queries: Table, k: int, euclidean: bool) -> tuple[NDArray[np.int64], Table]:
    """A matrix product finds the candidates, whose similarities are then taken one way wherever they stand.

    The product's rounding depends on a row's place, so that equal rows can differ in it: candidates are all rows within
    a bound of that rounding.
    """
    indices, similarities = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    squares = (rows * rows).sum(axis=1)
    slack = 8 * (rows.shape[1] + 2) * np.finfo(np.float64).eps
    step = max(1, _CELLS // len(rows))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        rough = block @ rows.T - (squares / 2 if euclidean else 0)
        least = np.partition(rough, -k, axis=1)[:, -k]
        least -= slack * (np.sqrt((block * block).sum(axis=1)) + math.sqrt(squares.max())) ** 2
        for i, query in enumerate(block):
            near = np.flatnonzero(rough[i] >= least[i])
            exact = _similarities(rows[near], query, euclidean)
            best = np.argsort(-exact, kind="stable")[:k]
            indices[start + i], similarities[start + i] = near[best], exact[best]
    return indices, similarities


def _similarities(rows: Table, query: Table, euclidean: bool) -> Table:
    """(n,); that of a row does not depend on the others."""
    if euclidean:
        return np.asarray(-np.sqrt(((rows - query) ** 2).sum(axis=1)))
    return np.asarray((rows * query).sum(axis=1))


def _unit(table: Table) -> Table:
    """Rows divided by their lengths; rows of zeros stay."""
    length = np.sqrt((table * table).sum(axis=1, keepdims=True))
    return np.divide(table, length, out=np.zeros_like(table), where=length > 0)


def cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear centred kernel alignment of two representations of the same sentences, 0 to 1.

    It is 1 where y is x after a rotation, a scaling by one factor and a shift. Source: Kornblith et al. 2019, eq. 3.

    Args:
        x: float (n, dim).
        y: float (n, another dim).

    Raises:
        ValueError: all rows of one are the same.
    """
    tables = _table(x, "x"), _table(y, "y")
    _same_length(tables[0], tables[1], "x", "y")
    x, y = _centred(tables[0], "x"), _centred(tables[1], "y")
    if max(x.shape[1], y.shape[1]) < len(x):  # the same through products of the features, which are smaller
        shared, norms = np.linalg.norm(x.T @ y) ** 2, (np.linalg.norm(x.T @ x), np.linalg.norm(y.T @ y))
    else:
        kernels = x @ x.T, y @ y.T
        shared, norms = np.vdot(*kernels), (np.linalg.norm(kernels[0]), np.linalg.norm(kernels[1]))
    return min(1.0, float(shared / (norms[0] * norms[1])))


def _centred(table: Table, name: str) -> Table:
    """Columns less their means, all over one factor so that the sum of squares is 1."""
    centred = table - table.mean(axis=0)
    size = np.linalg.norm(centred)
    if size <= 1e-12 * np.linalg.norm(table):
        raise ValueError(f"all {len(table)} rows of {name} are the same; alignment needs vectors that differ")
    return np.asarray(centred / size)


class Probe(NamedTuple):
    """A linear probe's answers.

    Attributes:
        predictions: (n,) labels, as those it was fitted to.
        accuracy: share of test vectors whose label is right.
    """

    predictions: NDArray[Any]
    accuracy: float

    def __repr__(self) -> str:
        return f"<relpt.Probe: accuracy {self.accuracy:.4f}, {counted(len(self.predictions), 'sentence')}>"


def probe(
    vectors: ArrayLike, labels: ArrayLike, *, test_vectors: ArrayLike, test_labels: ArrayLike, l2: float = 1.0
) -> Probe:
    """How well a linear map of the vectors tells the labels: ridge regression on one-hot targets, in closed form.

    The largest output wins, the first label in order among equals. The bias is not penalised, so that a shift of all
    vectors changes nothing; ``l2`` counts in the vectors' own scale.

    Args:
        vectors: float (n, dim), to be fitted to.
        labels: text or int (n,), two classes or more.
        test_vectors: float (m, dim).
        test_labels: (m,), of the classes of ``labels``.
        l2: weight of the squared coefficients, above 0.
    """
    x, test = _table(vectors, "vectors"), _table(test_vectors, "test_vectors")
    if x.shape[1] != test.shape[1]:
        raise ValueError(f"vectors have {x.shape[1]} columns and test_vectors {test.shape[1]}; encode both alike")
    if not (l2 > 0 and math.isfinite(l2)):
        raise ValueError(f"l2 is {l2}; expected a number above 0")
    classes, numbers = _classes(labels, x, "labels", "vectors")
    gold = _labels(test_labels, test, "test_labels", "test_vectors")
    known = set(classes.tolist())
    unknown = [label for label in gold.tolist() if label not in known]
    if unknown:
        raise ValueError(
            f"{len(unknown)} test_labels are not among the labels, such as {unknown[0]!r}; "
            "leave those sentences out or fit on all classes"
        )
    predictions = classes[_ridge(x, np.eye(len(classes))[numbers], test, l2).argmax(axis=1)]
    return Probe(predictions, float((predictions == gold).mean()))


def _ridge(x: Table, y: Table, test: Table, l2: float) -> Table:
    """Outputs (m, classes) for ``test`` of the map fitted to x (n, dim) and y (n, classes)."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    if x.shape[1] <= len(x):
        weight = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ y)
    else:  # the same through the smaller n x n system
        weight = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), y)
    return np.asarray((test - x_mean) @ weight + y_mean)


# -- two representations -----------------------------------------------------------------------------------------------


class RelationGain(NamedTuple):
    """A relation's row: accuracy by nearest prototype with a, with b, with both; ``support``: sentences tested."""

    relation: str | int
    a: float
    b: float
    both: float
    support: int

    @property
    def gain(self) -> float:
        """What both have over the better of the two."""
        return self.both - max(self.a, self.b)


@dataclass(frozen=True, repr=False)
class Complementarity:
    """How far two representations complement each other; two tables in a notebook.

    Attributes:
        names: of a and b.
        a, b, both: few-shot results on the same episodes, so that their ``per_episode`` can be compared in pairs.
        cka: the alignment of a and b.
        relations: the largest gain first, then by relation.
    """

    names: tuple[str, str]
    a: FewShotResult
    b: FewShotResult
    both: FewShotResult
    cka: float
    relations: list[RelationGain]

    def to_markdown(self) -> str:
        """Two tables: few-shot accuracy with the alignment, and the relations."""
        (few, relations), names = self._rows(), (*self.names, "both")
        shown = [[_markdown(row[0]), *row[1:]] for row in relations]
        first = _markdown_table(("accuracy", *names, "CKA"), [few])
        return f"{first}\n\n{_markdown_table(('relation', *names, 'gain', 'sentences'), shown)}"

    def plot(self, ax: Any = None) -> Any:
        """Draws each relation's accuracy with a, with b and with both, the largest gain first; returns the Axes."""
        from relpt.report.plots import plot_gains

        return plot_gains(self.relations, self.names, ax=ax)

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """The cells of the two tables."""
        results = (self.a, self.b, self.both)
        cells = [with_interval(result.accuracy, result.ci95, 3) for result in results]
        relations = [
            [str(row.relation), *(f"{x:.3f}" for x in row[1:4]), f"{row.gain:+.3f}", str(row.support)]
            for row in self.relations
        ]
        return [f"{self.a.way}-way {self.a.shot}-shot", *cells, f"{self.cka:.3f}"], relations

    def __repr__(self) -> str:
        a, b = self.names
        few, _ = self._rows()
        return f"<relpt.Complementarity: {few[0]} {a} {few[1]}, {b} {few[2]}, both {few[3]}; CKA {few[4]}>"

    def _repr_html_(self) -> str:
        (few, relations), names = self._rows(), (*self.names, "both")
        tables = (("accuracy", *names, "CKA"), [few]), (("relation", *names, "gain", "sentences"), relations)
        return "".join(_html_table(head, rows) for head, rows in tables)


def complementarity(
    a: ArrayLike,
    b: ArrayLike,
    labels: ArrayLike,
    *,
    names: tuple[str, str] = ("a", "b"),
    inputs: str = "C+M",
    n_way: int = 5,
    k_shot: int = 1,
    episodes: int = 10_000,
    seed: int = 42,
    num_threads: int | None = None,
) -> Complementarity:
    """Compares two representations of the same sentences with both side by side.

    All vectors are divided by their lengths first, so that each part of [a,b] weighs the same and a, b and both differ
    in nothing else. Few-shot accuracy is ``FewShot``'s, by cosine. For the relations, prototypes are the means of half
    the sentences of each relation, drawn by ``seed``, and all relations compete for the other half, the smaller one
    where their number is odd.

    Args:
        a: float (n, dim), such as the start markers' [H,T].
        b: float (n, another dim), such as the [MASK] vectors.
        labels: text or int (n,), the relations; at least max(2, k_shot + 1) sentences of each.
        names: of a and b, for tables.
        inputs: the setting that the vectors were made in, for the results' rows.
        n_way, k_shot, episodes, seed: as in ``FewShot``.
        num_threads: None for all.
    """
    parts = _table(a, "a"), _table(b, "b")
    _same_length(parts[0], parts[1], "a", "b")
    classes, numbers = _classes(labels, parts[0], "labels", "a")
    _check_relations(classes, numbers, n_way, k_shot)
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected 1 or more")
    units = [_unit(part) for part in parts]
    tables = [*units, np.hstack(units)]
    fewshot = FewShot(n_way=n_way, k_shot=k_shot, episodes=episodes, similarity="cosine", seed=seed)
    alone_a, alone_b, both = (fewshot.score(table, numbers, inputs=inputs, num_threads=num_threads) for table in tables)
    return Complementarity(names, alone_a, alone_b, both, cka(*parts), _gains(tables, classes, numbers, seed))


def _check_relations(classes: NDArray[Any], numbers: NDArray[np.int64], n_way: int, k_shot: int) -> None:
    if n_way > len(classes):
        raise ValueError(f"n_way is {n_way}, but there are {len(classes)} relations; lower n_way")
    counts = np.bincount(numbers)
    least, needed = int(counts.argmin()), max(2, k_shot + 1)
    if counts[least] < needed:
        raise ValueError(
            f"relation {classes[least].item()!r} has {counted(counts[least], 'sentence')}; expected {needed} or more: "
            "leave the relation out or lower k_shot"
        )


def _gains(tables: list[Table], classes: NDArray[Any], numbers: NDArray[np.int64], seed: int) -> list[RelationGain]:
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(numbers == c)) for c in range(len(classes))]
    support = [rows[: (len(rows) + 1) // 2] for rows in drawn]
    tested = np.concatenate([rows[len(half) :] for rows, half in zip(drawn, support, strict=True)])
    counts = np.bincount(numbers[tested])
    columns = []
    for table in tables:
        prototypes = np.stack([table[rows].mean(axis=0) for rows in support])
        said = nearest(prototypes, table[tested], k=1).indices[:, 0]
        columns.append(np.bincount(numbers[tested], weights=said == numbers[tested]) / counts)
    rows = zip(classes.tolist(), *(column.tolist() for column in (*columns, counts)), strict=True)
    return sorted((RelationGain(*row) for row in rows), key=lambda row: (-row.gain, row.relation))


# -- checks ------------------------------------------------------------------------------------------------------------


def _table(values: ArrayLike, name: str) -> Table:
    """The vectors as float64 (n, dim), every number finite."""
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{name} has shape {table.shape}; expected rows of vectors, at least one")
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        raise ValueError(
            f"{name} has {len(bad)} NaN or infinite numbers, the first in row {bad[0, 0]}; did it diverge?"
        )
    return table


def _same_length(x: Table, y: Table, x_name: str, y_name: str) -> None:
    if len(x) != len(y):
        raise ValueError(f"{x_name} has {len(x)} rows and {y_name} {len(y)}; give both for the same sentences")


def _labels(labels: ArrayLike, table: Table, name: str, table_name: str) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.shape != (len(table),):
        raise ValueError(f"{name} has shape {values.shape}, but {table_name} has {len(table)} rows; give a label each")
    if values.dtype == object and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    if values.dtype.kind not in "iuU":
        raise ValueError(f"{name} are {values.dtype}; expected relations by name or number")
    if values.dtype.kind == "i" and values.min() < 0:
        raise ValueError(f"{name}[{int(values.argmin())}] is {values.min()}; leave out sentences without a relation")
    return values


def _classes(labels: ArrayLike, table: Table, name: str, table_name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes in order, two or more, and each row's number among them."""
    classes, numbers = np.unique(_labels(labels, table, name, table_name), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{name} are all {classes[0].item()!r}; expected two relations or more")
    return classes, numbers.reshape(-1).astype(np.int64)
