"""The report of a reproduction: the papers' figures and ours side by side, with what was done otherwise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from relpt.files import write_file, write_into, write_json
from relpt.intervals import with_interval
from relpt.report.html import figure_png
from relpt.report.page import Block, Bullets, Figure, Grid, Heading, Text, html_blocks, html_page, markdown_page, plain
from relpt.runlog import counted

__all__ = ["blocks_of", "lead_of", "title_of", "write_reproduction"]

_NONE = "–"
_COLUMNS = 6  # of figures in a table
_VERDICTS = ("confirmed", "open", "denied", "not run")
_SPREADS = {"mean": "± 95 %", "median": "range"}


def write_reproduction(result: Any) -> None:
    """Writes report.md, report.html, result.json and the figures into the reproduction's folder, all or none."""
    title, lead, blocks = title_of(result), lead_of(result), blocks_of(result)
    with write_into(result.output) as new:
        for block in blocks:
            if isinstance(block, Figure):
                _write(new / block.name, block.png)
        _write(new / "report.md", markdown_page(title, lead, blocks).encode())
        _write(new / "report.html", html_page(title, lead, html_blocks(blocks)).encode())
        write_json(new / "result.json", result.to_dict())


def _write(path: Any, data: bytes) -> None:
    write_file(path, lambda file: file.write(data))


def title_of(result: Any) -> str:
    """The table, and the scale."""
    scale = {"small": "at a scale for two cores", "full": "at full scale"}[result.kit.scale]
    return f"{result.kit.table}, {scale}"


def lead_of(result: Any) -> str:
    """What the table is about, and what came out."""
    verdicts = Counter(item.verdict for item in result.findings)
    told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    runs = sum(len(ablation.rows) for ablation in result.ablations.values())
    parts = [result.kit.about, f"Source: {result.kit.paper}."]
    parts += [f"{counted(runs, 'run')}."] if runs else []
    parts += [f"The paper's judgements, at each place of the tables: {told}."] if told else []
    return " ".join(parts)


def blocks_of(result: Any, figures: bool = True) -> list[Block]:
    """The page, without its title."""
    blocks: list[Block] = []
    for name, ablation in result.ablations.items():
        blocks += _tables(result, name, ablation, figures)
    blocks += _counts(result) + _pairs(result) + _complementarities(result) + _findings(result)
    blocks += _differences(result)
    blocks += _training(result) + _data(result)
    return [*blocks, Heading("Versions and machine"), Bullets([f"{k} {v}" for k, v in result.versions.items() if v])]


# -- tables -----------------------------------------------------------------------------------------------------------


def _tables(result: Any, name: str, ablation: Any, figures: bool) -> list[Block]:
    """Tables for each data set, in the paper's form, models by settings and inputs, and its figure."""
    run = result.kit.evaluate[name]
    blocks: list[Block] = []
    for data in dict.fromkeys(row["data"] for row in ablation.rows):
        items = [item for item in ablation.summary() if item["data"] == data]
        stands_for = result.kit.data[data].stands_for
        seeds = f"{run.statistic} of {len(run.seeds)} seeds" if len(run.seeds) > 1 else f"seed {run.seeds[0]}"
        about = f"{items[0]['metric'].replace('_', ' ').replace('f1', 'F1')}, {seeds}"
        if stands_for is not None:
            printed = any(block.data == stands_for for block in result.kit.published)
            about += f"; {data} stands for {stands_for}{', whose figures are the published ones' if printed else ''}"
        blocks += [Heading(f"{data}, {run.protocol}"), Text(f"{about[0].upper()}{about[1:]}.")]
        blocks += [_table(result, data, items, run.statistic, places) for places in _chunks(items)]
        blocks += _figure(result, name, data) if figures else []
    return blocks


def _chunks(items: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    """The columns, settings by inputs, in tables that fit a page; a setting's columns stay together."""
    settings, inputs = (list(dict.fromkeys(item[name] for item in items)) for name in ("setting", "inputs"))
    at_once = max(1, _COLUMNS // len(inputs))
    starts = range(0, len(settings), at_once)
    return [[(one, name) for one in settings[start : start + at_once] for name in inputs] for start in starts]


def _table(result: Any, data: str, items: list[dict[str, Any]], statistic: str, places: list[tuple[str, str]]) -> Grid:
    one = len({item["setting"] for item in items}) == 1
    head = ["", ""] + [inputs if one else f"{setting}\n{inputs}" for setting, inputs in places]
    name = result.kit.data[data].stands_for or data
    printed = [model for block in result.kit.published if block.data == name for model in block.figures]
    lines = []
    for model in dict.fromkeys([*(item["model"] for item in items), *printed]):
        own = {(item["setting"], item["inputs"]): item for item in items if item["model"] == model}
        theirs = [result.published(data, *place, model) for place in places]
        if any(figure is not None for figure in theirs):
            lines.append([model, "published", *(_NONE if figure is None else f"{figure:.3f}" for figure in theirs)])
        if own:
            first = "" if lines and lines[-1][0] == model else model
            lines.append([first, "here", *(_ours(own.get(place), statistic) for place in places)])
        if any(item["seeds"] > 1 for item in own.values()):
            lines.append(["", _SPREADS[statistic], *(_spread(own.get(place), statistic) for place in places)])
    return Grid(head, lines, names=2, quiet=tuple(_SPREADS.values()))


def _ours(item: dict[str, Any] | None, statistic: str) -> str:
    return _NONE if item is None else f"{item[statistic]:.3f}"


def _spread(item: dict[str, Any] | None, statistic: str) -> str:
    if item is None:
        return _NONE
    return f"{item['ci95']:.3f}" if statistic == "mean" else f"{item['low']:.3f}–{item['high']:.3f}"


def _figure(result: Any, name: str, data: str) -> list[Block]:
    """Our bars with the published figures as marks; none without matplotlib."""
    from relpt.report.plots import plot_ablation

    items = [item for item in result.summary() if (item["evaluation"], item["data"]) == (name, data)]
    try:
        axes = plot_ablation(items, columns=1 if len({item["inputs"] for item in items}) > 4 else 2)
    except ImportError:
        return []
    spread = "means over the seeds with their 95 % intervals" if items[0]["seeds"] > 1 else "figures of one seed"
    marks = "; the marks are the published figures." if any(item["published"] for item in items) else "."
    png = figure_png(axes if hasattr(axes, "figure") else axes[0])
    return [Figure(f"{_file_name(name)}-{_file_name(data)}.png", png, f"{data}: {spread}{marks}")]


def _file_name(name: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "-", name).strip("-")


def _counts(result: Any) -> list[Block]:
    blocks: list[Block] = []
    for name, counts in result.counts.items():
        asked = result.kit.statistics[name]
        lines = []
        for data in asked.data:
            theirs = asked.published.get(result.kit.data[data].stands_for or data)
            lines += [[data, "published", *map(_count, theirs)]] if theirs else []
            first = "" if theirs else data
            lines += [[first, "here", *map(_count, counts[data])]] if data in counts else [[first, "here", "not run"]]
        width = 2 + len(asked.show)
        lines = [[*line, *[""] * (width - len(line))] for line in lines]
        blocks += [Heading(f"Counts: {name}"), Grid(["", "", *asked.show], lines, names=2)]
    return blocks


def _count(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or _NONE
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"


def _pairs(result: Any) -> list[Block]:
    blocks: list[Block] = []
    for pair in result.pairs.values():
        a, b = pair.asked.a, pair.asked.b
        told = {
            "shared right": f"of {a}'s right predictions are {b}'s too",
            "shared wrong": f"of {a}'s wrong predictions are {b}'s too, with the same relation",
            "only_a": f"of the sentences are right with {a} alone",
            "only_b": f"of the sentences are right with {b} alone",
        }
        lines = [[text, _share(pair.asked.published.get(key)), _share(pair.figures[key])] for key, text in told.items()]
        blocks += [
            Heading(f"{a} and {b}: {pair.asked.model} on {pair.asked.data}"),
            Grid(["", "published", "here"], lines),
        ]
        if pair.cases.rows:
            head = ["sentence", "head", "tail", "gold", a, b]
            cells = [[row[key] for key in ("text", "head", "tail", "gold", a, b)] for row in pair.cases.rows]
            text = (
                f"{pair.cases.differing:,} of {pair.cases.sentences:,} sentences have different predictions; the first:"
            )
            blocks += [Text(text), Grid(head, cells, names=len(head))]
    return blocks


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _complementarities(result: Any) -> list[Block]:
    blocks: list[Block] = []
    for name, both in result.complementarities.items():
        cells = [with_interval(part.accuracy, part.ci95, 3) for part in (both.a, both.b, both.both)]
        few = f"{both.a.way}-way {both.a.shot}-shot, {both.a.inputs}"
        blocks += [
            Heading(f"Do they add to each other? {name}"),
            Grid(["accuracy", *both.names, "both", "CKA"], [[few, *cells, f"{both.cka:.3f}"]]),
            Text("The relations that gain the most from both, by the nearest prototype of all relations:"),
            Grid(
                ["relation", *both.names, "both", "gain", "sentences"],
                [
                    [str(row.relation), *(f"{x:.3f}" for x in row[1:4]), f"{row.gain:+.3f}", f"{row.support:,}"]
                    for row in both.relations[:10]
                ],
            ),
        ]
    return blocks


def _findings(result: Any) -> list[Block]:
    if not result.findings:
        return []
    text = (
        "A judgement is confirmed, or denied, at a place of the tables where the 95 % interval of the difference over "
        "the seeds leaves out 0 (with one seed: where the sign test over sentences gives p < 0.05); else it is open. "
        "Some of many such tests are wrong by chance."
    )
    counts = Counter((item.says, item.verdict) for item in result.findings)
    verdicts = [verdict for verdict in _VERDICTS if any(item.verdict == verdict for item in result.findings)]
    says = dict.fromkeys(item.says for item in result.findings)
    totals = [[claim, *(str(counts[claim, verdict]) for verdict in verdicts)] for claim in says]
    head = ["the paper", "where", "verdict", "difference"]
    return [
        Heading("What the paper found"),
        Text(text),
        Grid(["the paper", *verdicts], totals),
        Text("At each place:"),
        Grid(head, [_finding(item) for item in result.findings], names=3),
    ]


def _finding(item: Any) -> list[str]:
    if item.found is None:
        return [item.says, _NONE, item.verdict, _NONE]
    one = item.found
    where = ", ".join(part for part in (one.data, one.setting, one.model, one.inputs) if part)
    half = f" ± {one.ci95:.3f}" if one.ci95 is not None else f" ({_p_value(one.p_sentences)})"
    return [item.says, where, item.verdict, f"{one.difference:+.3f}{half}"]


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


# -- what was done ----------------------------------------------------------------------------------------------------


def _differences(result: Any) -> list[Block]:
    blocks: list[Block] = [Heading("Scale and differences")]
    blocks += [Bullets(result.kit.differences)] if result.kit.differences else []
    if result.left_out:
        blocks += [Text("Left out:"), Bullets(result.left_out)]
    if result.kit.changes:
        lines = [[key, plain(full), plain(here)] for key, full, here in result.kit.changes]
        blocks.append(Grid(["setting of the kit", "full scale", "here"], lines, names=3))
    return blocks if len(blocks) > 1 else [*blocks, Text("None that the kit knows of.")]


def _training(result: Any) -> list[Block]:
    if not result.trained:
        return []
    lines = [
        [name, f"{one['objectives']} on {one['data']}", f"{one['sentences']:,}", f"{one['steps']:,}",
         f"{one['loss_first']:.3f} → {one['loss_last']:.3f}"]
        for name, one in result.trained.items()
    ]  # fmt: skip
    return [Heading("Training of the models"), Grid(["model", "by", "sentences", "steps", "loss"], lines, names=2)]


def _data(result: Any) -> list[Block]:
    read: dict[str, list[str]] = {}
    for place, count in result.sentences.items():
        name, _, split = place.rpartition(", ")
        read.setdefault(name, []).append(f"{split} {count:,}")
    lines = [[name, ", ".join(counts), *_source(result.kit.data[name])] for name, counts in read.items()]
    return [Heading("Data"), Grid(["data set", "sentences read", "what", "from"], lines, names=4)]


def _source(data: Any) -> Iterable[str]:
    return data.what, data.origin
