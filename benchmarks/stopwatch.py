"""Seconds between two CUDA events in the stream of whoever computes."""

from __future__ import annotations

import time
from collections.abc import Callable

Stop = Callable[[], float]


def stopwatch(whose: str, device: str = "cuda") -> Callable[[], Stop]:
    """start(), which gives stop(): the seconds between them on the GPU's clock, when it has come to the end.

    Whose stream it is: "relpt" or "torch". On the CPU, the wall clock's.
    """
    if device == "cpu":
        return _start_on_cpu
    return _start_relpt if whose == "relpt" else _start_torch


def _start_on_cpu() -> Stop:
    begin = time.perf_counter()
    return lambda: time.perf_counter() - begin


def _start_relpt() -> Stop:
    from relpt import _cuda

    begin = _cuda.mark()
    return lambda: _cuda.seconds(begin, _cuda.mark())


def _start_torch() -> Stop:
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()

    def stop() -> float:
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    return stop
