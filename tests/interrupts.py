"""Ctrl-C while the core works: the moment comes from what the core does, not from a clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import relpt


@contextmanager
def alarm_as_ctrl_c() -> Iterator[None]:
    """SIGALRM raises KeyboardInterrupt, as SIGINT does where a job in the background does not ignore it."""
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def wait_until_busy(encoder: relpt.Encoder) -> None:
    """Until another thread trains or reads the encoder."""
    deadline = time.perf_counter() + 20
    while not encoder._model.busy:
        assert time.perf_counter() < deadline, "nobody took the encoder"


def interrupt_when_busy(encoder: relpt.Encoder) -> None:
    """Sends this thread SIGALRM as soon as the core has taken the encoder."""
    caller = threading.get_ident()

    def interrupt() -> None:
        wait_until_busy(encoder)
        signal.pthread_kill(caller, signal.SIGALRM)

    threading.Thread(target=interrupt).start()
