"""Options of CPTrainer given as text, as in ``--set option=value``."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints

__all__ = ["UsageError", "parse_settings"]


class UsageError(Exception):
    """Options that are unknown, of another type, or do not go together; the command line's exit code 2."""


_WORDS: Final = {"true": True, "false": False, "none": None}


def _literal(text: str) -> Any:
    """A Python literal; true, false and none in any case; else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an option's type."""
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        as_many = isinstance(value, (tuple, list)) and len(value) == len(kinds)
        return as_many and all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))
    if get_origin(hint) is Mapping:
        return isinstance(value, dict)
    if get_args(hint):
        return any(_fits(value, kind) for kind in get_args(hint))
    if hint is float or hint is int:
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint in (None, NoneType) else hint)


def _describe(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "none"}
    if get_origin(hint) is tuple:
        return f"{len(get_args(hint))} numbers such as 0.9,0.999"
    if hint in names:
        return names[hint]
    if get_origin(hint) is Mapping:
        return """a dict such as '{"C+M": 0.9, "OnlyM": 0.1}'"""
    return " or ".join(_describe(kind) for kind in get_args(hint)) or hint.__name__


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """The options of CPTrainer from ``option=value`` texts.

    Raises:
        UsageError: no such option (near misses are named), or a value of another type.
    """
    from relpt.trainer import CPOptions

    hints = get_type_hints(CPOptions)
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {setting}: expected option=value")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(hints)}"
            raise UsageError(f"--set {setting}: there is no option {name!r}; {hint}")
        value = _literal(text.strip())
        if not _fits(value, hints[name]):
            raise UsageError(f"--set {setting}: {name} is {value!r}, expected {_describe(hints[name])}")
        options[name] = tuple(value) if isinstance(value, list) else value
    return options
