"""Triples of a knowledge graph, read by name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from relpt.data.files import file_bytes
from relpt.errors import FormatError

__all__ = ["Triple", "read_triples"]

Triple = tuple[str, str, str]  # head, relation, tail

_COLUMNS: Final = ("head", "relation", "tail")


def read_triples(source: Any) -> list[Triple]:
    """(head, relation, tail) names, in order.

    Args:
        source: a list of triples of names; the path of a file with a triple a line, three columns between tabs, no
            header, UTF-8, perhaps gzipped; a list of paths; a pandas DataFrame with the columns head, relation and
            tail, or with three columns in this order.

    Raises:
        FormatError: a line has not three names (file, line).
        ValueError: another record is no triple of names (its number), or columns are missing.
        TypeError: something else than these sources.
        OSError: a file cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(source)
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        return _checked(_rows_of_frame(source))
    if not isinstance(source, Iterable):
        raise TypeError(f"triples are a {type(source).__name__}; expected a path, a list of triples or a DataFrame")
    items = list(source)
    if items and all(isinstance(item, (str, os.PathLike)) for item in items):
        return [triple for path in items for triple in _read_file(path)]
    return _checked(items)


def _read_file(path: str | os.PathLike[str]) -> list[Triple]:
    label, triples = os.fspath(path), []
    for number, line in enumerate(file_bytes(path).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            names = line.rstrip(b"\r").decode().split("\t")
        except UnicodeDecodeError:
            raise FormatError(f"{label}:{number}: is no UTF-8; save the file as UTF-8") from None
        if len(names) != 3 or not all(names):
            raise FormatError(
                f"{label}:{number}: expected head, relation and tail between tabs, got {len(names)} columns "
                f"({line[:80]!r}); correct the line"
            )
        triples.append((names[0], names[1], names[2]))
    return triples


def _rows_of_frame(frame: Any) -> Iterable[Any]:
    columns = [str(column) for column in frame.columns]
    if set(_COLUMNS) <= set(columns):
        frame = frame[list(_COLUMNS)]
    elif len(columns) != 3:
        raise ValueError(f"the table has the columns {', '.join(columns)}; expected {', '.join(_COLUMNS)}")
    return list(frame.itertuples(index=False, name=None))


def _checked(items: Iterable[Any]) -> list[Triple]:
    triples = []
    for number, item in enumerate(items):
        names = tuple(item) if isinstance(item, (tuple, list)) else ()
        if len(names) != 3 or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"triple {number} is {item!r}; expected (head, relation, tail), three names that are text and not empty"
            )
        triples.append((names[0], names[1], names[2]))
    return triples
