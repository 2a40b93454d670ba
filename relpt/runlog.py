"""What a run tells while it lasts: history.jsonl, and lines on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from relpt.files import json_text

__all__ = ["HistoryFile", "StepLines", "counted", "duration", "tell"]


def tell(text: str) -> None:
    """A line on stderr, above a progress bar where one is shown."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
    sys.stderr.flush()


class HistoryFile:
    """history.jsonl, written live: a callback for ``CPTrainer.fit`` that appends a line a step.

    The file is made at the first step, so that a run which never starts leaves none.

    Args:
        path: of the file; what it holds is replaced.
        kept: records that stand before the first step (a resumed run's).
    """

    def __init__(self, path: Path, kept: Sequence[dict[str, Any]] = ()) -> None:
        self.path, self.kept, self.count = path, list(kept), 0
        self._file: IO[str] | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Writes the step's line."""
        if self._file is None:
            self._replace(self.kept)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - open for the whole run
        self._file.write(json_text(record) + "\n")
        self._file.flush()
        self.count += 1

    def _replace(self, records: Sequence[dict[str, Any]]) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text("".join(json_text(record) + "\n" for record in records), encoding="utf-8")
        os.replace(new, self.path)
        self.count = len(records)

    def finish(self, history: Iterable[dict[str, Any]]) -> None:
        """Closes the file; brings it in line with the history where Ctrl-C came between a step and its line."""
        records = list(history)
        self.close()
        if records and self.count != len(records):
            self._replace(records)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class StepLines:
    """A callback that says on stderr how far the run is, where no progress bar is shown.

    Args:
        steps: of the run.
        every: seconds between lines.
    """

    def __init__(self, steps: int, every: float = 30.0) -> None:
        self.steps, self.every, self._last = steps, every, time.monotonic()

    def __call__(self, record: dict[str, Any]) -> None:
        """Writes a line when it is time."""
        if time.monotonic() - self._last < self.every:
            return
        self._last = time.monotonic()
        speed = record["sentences_per_second"]
        left = (self.steps - record["step"]) * record["sentences"] / speed
        tell(
            f"relpt: step {record['step']:,} of {self.steps:,}, loss {record['loss']:.3f}, {speed:.0f} sentences/s, "
            f"about {duration(left)} left"
        )


def counted(n: int, noun: str) -> str:
    """A number of things: 1 run, 1,200 runs."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span as a person says it: 0.4 s, 75 s, 12 min, 3.4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
