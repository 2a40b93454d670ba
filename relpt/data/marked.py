"""Formats that mark the entities in the text: ChemProt's JSON Lines, SemEval's and KBP37's text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from relpt.data.instance import Span
from relpt.data.records import relation_of
from relpt.data.values import Problem, kind_of, show

__all__ = ["SEMEVAL_LINE", "is_chemprot", "is_semeval", "parse_chemprot", "parse_semeval", "semeval_records"]

Marks = tuple[tuple[re.Pattern[str], str, str], ...]  # what to look for, whose mention it is, how it is written
_CHEMPROT: Marks = (
    (re.compile(r"<< (.*?) >>", re.S), "h", "<< >>"),
    (re.compile(r"\[\[ (.*?) \]\]", re.S), "t", "[[ ]]"),
)
_SEMEVAL: Marks = tuple(
    (re.compile(rf"<{name}>\s*(.*?)\s*</{name}>", re.S), key, f"<{name}> </{name}>")
    for name, key in (("e1", "h"), ("e2", "t"))
)
_BLANK_INSIDE = (re.compile(r"(?<=\S)(<e[12]>)\s+"), r" \1"), (re.compile(r"\s+(</e[12]>)(?=\S)"), r"\1 ")
_NUMBERED = re.compile(r"\s*(\d+)\s*\t\s*(.*\S)\s*")  # 8001<tab>"… <e1>…</e1> … <e2>…</e2> …"
SEMEVAL_LINE = re.compile(r"\s*\d+\s*\t.*<e[12]>")


def is_chemprot(record: dict[str, Any]) -> bool:
    """Whether the record's text holds ChemProt's marks."""
    text = record.get("text")
    return isinstance(text, str) and "h" not in record and "<< " in text and "[[ " in text


def parse_chemprot(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """``<< head >>`` and ``[[ tail ]]`` in the text as character positions.

    Source: the ChemProt files of Beltagy et al. 2019 (SciBERT).
    """
    return {**_unmarked(record, "text", _CHEMPROT), "relation": relation_of(record), "id": record.get("id")}


def is_semeval(record: dict[str, Any]) -> bool:
    """Whether the record holds a sentence with SemEval's marks."""
    sentence = record.get("sentence")
    return isinstance(sentence, str) and "<e1>" in sentence


def parse_semeval(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """``<e1>head</e1>`` and ``<e2>tail</e2>`` in the sentence as character positions, the quotes around it removed.

    The head is e1 whatever the relation's direction, which its name says: Cause-Effect(e2,e1).
    Source: Hendrickx et al. 2010, "SemEval-2010 Task 8"; Zhang and Wang 2015 for KBP37.
    """
    sentence = record.get("sentence")
    if isinstance(sentence, str):
        sentence = sentence.strip()
        if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
            sentence = sentence[1:-1].strip()
        for pattern, outside in _BLANK_INSIDE:  # KBP37 writes "<e1> Ada </e1>": a blank that parts words stays
            sentence = pattern.sub(outside, sentence)
    common = _unmarked({"sentence": sentence}, "sentence", _SEMEVAL)
    return {**common, "relation": relation_of(record), "id": record.get("id")}


def semeval_records(lines: Iterable[tuple[int, str | Problem]]) -> Iterator[tuple[int, Any]]:
    """(line, record or Problem) of SemEval's text: a numbered sentence, its relation, a comment or nothing.

    A file of sentences alone, such as TEST_FILE.TXT, is unlabelled.
    """
    at = 0
    record: dict[str, Any] | Problem | None = None  # the last sentence's; a Problem takes the lines below it along
    for number, line in lines:
        numbered = None if isinstance(line, Problem) else _NUMBERED.fullmatch(line)
        if numbered is None:
            if isinstance(record, Problem) or (isinstance(line, str) and line.lstrip().startswith("Comment")):
                continue
            if record and "relation" not in record and isinstance(line, str) and len(line.split()) == 1:
                record["relation"] = line.strip()
                continue
        if record is not None:
            yield at, record
        at = number
        if numbered:
            record = {"id": numbered[1], "sentence": numbered[2]}
        else:
            record = line if isinstance(line, Problem) else _unexpected(line)
    if record is not None:
        yield at, record


def _unexpected(line: str) -> Problem:
    wanted = '8001<tab>"… <e1>…</e1> … <e2>…</e2> …", below it the relation in one word'
    return Problem("unexpected line", "", f"expected {wanted}, got {show(line.strip())}")


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
