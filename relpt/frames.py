"""Tables as pandas' data frames, which is an extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["data_frame"]


def data_frame(rows: Iterable[Mapping[str, Any]] | Sequence[Any], columns: Iterable[str] | None = None) -> Any:
    """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise ImportError("data frames need pandas, which is not installed: pip install 'relpt[frames]'") from None
    return pandas.DataFrame(rows, columns=None if columns is None else list(columns))
