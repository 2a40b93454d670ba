"""One progress bar for the whole package: on in a notebook or on a terminal, off otherwise."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["interactive", "progress"]


class _Silent:
    """Stands in for a tqdm bar where none is shown."""

    def __init__(self, iterable: Iterable[Any] | None) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable if self._iterable is not None else ())

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, n: int = 1) -> None:
        """Does nothing."""

    def set_postfix(self, *args: object, **kwargs: object) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def interactive() -> bool:
    """True in a notebook or on a terminal, False when output goes to a file or a pipe, or under ``CI``."""
    if os.environ.get("CI"):
        return False
    if _in_notebook():
        return True
    stream = sys.stderr
    return bool(stream is not None and not stream.closed and stream.isatty())


def _tqdm() -> Any:
    """tqdm's class for this place, or None without tqdm. A notebook without ipywidgets gets the text bar, unwarned."""
    try:
        if _in_notebook() and importlib.util.find_spec("ipywidgets") is None:
            module = importlib.import_module("tqdm.std")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TqdmExperimentalWarning, "IProgress not found"
                module = importlib.import_module("tqdm.auto")
    except ImportError:
        return None
    return module.tqdm


def progress(
    iterable_or_total: Iterable[Any] | int,
    show: bool | None = None,
    *,
    desc: str | None = None,
    unit: str = "it",
    initial: int = 0,
) -> Any:
    """A progress bar over an iterable, or over a number of units that the caller counts with ``update(n)``.

    Args:
        iterable_or_total: what to iterate over, or the total.
        show: True or False; None shows it in a notebook or on a terminal alone.
        desc: text before the bar.
        unit: what is counted.
        initial: units done before (after a resume).

    Returns:
        A tqdm bar or a silent object with ``__iter__``, ``__enter__``/``__exit__``, ``update``, ``set_postfix``,
        ``close``.
    """
    total = iterable_or_total if isinstance(iterable_or_total, int) else None
    iterable = None if isinstance(iterable_or_total, int) else iterable_or_total
    bar = _tqdm() if (interactive() if show is None else show) else None
    if bar is None:
        return _Silent(iterable)
    delay = 0.5 if show is None else 0.0  # nobody asked for a bar that is over at once
    return bar(
        iterable, total=total, desc=desc, unit=unit, initial=initial, mininterval=0.2, delay=delay, dynamic_ncols=True
    )
