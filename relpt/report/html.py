"""A report as one HTML file that needs nothing else: the figures stand in it as base64."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from relpt.files import write_file, write_into
from relpt.intervals import with_interval
from relpt.report.page import html_figure, html_page
from relpt.report.plots import pair_rows

__all__ = ["figure_png", "write_report"]


def figure_png(figure_or_axes: Any, *, dpi: int = 160) -> bytes:
    """A matplotlib figure, or the figure of some Axes, as the bytes of a PNG on white."""
    figure = getattr(figure_or_axes, "figure", figure_or_axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white", bbox_inches="tight")
    return out.getvalue()


def _fewshot_table(before: Iterable[Any], after: Iterable[Any]) -> str:
    rows = []
    for a, b in pair_rows(before, after):
        change = b["accuracy"] - a["accuracy"]
        kind = "up" if change > 0 else "down"
        cells = "".join(f'<td class="n">{with_interval(r["accuracy"], r["ci95"], 3)}</td>' for r in (a, b))
        rows.append(
            f"<tr><td>{html.escape(a['inputs'])}</td>"
            f'<td class="n">{a["way"]}</td><td class="n">{a["shot"]}</td><td>{html.escape(a["similarity"])}</td>'
            f'<td class="n">{a["episodes"]:,}</td>{cells}<td class="n {kind}">{change:+.3f}</td></tr>'
        )
    head = (
        '<th>inputs</th><th class="n">way</th><th class="n">shot</th><th>similarity</th><th class="n">episodes</th>'
        '<th class="n">before</th><th class="n">after</th><th class="n">change</th>'
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return "none" if value is None else str(value)


def _table(rows: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(_value(value))}</td></tr>" for key, value in rows.items()
    )
    return f"<table><tbody>{cells}</tbody></table>"


def write_report(
    folder: str | Path,
    *,
    title: str,
    lead: str,
    before: Iterable[Any] = (),
    after: Iterable[Any] = (),
    figures: Mapping[str, tuple[bytes, str]] | None = None,
    examples: Iterable[Any] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    checkpoint: str | None = None,
    name: str = "report.html",
) -> Path:
    """Writes a self-contained report.html; it loads nothing from elsewhere.

    Args:
        folder: where to; made when it is not there.
        title, lead: the heading, and a sentence or two below it.
        before, after: few-shot rows of the same settings (see ``plot_fewshot``), shown as a table.
        figures: heading -> (PNG, caption).
        examples: some instances, shown with their entities marked.
        tables: heading -> rows of name and value.
        options: of the run, shown folded.
        checkpoint: path of the saved encoder relative to the report, for the lines that load it.
        name: the file's name.

    Returns:
        The report's path.

    Raises:
        OSError: the folder cannot be written; a report that is there stays.
    """
    before, after = list(before), list(after)
    parts = []
    if before:
        parts += ["<h2>Few-shot accuracy, before and after</h2>", _fewshot_table(before, after)]
    for heading, (png, caption) in (figures or {}).items():
        parts.append(f"<h2>{html.escape(heading)}</h2>{html_figure(png, caption, heading)}")
    shown = "".join(f"<li>{instance._repr_html_()}</li>" for instance in examples)
    if shown:
        parts.append(f'<h2>Some of the sentences</h2><ul class="sentences">{shown}</ul>')
    if checkpoint is not None:
        parts += ["<h2>Using the encoder</h2>", _usage(checkpoint)]
    for heading, rows in (tables or {}).items():
        parts.append(f"<h2>{html.escape(heading)}</h2>{_table(rows)}")
    if options:
        summary = f"<summary>All {len(options)} options of the run</summary>"
        parts.append(f"<h2>Options</h2><details>{summary}{_table(options)}</details>")
    text = html_page(title, lead, "\n".join(parts))
    folder = Path(folder)
    with write_into(folder) as new:
        write_file(new / name, lambda file: file.write(text.encode()))
    return folder / name


def _usage(checkpoint: str) -> str:
    python = (
        "import relpt\n"
        f'encoder = relpt.Encoder.from_pretrained("{checkpoint}")\n'
        "vectors = encoder.encode(relpt.load_sample('unseen'), inputs='C+M')   # float32 (n, encoder.dim)\n\n"
        "# the same files with Hugging Face's library\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        f'model = AutoModel.from_pretrained("{checkpoint}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{checkpoint}")'
    )
    shell = (
        f"relpt encode  --model {checkpoint} my-sentences.jsonl --inputs C+M -o vectors.npy\n"
        f"relpt fewshot --model {checkpoint} --data my-sentences.jsonl --inputs C+M,OnlyC,OnlyM"
    )
    code = "".join(f"<pre>{html.escape(text)}</pre>" for text in (python, shell))
    return f"<p>In this folder, from Python or the shell:</p>{code}"
