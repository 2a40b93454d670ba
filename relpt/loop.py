"""The steps of a run, and what it needs to stop and go on."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt.checkpoint import save_checkpoint
from relpt.errors import FormatError
from relpt.fields import check_whole
from relpt.history import History
from relpt.progress import progress

__all__ = ["Loop", "asks_to_stop", "compare_cards", "free_memory"]

_log = logging.getLogger("relpt")
_OLDER: Final = {"markers": "plain", "marker_order": "role", "optimizer": "adamw", "momentum": 0.0}  # if cards say none


def asks_to_stop(answer: object) -> bool:
    """Whether a callback returned True, or NumPy's; what else a function happens to return does not count."""
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


class Loop:
    """The steps of one fit."""

    def __init__(
        self,
        owner: Any,
        sampler: Any,
        trainer: Any,
        history: History,
        folder: Path | None,
        every: int,
        card: dict[str, Any],
    ) -> None:
        self.owner, self.sampler, self.trainer, self.history = owner, sampler, trainer, history
        self.folder, self.every, self.card = folder, every, card
        self.saved = len(history)
        self.begin = 0.0  # of the step under way

    def run(self, callbacks: list[Callable[[dict[str, Any]], Any]], show: bool | None) -> History:
        """All steps that are left; always ends with a checkpoint of the last whole step."""
        steps = int(self.owner.options["max_steps"])
        self.history.status = "interrupted"  # where an exception ends it
        with progress(steps, show, desc=self.owner._task, unit="step", initial=len(self.history)) as bar:
            try:
                while len(self.history) < steps:
                    record = self.step()
                    shown = {"loss": f"{record['loss']:.3f}", "sent_s": f"{record['sentences_per_second']:.0f}"}
                    bar.set_postfix(shown, refresh=False)
                    bar.update(1)
                    if self.ask(callbacks, record):
                        self.history.status = "stopped"
                        break
                    if len(self.history) % self.every == 0:
                        self.save()
                else:
                    self.history.status = "finished"
            except KeyboardInterrupt:
                self.complete()
                self.history.status = "interrupted"
                _log.warning("interrupted after step %d; the encoder keeps that step's state", len(self.history))
        try:
            self.save()
        except KeyboardInterrupt:  # held until the checkpoint was whole
            self.history.status = "interrupted"
        return self.history

    def ask(self, callbacks: list[Callable[[dict[str, Any]], Any]], record: dict[str, Any]) -> bool:
        """Whether one of the callbacks, which all hear of the step, asks to stop."""
        try:
            return any([asks_to_stop(callback(record)) for callback in callbacks])
        except Exception:
            self.save()  # what was trained is not lost with a callback
            raise

    def step(self) -> dict[str, Any]:
        """One step and its record."""
        self.begin = time.perf_counter()
        # One call of C code makes the step and keeps its figures, so that no Ctrl-C falls between the two.
        self.history.records.extend(map(self.trainer.step, (self.sampler,), (len(self.history),)))
        self.complete()
        return self.history.records[-1]

    def complete(self) -> None:
        """Gives the last record its number and speed, where it has none yet."""
        records = self.history.records
        if records and "step" not in records[-1]:
            speed = records[-1]["sentences"] / (time.perf_counter() - self.begin)
            records[-1] = {"step": len(records), **records[-1], "sentences_per_second": speed}

    def save(self) -> None:
        """A checkpoint of the state after the last step, unless it has one."""
        if self.folder is None or self.saved == len(self.history):
            return
        with _interrupts_held():
            save_checkpoint(self.folder, self.owner.encoder, self.trainer, self.history, self.card)
            self.saved = len(self.history)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Lets a Ctrl-C that comes inside the block take effect at its end. Python hears them in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if caught:
        raise KeyboardInterrupt


def free_memory() -> int:
    """Bytes of memory that can still be had: the system's, and what the cgroup leaves."""
    free = 4 << 30
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        free = int(fields["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            free = min(free, int(limit) - used)
    except (OSError, KeyError, ValueError):
        pass  # no such files on this system: what was found so far
    return free


def compare_cards(card: dict[str, Any], checkpoint: Path) -> int:
    """Refuses to resume with other options or data; returns the checkpoint's micro_batch_pairs."""
    from relpt.files import read_table

    path = checkpoint / "relpt.json"
    if not path.is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint: there is no relpt.json")
    old = read_table(path)
    for part in ("options", "encoder", "data", "target"):
        if not isinstance(old.get(part, None if part in ("options", "encoder") else {}), dict):
            raise FormatError(f"{path}: {part} is missing or no object; resume from another checkpoint")
    compared = {name: (value, old["options"].get(name, _OLDER.get(name))) for name, value in card["options"].items()}
    encoder = ("representation", "dtype", "prompt", "markers", "marker_order", "types")
    compared |= {
        name: (card["encoder"][name], old["encoder"].get(name, _OLDER.get(name)))
        for name in encoder
        if name in card["encoder"]
    }
    compared["injection"] = card["encoder"].get("injection"), old["encoder"].get("injection")
    for name, (value, was) in compared.items():
        if was != value and name not in ("micro_batch_pairs", "prefetch"):
            raise ValueError(
                f"resume: {name} is {value!r}, but the checkpoint {checkpoint} was made with {was!r}; "
                "resume with the same options, or start a new run"
            )
    if any(old.get(text, {}).get("hash") != card.get(text, {}).get("hash") for text in ("data", "target")):
        raise ValueError(f"resume: the data are others than those of the checkpoint {checkpoint}; start a new run")
    return check_whole(path, "options.micro_batch_pairs", old["options"].get("micro_batch_pairs"))
