"""Plots of training, few-shot results and relation vectors; they take ``ax=None``, return the Axes, never call show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "new_figure",
    "pair_rows",
    "pca",
    "plot_ablation",
    "plot_bags",
    "plot_confusion",
    "plot_fewshot",
    "plot_gains",
    "plot_history",
    "plot_map",
]

# Okabe and Ito's colours, told apart with any kind of colour vision; a violet in place of their yellow, too pale here.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#5D3A9B")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_PUBLISHED: Final = "published"
_BEFORE, _AFTER, _INK, _PALE = "#B3B3B3", "#0072B2", "#333333", "#DDDDDD"
# The parts of a loss: field of the history, name, colour.
_LOSSES: Final = (
    ("loss", "total", "#333333"),
    ("loss_cp", "contrastive", "#0072B2"),
    ("loss_mlm", "masked words", "#D55E00"),
    ("loss_mtb", "blanks", "#009E73"),
    ("loss_ep", "same entities", "#E69F00"),
    ("loss_rc", "relations", "#CC79A7"),
    ("loss_prototypes", "prototypes", "#56B4E9"),
)


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plots need matplotlib, which is not installed: pip install 'relpt[plots]'") from None
    return pyplot


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure outside pyplot's list of figures, for files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    _pyplot()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _axes(width: float, height: float, columns: int = 1) -> Any:
    return _pyplot().subplots(1, columns, figsize=(width, height), layout="constrained")[1]


def _sober(ax: Any, grid: str | None = "y") -> None:
    """No frame above and right, pale grid lines behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(colors=_INK, labelsize=9)
    ax.set_axisbelow(True)
    if grid is not None:
        ax.grid(axis=grid, color=_PALE, linewidth=0.6)


# -- training ---------------------------------------------------------------------------------------------------------


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the last ``window`` steps, fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    smoothed: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


def _spread(positions: list[float], gap: float) -> list[float]:
    """The positions moved apart, so that neighbours have at least the gap; order and middle stay."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    moved = list(positions)
    for low, high in itertools.pairwise(order):
        moved[high] = max(moved[high], moved[low] + gap)
    shift = float(np.mean(positions) - np.mean(moved)) if positions else 0.0
    return [value + shift for value in moved]


def plot_history(history: Any, ax: Axes | None = None, *, window: int | None = None) -> Axes:
    """Loss and its parts over the steps: each step pale, the mean over a window strong, the names at the lines' ends.

    Args:
        history: a ``History``.
        ax: where to draw; None makes a figure.
        window: steps of the running mean; None: a tenth of the run.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the history has no steps.
    """
    if not len(history):
        raise ValueError("the history has no steps to plot")
    ax = _axes(6.4, 3.6) if ax is None else ax
    steps = history["step"]
    window = max(1, len(steps) // 10) if window is None else window
    curves = [(name, colour, history[field]) for field, name, colour in _LOSSES if field in history[0]]
    curves = [curve for curve in curves if np.any(curve[2] != 0)] or curves[:1]
    if len(curves) == 2:  # one part alone is the total
        curves = curves[1:]
    ends = []
    for name, colour, values in curves:
        smooth = _smooth(values, window)
        alone = "o" if len(steps) == 1 else None
        if window > 1:
            ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8, label="_steps")
        ax.plot(steps, smooth, color=colour, linewidth=1.8, label=name, marker=alone)
        ends.append(float(smooth[-1]))
    _sober(ax)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
    ax.set_ylim(bottom=0)
    gap = 0.065 * (ax.get_ylim()[1] - ax.get_ylim()[0])
    for (name, colour, _), y, value in zip(curves, _spread(ends, gap), ends, strict=True):
        ax.annotate(
            f"{name} {value:.2f}",
            (steps[-1], y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )
    return ax


# -- few-shot results -------------------------------------------------------------------------------------------------


def _row(result: Any) -> dict[str, Any]:
    row: dict[str, Any] = result.to_dict() if hasattr(result, "to_dict") else dict(result)
    return row


def pair_rows(before: Iterable[Any], after: Iterable[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of the same setting, in the first list's order."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in ("inputs", "way", "shot", "similarity", "nota_rate"))

    later = {key(row): row for row in map(_row, after)}
    pairs = [(row, later.pop(key(row), None)) for row in map(_row, before)]
    if later or any(second is None for _, second in pairs):
        raise ValueError("before and after must hold rows of the same inputs, way, shot, similarity and nota_rate")
    return [(first, second) for first, second in pairs if second is not None]


def plot_fewshot(before: Iterable[Any], after: Iterable[Any], ax: Axes | None = None) -> Axes:
    """Accuracy before and after, a pair of bars for each input setting, with 95 % intervals and the chance level.

    Args:
        before, after: ``FewShotResult`` objects, or rows as ``to_dict`` gives them, of the same settings.
        ax: where to draw; None makes a figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the two lists are empty or of different settings.
    """
    pairs = pair_rows(before, after)
    if not pairs:
        raise ValueError("there are no few-shot results to plot")
    ax = _axes(max(4.8, 1.6 * len(pairs)), 3.6) if ax is None else ax
    shapes = {(first["way"], first["shot"]) for first, _ in pairs}
    width = 0.36
    for side, colour, name in ((0, _BEFORE, "before"), (1, _AFTER, "after")):
        values = [pair[side]["accuracy"] for pair in pairs]
        spreads = [pair[side].get("ci95") or 0.0 for pair in pairs]
        places = np.arange(len(pairs)) + (side - 0.5) * (width + 0.03)
        ax.bar(places, values, width, yerr=spreads, color=colour, label=name, error_kw={"ecolor": _INK, "capsize": 3})
        for x, value, spread in zip(places, values, spreads, strict=True):
            text = f"{value:.3f}"
            place = (x, value + spread)
            ax.annotate(text, place, (0, 3), textcoords="offset points", ha="center", fontsize=9, color=_INK)
    ways = {way for way, _ in shapes}
    for i, (first, _) in enumerate(pairs):
        ax.hlines(1 / first["way"], i - 0.46, i + 0.46, colors=_INK, linestyles=(0, (2, 2)), linewidth=1)
    chance = 1 / pairs[-1][0]["way"]
    label = f"chance {chance:.2f}" if len(ways) == 1 else "chance"
    ax.annotate(
        label,
        (len(pairs) - 0.53, chance),
        (3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        backgroundcolor="white",
    )
    _sober(ax)
    many = len(shapes) > 1
    names = [f"{a['inputs']}\n{a['way']}-way {a['shot']}-shot" if many else a["inputs"] for a, _ in pairs]
    ax.set_xticks(range(len(pairs)), names)
    ax.tick_params(axis="x", length=0)
    way, shot = next(iter(shapes))
    ax.set_ylabel("accuracy" if many else f"{way}-way {shot}-shot accuracy")
    ax.set_xlim(-0.6, len(pairs) - 0.1)
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.45, 1.14), fontsize=9)
    return ax


# -- ablations --------------------------------------------------------------------------------------------------------


def plot_ablation(summary: Sequence[dict[str, Any]], ax: Any = None, *, columns: int | None = None) -> Any:
    """Bars of means with 95 % intervals, grouped by input setting, a colour a model; a panel a data set and setting.

    Args:
        summary: of an ``Ablation``; items may have a figure "published", which is shown as a mark.
        ax: Axes, one for each panel; None makes a figure.
        columns: panels a row of that figure; None: a row a data set, a column a setting.

    Returns:
        The Axes, an array of them where there are several panels.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing to plot, or ``ax`` is not as many Axes as panels.
    """
    if not summary:
        raise ValueError("there are no runs to plot")
    places = list(dict.fromkeys((item["data"], item["setting"]) for item in summary))
    models = list(dict.fromkeys(item["model"] for item in summary))
    if ax is None:
        axes = _ablation_axes(places, summary, len(models), columns)
    else:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != len(places):
        raise ValueError(f"ax holds {len(axes)} Axes; expected {len(places)}, one for each data set and setting")
    for panel, place in zip(axes, places, strict=True):
        _ablation_panel(panel, [item for item in summary if (item["data"], item["setting"]) == place], models)
    if ax is None:
        _legend_below(axes)
    elif len(models) > 1:
        axes[0].legend(frameon=False, fontsize=9)
    return axes[0] if len(axes) == 1 else axes


def _ablation_axes(
    places: list[tuple[str, str]], summary: Sequence[dict[str, Any]], models: int, columns: int | None
) -> Any:
    """A figure's Axes for the panels, in their order; a row for each data set, or for so many panels."""
    if columns is None:
        rows = [sum(data == row for data, _ in places) for row in dict.fromkeys(data for data, _ in places)]
    else:
        rows = [min(columns, len(places) - first) for first in range(0, len(places), columns)]
    groups = len({item["inputs"] for item in summary})
    size = max(3.2, 0.36 * groups * (models + 1) + 1.0) * max(rows), 3.0 * len(rows) + 0.5
    figure = _pyplot().figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), max(rows), squeeze=False)
    chosen = []
    for panels, filled in zip(grid, rows, strict=True):
        chosen += list(panels[:filled])
        for empty in panels[filled:]:
            empty.remove()
    return np.array(chosen, dtype=object)


def _ablation_panel(ax: Any, items: list[dict[str, Any]], models: list[str]) -> None:
    inputs = list(dict.fromkeys(item["inputs"] for item in items))
    width = 0.84 / len(models)
    marks: list[tuple[float, float]] = []
    for number, model in enumerate(models):
        own = [item for item in items if item["model"] == model]
        places = [inputs.index(item["inputs"]) + (number - (len(models) - 1) / 2) * width for item in own]
        means = [item["mean"] for item in own]
        spreads = [item["ci95"] if item["ci95"] is not None else 0.0 for item in own]
        colour = COLOURS[number % len(COLOURS)]
        ax.bar(places, means, width * 0.92, color=colour, label=model)
        if any(spreads):
            ax.errorbar(places, means, spreads, fmt="none", ecolor=_INK, capsize=3, linewidth=1)
        published = [item.get("published") for item in own]
        marks += [(x, y) for x, y in zip(places, published, strict=True) if y is not None]
        for x, mean, spread, mark in zip(places, means, spreads, published, strict=True):
            _number(ax, x, mean, spread, mark)
    if marks:
        ax.plot(*zip(*marks, strict=True), "D", color=_INK, markerfacecolor="white", markersize=5, label=_PUBLISHED)
    _sober(ax)
    ax.set_xticks(range(len(inputs)), inputs)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(0, 1.08)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_ylabel(items[0]["metric"].replace("_", " "))
    ax.set_title(f"{items[0]['data']}, {items[0]['setting']}", fontsize=10, loc="left", color=_INK)


def _number(ax: Any, x: float, mean: float, spread: float, mark: float | None) -> None:
    """A bar's figure: above its interval, in the bar where a mark is in the way, beside it at the panel's end."""
    top, place = mean + spread, {"ha": "center", "va": "baseline", "color": _INK}
    at, shift = (x, top), (0, 3)
    if mark is not None and top - 0.03 < mark < top + 0.09:
        if mean - spread > 0.1:
            at, shift = (x, mean - spread), (0, -3)
            place |= {"va": "top", "color": "white"}
        else:  # no room in the bar
            at, shift = (x, mark), (0, 6)
    elif top > 1.03:
        at, shift = (x, 1.0), (2, 0)
        place["ha"] = "left"
    ax.annotate(f"{mean:.2f}", at, shift, textcoords="offset points", fontsize=7, **place)


def plot_gains(relations: Sequence[Any], names: tuple[str, str], ax: Axes | None = None) -> Axes:
    """Accuracy on each relation with either of two representations, and with both; in the order given, from the top.

    Args:
        relations: of a ``relpt.analysis.Complementarity``.
        names: of the two.
        ax: where to draw; None makes a figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = np.arange(len(relations))
    ax = _axes(6.0, min(1.2 + 0.24 * len(rows), 16.0)) if ax is None else ax
    table = np.array([[row.a, row.b, row.both] for row in relations]).reshape(-1, 3)
    ax.hlines(rows, table.min(axis=1), table.max(axis=1), color=_PALE, linewidth=2, zorder=1)
    for values, name, colour, marker in zip(table.T, (*names, "both"), COLOURS, _MARKERS, strict=False):
        ax.scatter(values, rows, 26, color=colour, marker=marker, label=name)
    _sober(ax, "x")
    ax.set_yticks(rows, [str(row.relation) for row in relations])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("accuracy by nearest prototype")
    ax.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


# -- classes ----------------------------------------------------------------------------------------------------------


def plot_confusion(matrix: Any, ax: Axes | None = None) -> Axes:
    """A confusion matrix: a row for each gold relation, shaded by the share of it that each prediction has.

    Args:
        matrix: a ``relpt.metrics.ConfusionMatrix``.
        ax: where to draw; None makes a figure. Counts are written into the cells of up to 25 relations.

    Raises:
        ImportError: matplotlib is not installed.
    """
    labels, counts = list(matrix.labels), np.asarray(matrix.counts)
    n = len(labels)
    if ax is None:
        side = min(2.6 + 0.34 * n, 16.0)
        ax = _axes(side + 1.0, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for row, column in zip(*np.nonzero(counts), strict=True) if n <= 25 else ():
        ink = "white" if shares[row, column] > 0.6 else _INK
        ax.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=7, color=ink)
    size = 9 if n <= 25 else 6
    ax.set_xticks(range(n), labels, rotation=90, fontsize=size)
    ax.set_yticks(range(n), labels, fontsize=size)
    ax.set_xlabel("predicted")
    ax.set_ylabel("gold")
    return ax


def plot_bags(curves: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Precision over recall of ranked facts, a line for each ``relpt.metrics.BagCurve``.

    Args:
        curves: the curves by their names, such as {"attention": a.curve, "one": b.curve} of two ``BagScore``.
        ax: where to draw; None makes a figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes(5.2, 3.8) if ax is None else ax
    for (name, curve), colour in zip(curves.items(), itertools.cycle(COLOURS)):
        recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
        ax.plot(recall, precision, color=colour, linewidth=1.6, label=name)
    _sober(ax, "both")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    ax.legend(frameon=False, fontsize=9)
    return ax


# -- relation vectors -------------------------------------------------------------------------------------------------


def pca(vectors: np.ndarray, n: int = 2, *, normalize: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Principal components by singular value decomposition.

    Args:
        vectors: (rows, dim).
        n: components.
        normalize: divide each vector by its length first, as the cosine does.

    Returns:
        float64 (rows, n), and the n shares of the variance. The sign is such that each component's entry of the
        largest size is positive, so that the same vectors give the same map anywhere.

    Raises:
        ValueError: not a finite matrix of at least 2 rows and n columns.
    """
    x = np.asarray(vectors, np.float64)
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < n or not np.isfinite(x).all():
        raise ValueError(f"vectors have shape {x.shape}; expected finite numbers, 2 rows or more, {n} columns or more")
    if normalize:
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    x = x - x.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    kept = min(n, len(s))
    signs = np.sign(vt[np.arange(kept), np.abs(vt[:kept]).argmax(axis=1)])
    points = np.zeros((len(x), n))
    points[:, :kept] = u[:, :kept] * s[:kept] * np.where(signs == 0, 1, signs)
    shares = np.zeros(n)
    shares[:kept] = s[:kept] ** 2 / max(float((s**2).sum()), 1e-300)
    return points, shares


def plot_map(
    vectors_before: np.ndarray, vectors_after: np.ndarray, labels: Sequence[Any], ax: Sequence[Axes] | None = None
) -> Any:
    """Relation vectors before and after in two panels, a point a sentence, a colour and shape a relation.

    Each panel shows the first two principal components of its own vectors, scaled to length 1.

    Args:
        vectors_before, vectors_after: (n, dim), as ``Encoder.encode`` gives them.
        labels: n relations.
        ax: two Axes; None makes a figure.

    Returns:
        The two Axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the lengths differ, or ``ax`` is not two Axes.
    """
    labels = [str(label) for label in labels]
    if not len(vectors_before) == len(vectors_after) == len(labels):
        raise ValueError(
            f"got {len(vectors_before)} vectors before, {len(vectors_after)} after and {len(labels)} labels; "
            "expected as many of each"
        )
    names = sorted(set(labels))
    axes = _axes(9.6, 4.8, 2) if ax is None else ax
    if np.size(axes) != 2:  # type: ignore[arg-type]
        raise ValueError(f"ax holds {np.size(axes)} Axes; expected two, for before and after")  # type: ignore[arg-type]
    rows = {name: [i for i, label in enumerate(labels) if label == name] for name in names}
    for panel, vectors, title in zip(axes, (vectors_before, vectors_after), ("before", "after"), strict=True):
        points, shares = pca(vectors)
        for number, name in enumerate(names):
            panel.scatter(
                points[rows[name], 0],
                points[rows[name], 1],
                s=20,
                color=COLOURS[number % len(COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                alpha=0.75,
                linewidths=0,
                label=name,
            )
        _sober(panel, None)
        panel.set_title(title, fontsize=11, loc="left", color=_INK)
        panel.set_xlabel(f"first component ({shares[0]:.0%} of the variance)", fontsize=9)
        panel.set_ylabel(f"second component ({shares[1]:.0%})", fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_aspect("equal", adjustable="datalim")
    _legend_below(axes)
    return axes


def _legend_below(panels: Sequence[Any]) -> None:
    """One legend for the panels' figure, below them, in as many columns as its width holds."""
    found: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        for label, handle in zip(labels, handles, strict=True):
            found.setdefault(label, handle)
    if _PUBLISHED in found:  # behind the bars' labels
        found[_PUBLISHED] = found.pop(_PUBLISHED)
    figure, longest = panels[0].figure, max(map(len, found))
    columns = max(1, min(len(found), int(figure.get_figwidth() * 12 / (longest + 5))))
    columns = math.ceil(len(found) / math.ceil(len(found) / columns))
    inside = figure.get_layout_engine() is not None
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center" if inside else "upper center",
        bbox_to_anchor=None if inside else (0.5, 0.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
        markerscale=1.4,
        handletextpad=0.2,
        columnspacing=1.2,
    )
