"""Tables as text, and as pandas' data frames, which are an extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["aligned", "data_frame"]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """The cells of the lines in columns of equal width, two blanks apart."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def data_frame(rows: Iterable[Mapping[str, Any]] | Sequence[Any], columns: Iterable[str] | None = None) -> Any:
    """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise ImportError("data frames need pandas, which is not installed: pip install 'relpt[frames]'") from None
    return pandas.DataFrame(rows, columns=None if columns is None else list(columns))
