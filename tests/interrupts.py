"""Ctrl-C while the core works: the moment comes from what the core does, not from a clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import relpt

BIAS = "embeddings.LayerNorm.bias"


@contextmanager
def alarm_as_ctrl_c() -> Iterator[None]:
    """SIGALRM raises KeyboardInterrupt, as SIGINT does where a job in the background does not ignore it."""
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class Watched:
    """An encoder that another thread trains or reads. Made before that begins: it keeps a weight to write back."""

    def __init__(self, encoder: relpt.Encoder) -> None:
        self._model, self._bias = encoder._model, encoder._model.get(BIAS)

    def is_busy(self) -> bool:
        try:
            self._model.set(BIAS, self._bias)
        except RuntimeError as error:
            return str(error).startswith("busy: another thread is training")
        return False

    def wait_until_busy(self) -> None:
        deadline = time.perf_counter() + 20
        while not self.is_busy():
            assert time.perf_counter() < deadline, "nobody took the encoder"


def interrupt_when_busy(encoder: relpt.Encoder) -> None:
    """Sends this thread SIGALRM as soon as the core has taken the encoder."""
    watched, caller = Watched(encoder), threading.get_ident()

    def interrupt() -> None:
        watched.wait_until_busy()
        signal.pthread_kill(caller, signal.SIGALRM)

    threading.Thread(target=interrupt).start()
