"""Ctrl-C in the command's first moments, before there is anything that could be kept.

While the core and its libraries are loaded, a KeyboardInterrupt is a traceback, or another error where a library takes
it for one of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from itertools import pairwise
from typing import Any, NoReturn

__all__ = ["end_at_once", "raise_again"]


def _end(*_: Any) -> NoReturn:
    os.write(2, b"relpt: interrupted\n")
    os._exit(130)


def _set(handler: Any) -> None:
    with contextlib.suppress(ValueError):  # in another thread than the main one, where handlers cannot be set
        signal.signal(signal.SIGINT, handler)


def end_at_once() -> None:
    """Lets Ctrl-C end the process with a line, where it is the command ``relpt``."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    module = ("-m", "relpt") in pairwise(sys.orig_argv)
    if (name == "relpt" or (name == "-m" and module)) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _set(_end)


def raise_again() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt, as ever."""
    if signal.getsignal(signal.SIGINT) is _end:
        _set(signal.default_int_handler)
