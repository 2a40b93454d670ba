"""TACRED's JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from relpt.data.instance import Span
from relpt.data.records import joined
from relpt.data.values import Problem, kind_of, plain, show, whole

__all__ = ["is_tacred", "parse_tacred"]

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_BRACKETS |= {name.lower(): bracket for name, bracket in _BRACKETS.items()}


def is_tacred(record: dict[str, Any]) -> bool:
    """Whether the record gives a subject and an object as TACRED does."""
    return "subj_start" in record and "obj_start" in record


def parse_tacred(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """Subject and object, whose ends are inclusive, as head and tail; the treebank's names of brackets as brackets.

    Source: Zhang et al. 2017, "Position-aware Attention and Supervised Data Improve Slot Filling".
    """
    tokens = plain(record.get("token"))
    if tokens is None:
        raise Problem("missing field", "token", "missing; TACRED gives the sentence as a list of tokens")
    joined(tokens, "token")  # a list of strings, or a Problem
    written = [_BRACKETS.get(token, token) for token in tokens]
    if changed := sum(old is not new for old, new in zip(tokens, written, strict=True)):
        tally["brackets written as such (-LRB- and the like)"] += changed
    entities = {
        key: {"pos": _half_open(record, role, len(tokens)), "type": record.get(f"{role}_type")}
        for key, role in (("h", "subj"), ("t", "obj"))
    }
    tags = {name: record.get(f"stanford_{name}") for name in ("pos", "ner")}
    return {"id": record.get("id"), "token": written, "relation": record.get("relation"), **entities, **tags}


def _half_open(record: dict[str, Any], role: str, length: int) -> Span:
    first, last = (_position(record, f"{role}_{place}") for place in ("start", "end"))
    field = f"{role}_end"
    if last < first:
        raise Problem("span reversed", field, f"{last} is before {role}_start {first}; TACRED's ends are inclusive")
    if first < 0 or last >= length:
        place = f"tokens {first} to {last} are outside the sentence's {length}, which count from 0"
        inclusive = "; TACRED's ends are inclusive: write one less" if last == length else "; correct the positions"
        raise Problem("span outside", field, place + inclusive)
    return first, last + 1


def _position(record: dict[str, Any], field: str) -> int:
    value = record.get(field)
    position = whole(value)
    if position is None:
        kind = "missing field" if value is None else "wrong type"
        raise Problem(kind, field, f"expected a token's number, got {kind_of(value)} ({show(value)})")
    return position
