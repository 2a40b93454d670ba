"""Formats that mark the entities in the text: ChemProt's JSON Lines."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from relpt.data.instance import Span
from relpt.data.records import relation_of
from relpt.data.values import Problem, kind_of, show

__all__ = ["is_chemprot", "parse_chemprot"]

Marks = tuple[tuple[re.Pattern[str], str, str], ...]  # what to look for, whose mention it is, how it is written
_CHEMPROT: Marks = (
    (re.compile(r"<< (.*?) >>", re.S), "h", "<< >>"),
    (re.compile(r"\[\[ (.*?) \]\]", re.S), "t", "[[ ]]"),
)


def is_chemprot(record: dict[str, Any]) -> bool:
    """Whether the record's text holds ChemProt's marks."""
    text = record.get("text")
    return isinstance(text, str) and "h" not in record and "<< " in text and "[[ " in text


def parse_chemprot(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """``<< head >>`` and ``[[ tail ]]`` in the text as character positions.

    Source: the ChemProt files of Beltagy et al. 2019 (SciBERT).
    """
    return {**_unmarked(record, "text", _CHEMPROT), "relation": relation_of(record), "id": record.get("id")}


def _unmarked(record: dict[str, Any], field: str, marks: Marks) -> dict[str, Any]:
    """The text without its marks, and the character positions of what they enclosed."""
    text = record.get(field)
    written = " and ".join(mark for _, _, mark in marks)
    if not isinstance(text, str):
        kind = "wrong type" if text is not None else "missing field"
        raise Problem(kind, field, f"expected a string with {written}, got {kind_of(text)}")
    if not text or text.isspace():
        raise Problem("empty text", field, "the sentence is empty; remove the record")
    found = {key: _one(text, field, pattern, mark) for pattern, key, mark in marks}
    (a, b), (c, d) = sorted(match.span(1) for match in found.values())
    if c < b:
        raise Problem(
            "overlapping entities",
            field,
            f"the marked mentions {show(text[a:b])} and {show(text[c:d])} overlap; mark them apart",
        )
    cuts = sorted(cut for m in found.values() for cut in ((m.start(), m.start(1)), (m.end(1), m.end())))
    positions = {key: {"pos": [_shifted(i, cuts) for i in match.span(1)]} for key, match in found.items()}
    return {"text": _without(text, cuts), **positions}


def _one(text: str, field: str, pattern: re.Pattern[str], mark: str) -> re.Match[str]:
    found = list(pattern.finditer(text))
    if len(found) != 1:
        raise Problem("bad marks", field, f"has {len(found) or 'no'} mentions marked {mark}; mark exactly one")
    return found[0]


def _without(text: str, cuts: list[Span]) -> str:
    pieces, at = [], 0
    for start, end in cuts:
        pieces.append(text[at:start])
        at = end
    return "".join(pieces) + text[at:]


def _shifted(position: int, cuts: list[Span]) -> int:
    """Where a position of the text stands once the cuts are gone."""
    return position - sum(min(position, end) - start for start, end in cuts if start < position)
