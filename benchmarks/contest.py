"""Contestants in processes of their own, of which one works while the others sleep."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def _answer(make: Callable[[str], Callable[[Any], Any]], name: str, pipe: Any) -> None:
    try:
        work = make(name)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        pipe.send(work(order))


@contextmanager
def contest(names: Iterable[str], make: Callable[[str], Callable[[Any], Any]]) -> Iterator[Callable[[str, Any], Any]]:
    """Starts a process for each name, in which ``make(name)`` answers orders (any but None); gives ask(name, order)."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], other = context.Pipe()
        processes.append(context.Process(target=_answer, args=(make, name, other), daemon=True))
        processes[-1].start()
        other.close()  # so that recv ends when the process does
        if (answer := pipes[name].recv()) != "ready":
            raise RuntimeError(f"{name} did not start: {answer}")

    def ask(name: str, order: Any) -> Any:
        pipes[name].send(order)
        return pipes[name].recv()

    yield ask
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()


def turns(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    """(round, name) in alternating order, so that a drift of the machine hits all alike."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name
