"""THE table of the formats that ``relpt.load`` reads: how each is told from others, how its records become common ones.

A common record has ``text`` or ``token``/``tokens``, ``h``, ``t``, ``relation`` (``records.build_instance``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relpt.data.marked import is_chemprot, parse_chemprot
from relpt.data.tacred import is_tacred, parse_tacred

__all__ = ["FORMATS", "Format", "sniff_record"]

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """What sets a format apart from the common record; a format without an entry here is one.

    Attributes:
        fits: whether a record is of this format.
        parse: the common record of one record; notes in the tally what it changed; raises Problem.
        unit: what its positions count, where the format says it.
        fields: the format's own names of a common record's fields, for messages.
    """

    fits: Callable[[Record], bool] = lambda record: False
    parse: Callable[[Record, Counter[str]], Record] = lambda record, tally: record
    unit: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


FORMATS: Final[Mapping[str, Format]] = {
    "fewrel": Format(),
    "fewrel-unsupervised": Format(),
    "opennre": Format(),
    "chemprot": Format(is_chemprot, parse_chemprot, "char"),
    "tacred": Format(
        is_tacred,
        parse_tacred,
        "token",
        {"h.pos": "subj_start", "t.pos": "obj_start", "h.type": "subj_type", "t.type": "obj_type", "t": "obj_start"},
    ),
}


def sniff_record(record: Any) -> str:
    """The format of a single record, "opennre" where it fits no other."""
    if isinstance(record, dict):
        return next((name for name, form in FORMATS.items() if form.fits(record)), "opennre")
    return "opennre"
