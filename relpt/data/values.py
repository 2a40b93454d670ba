"""Values as users give them, of any type: what they can pass for, and the Problem with those that cannot."""

from __future__ import annotations

from typing import Any

__all__ = ["Problem", "encodable", "kind_of", "plain", "show", "string", "whole"]

_SHOWN = 48  # characters of user text in a message


class Problem(Exception):
    """Why a record is bad: ``kind`` for counting, ``field`` at fault, ``reason`` with what was got and the remedy."""

    def __init__(self, kind: str, field: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.field, self.reason = kind, field, reason


def show(value: object) -> str:
    """``repr`` on one line, cut to a length that a message bears."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def kind_of(value: object) -> str:
    """The kind of a value in JSON's words."""
    names = {
        "NoneType": "nothing",
        "dict": "an object",
        "list": "a list",
        "str": "a string",
        "int": "a whole number",
        "float": "a number",
        "bool": "true/false",
    }
    return names.get(type(value).__name__, type(value).__name__)


def plain(value: Any) -> Any:
    """Arrays as lists, missing values (None, NaN, pandas.NA) as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def string(value: Any, field: str, *, number: bool = False) -> str | None:
    """An optional string: None and "" are absent; whole numbers pass as text where ids are meant."""
    if type(value) is not str:
        value = plain(value)
        if value is None:
            return None
        if number and whole(value) is not None:
            return str(whole(value))
        if not isinstance(value, str):
            raise Problem("wrong type", field, f"expected a string, got {kind_of(value)} ({show(value)})")
    if not value:
        return None
    return encodable(value, field)


def encodable(text: str, field: str) -> str:
    """The text; Problem where it cannot be written as UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Problem(
                "bad character",
                field,
                f"holds half of a surrogate pair ({text[error.start]!a}) at "
                f"character {error.start}; write the character itself or the whole pair",
            ) from None
    return text


def whole(value: Any) -> int | None:
    """A position as int; None for what is no whole number (true and false among them)."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        return int(value) if isinstance(value, float) and value.is_integer() else None
