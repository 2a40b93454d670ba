"""Pages of text, tables and figures, written once and shown as Markdown or as HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from relpt.analysis import _markdown

__all__ = [
    "Block",
    "Bullets",
    "Figure",
    "Grid",
    "Heading",
    "Text",
    "html_blocks",
    "html_figure",
    "html_page",
    "markdown_page",
    "plain",
]


@dataclass(frozen=True)
class Heading:
    """A heading below the page's title."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        head, lines: cells as text; a line's end in a name of the head breaks it in HTML.
        names: columns from the left that hold names; the others hold figures and stand to the right.
        quiet: words in a line's second cell that show it pale, as ranges are.
    """

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    names: int = 1
    quiet: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture: the name of its file beside the Markdown page, and its bytes, which stand in the HTML page."""

    name: str
    png: bytes
    caption: str


Block = Heading | Text | Bullets | Grid | Figure


def markdown_page(title: str, lead: str, blocks: Iterable[Block]) -> str:
    """The page in Markdown."""
    return "\n\n".join([f"# {_markdown(title)}", _markdown(lead), *map(_as_markdown, blocks)]) + "\n"


def _as_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {_markdown(block.text)}"
    if isinstance(block, Text):
        return _markdown(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_markdown(item)}" for item in block.items)
    if isinstance(block, Figure):
        return f"![{_markdown(block.caption)}]({block.name})"
    rule = ["---"] * block.names + ["---:"] * (len(block.head) - block.names)
    lines = [[_markdown(cell) for cell in line] for line in (block.head, *block.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def html_page(title: str, lead: str, body: str) -> str:
    """A page that loads nothing from elsewhere, of text to be escaped and a body in HTML."""
    template = Template((Path(__file__).parent / "template.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), lead=html.escape(lead), body=body)


def html_blocks(blocks: Iterable[Block]) -> str:
    """The body of a page."""
    return "\n".join(map(_as_html, blocks))


def _as_html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Figure):
        return html_figure(block.png, block.caption, block.caption)
    head = "".join(_cell(block, "th", i, name) for i, name in enumerate(block.head))
    lines = "".join(_line(block, line) for line in block.lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _line(block: Grid, line: Sequence[str]) -> str:
    cells = "".join(_cell(block, "td", i, text) for i, text in enumerate(line))
    return f'<tr class="quiet">{cells}</tr>' if line[1:2] and line[1] in block.quiet else f"<tr>{cells}</tr>"


def _cell(block: Grid, tag: str, column: int, text: str) -> str:
    figures = block.names < len(block.head)  # names beside figures stay on a line, text may wrap
    kind = ' class="n"' if column >= block.names else ' class="name"' if figures else ""
    return f"<{tag}{kind}>{html.escape(text).replace(chr(10), '<br>')}</{tag}>"


def html_figure(png: bytes, caption: str, alt: str) -> str:
    """A picture with its caption, the bytes in the page."""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def plain(value: Any) -> str:
    """A value of an option as a person reads it."""
    if value is None or value == []:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return (
            "; ".join(map(plain, value))
            if any(isinstance(item, dict) for item in value)
            else ", ".join(map(plain, value))
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
