"""Names of the input settings, similarities and representation parts, and their numbers in the core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

__all__ = [
    "INPUTS",
    "PARTS",
    "SIMILARITIES",
    "check_count",
    "choice",
    "input_name",
    "input_number",
    "part_width",
    "plain",
    "representation_parts",
]

INPUTS: Final = ("C+M", "C+T", "OnlyC", "OnlyM", "OnlyT")
_ALIASES: Final = {"CM": "C+M", "CT": "C+T", "OC": "OnlyC", "OM": "OnlyM", "OT": "OnlyT"}
SIMILARITIES: Final = ("dot", "cosine", "euclidean")
DTYPES: Final = ("float32", "bfloat16", "int8", "tf32")  # numbered as in the core
PARTS: Final = ("entity_start", "cls", "mean", "mask", "mention_mean")
_WIDE: Final = ("entity_start", "mention_mean")  # one vector for the head and one for the tail


def choice(value: object, choices: tuple[str, ...], name: str) -> int:
    """The position of ``value`` among ``choices``; ValueError names them."""
    if isinstance(value, str) and value in choices:
        return choices.index(value)
    raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def check_count(name: str, value: object, least: int = 1, *, optional: bool = False) -> None:
    """ValueError where an option is no whole number from ``least`` on, nor None where it is optional."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        also = ", or None" if optional else ""
        raise ValueError(f"{name} is {value!r}; expected a whole number from {least} on{also}")


def plain(value: Any) -> Any:
    """A copy with Python's own numbers, lists, tuples and dicts, all the way down, where NumPy's or others stood."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    return value


def input_name(inputs: object) -> str:
    """The full name of an input setting (Peng et al. 2020, section 2.2), from it or its two-letter form.

    Raises:
        ValueError: there is no such setting.
    """
    name = _ALIASES.get(inputs, inputs) if isinstance(inputs, str) else inputs
    if not isinstance(name, str) or name not in INPUTS:
        raise ValueError(f"inputs is {inputs!r}; expected one of {', '.join(INPUTS)} (or CM, CT, OC, OM, OT)")
    return name


def input_number(inputs: object) -> int:
    """The core's number of an input setting."""
    return INPUTS.index(input_name(inputs))


def representation_parts(representation: object, option: str = "representation") -> tuple[int, ...]:
    """The core's numbers of the parts of a representation such as "entity_start+mean".

    Raises:
        ValueError: a part is unknown or named twice.
    """
    if not isinstance(representation, str):
        raise ValueError(f"{option} is {representation!r}; expected text such as 'entity_start+mean'")
    names = representation.split("+")
    for name in names:
        if name not in PARTS:
            raise ValueError(
                f"{option} {representation!r}: {name!r} is unknown; expected {', '.join(PARTS)}, joined by '+'"
            )
    if len(set(names)) != len(names):
        raise ValueError(f"{option} {representation!r} names a part twice")
    return tuple(PARTS.index(name) for name in names)


def part_width(part: int) -> int:
    """Hidden states that a part of a representation, by the core's number, puts side by side."""
    return 2 if PARTS[part] in _WIDE else 1
