"""Fields of a folder's JSON files, checked as they are read: FormatError says which file and which field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from relpt.errors import FormatError

__all__ = ["LARGEST", "check_names", "check_number", "check_whole", "refused_in"]

LARGEST: Final = 2**31 - 1  # of sizes and ids: the core's are int32
# Numbers that are no sizes: the least and the largest, and what they are called. NaN is in no range.
_RANGES: Final = {
    "layer_norm_eps": (math.ulp(0.0), 1.0, "a number above 0, at most 1"),
    "initializer_range": (0.0, 3e38, "a finite number from 0 on"),  # about float32's largest
    "hidden_dropout_prob": (0.0, math.nextafter(1, 0), "a number from 0 to below 1"),
    "attention_probs_dropout_prob": (0.0, math.nextafter(1, 0), "a number from 0 to below 1"),
}


def check_whole(path: Path, field: str, value: object, least: int = 1) -> int:
    """The value; FormatError where it is no whole number from ``least`` to LARGEST."""
    if type(value) is int and least <= value <= LARGEST:
        return value
    raise FormatError(f"{path}: {field} is {value!r}; expected a whole number from {least} to {LARGEST}")


def check_number(path: Path, field: str, value: object, name: str | None = None) -> None:
    """FormatError where the value is no size or other number of a network's configuration.

    Args:
        path: the file.
        field: what the file calls it.
        value: what the file says.
        name: BERT's name of the field, where the file's differs.
    """
    known = name or field
    if known not in _RANGES:
        check_whole(path, field, value, 0 if known == "pad_token_id" else 1)
        return
    least, most, expected = _RANGES[known]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise FormatError(f"{path}: {field} is {value!r}; expected {expected}")


def check_names(path: Path, field: str, value: object) -> list[str]:
    """The value; FormatError where it is no list of names, all different."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value):
        return value
    raise FormatError(f"{path}: {field} is no list of distinct names; the file is damaged")


@contextmanager
def refused_in(path: Path, field: str | None = None) -> Iterator[None]:
    """What is made inside the block is made of the file's fields alone, so that an error is the file's."""
    where = str(path) if field is None else f"{path}: {field}"
    try:
        yield
    except FormatError:
        raise  # names its file
    except KeyError as error:
        raise FormatError(f"{where}: there is no {error}; the file is damaged") from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise FormatError(f"{where}: {error}") from None
