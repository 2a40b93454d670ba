"""THE table of the formats that ``relpt.load`` reads: how each is told from others, how its records become common ones.

A common record has ``text`` or ``token``/``tokens``, ``h``, ``t``, ``relation`` (``records.build_instance``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relpt.data.coref import chain_pairs, is_coref
from relpt.data.distant import NYT_LINE, edges_of, is_nyt, is_wiki, nyt_records, parse_nyt, parse_wiki
from relpt.data.marked import (
    SEMEVAL_LINE,
    is_chemprot,
    is_semeval,
    parse_chemprot,
    parse_semeval,
    semeval_records,
)
from relpt.data.tacred import is_tacred, parse_tacred
from relpt.data.values import Problem

__all__ = ["FORMATS", "Format", "sniff_line", "sniff_record"]

Record = dict[str, Any]
Lines = Iterable[tuple[int, str | Problem]]  # (number from 1, the line or what kept it from being read)


@dataclass(frozen=True, slots=True)
class Format:
    """What sets a format apart from the common record; a format without an entry here is one.

    Attributes:
        fits: whether a record is of this format.
        parse: the common record of one record; notes in the tally what it changed; raises Problem.
        unit: what its positions count, where the format says it.
        fields: the format's own names of a common record's fields, for messages; "#" is the instance's number in its
            record.
        line: what the first line of a file in the format's own text looks like, where it has one beside JSON.
        read: (line, record or Problem) of such a file's lines, those that are not blank.
        split: what ``parse`` takes of a record that holds several instances, one for each.
    """

    fits: Callable[[Record], bool] = lambda record: False
    parse: Callable[[Record, Counter[str]], Record] = lambda record, tally: record
    unit: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    line: re.Pattern[str] | None = None
    read: Callable[[Lines], Iterable[tuple[int, Any]]] | None = None
    split: Callable[[Record, Counter[str]], list[Record]] | None = None


FORMATS: Final[Mapping[str, Format]] = {
    "fewrel": Format(),
    "fewrel-unsupervised": Format(),
    "opennre": Format(),
    "chemprot": Format(is_chemprot, parse_chemprot, "char"),
    "tacred": Format(
        is_tacred,
        parse_tacred,
        "token",
        {"h.pos": "subj_start", "t.pos": "obj_start", "h.type": "subj_type", "t.type": "obj_type", "t": "obj_start"}
        | {"pos": "stanford_pos", "ner": "stanford_ner"},
    ),
    "semeval": Format(is_semeval, parse_semeval, "char", line=SEMEVAL_LINE, read=semeval_records),
    "nyt-fb": Format(
        is_nyt,
        parse_nyt,
        "char",
        {"h.id": "head.id", "t.id": "tail.id", "h.type": "head.type", "t.type": "tail.type"},
        NYT_LINE,
        nyt_records,
    ),
    "wiki-wd": Format(
        is_wiki,
        parse_wiki,
        "token",
        {"edge": "edgeSet[#]", "relation": "edgeSet[#].kbID"}
        | dict.fromkeys(("h.pos", "left"), "edgeSet[#].left")
        | dict.fromkeys(("t.pos", "t", "right"), "edgeSet[#].right"),
        split=edges_of,
    ),
    "coref": Format(is_coref, unit="token", fields={"h": "coref", "t": "coref"}, split=chain_pairs),
}


def sniff_record(record: Any) -> str:
    """The format of a single record, "opennre" where it fits no other."""
    if isinstance(record, dict):
        return next((name for name, form in FORMATS.items() if form.fits(record)), "opennre")
    return "opennre"


def sniff_line(line: str) -> str | None:
    """The format whose own text a file with this first line is in, None for JSON and unknown text."""
    return next((name for name, form in FORMATS.items() if form.line and form.line.match(line)), None)
