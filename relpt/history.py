"""The course of a training run: one record a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from relpt.errors import FormatError
from relpt.files import parse_json
from relpt.frames import data_frame

__all__ = ["History"]


class History:
    """Records of the steps of a run.

    ``history["loss"]`` is a float64 array over the steps (those that have the figure), ``history[-1]`` the last record.

    Attributes:
        records: dicts with step (from 1), loss, the losses of its objectives (loss_cp, loss_mlm, …), accuracy (of the
            first objective that has one; accuracy_<name> of further ones), lr, grad_norm, sentences_per_second,
            sentences, tokens, masked, truncated, truncated_mentions; of some steps val_accuracy and val_ci95, where
            ``FewShot.fit`` has data to watch.
        status: "finished", "interrupted" (Ctrl-C) or "stopped" (by a callback).
    """

    def __init__(self, records: list[dict[str, Any]] | None = None, status: str = "finished") -> None:
        self.records: list[dict[str, Any]] = list(records or [])
        self.status = status

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            values = [record[key] for record in self.records if key in record]
            if self.records and not values:
                raise KeyError(key)
            return np.array(values, np.float64)
        return self.records[key]

    def to_dict(self) -> dict[str, Any]:
        """Status, and a list over the steps for each field, None where a step has no such figure."""
        fields = dict.fromkeys(field for record in self.records for field in record)
        return {"status": self.status, **{field: [record.get(field) for record in self.records] for field in fields}}

    def to_pandas(self) -> Any:
        """A pandas DataFrame, a row a step; ImportError where pandas is not installed."""
        return data_frame(self.records)

    @classmethod
    def read(cls, path: str | Path) -> History:
        """Reads a history.jsonl.

        Raises:
            FormatError: a line is no record; names file and line.
        """
        records = []
        for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                record = parse_json(line)
            except ValueError as error:
                raise FormatError(f"{path}, line {number}: is no valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise FormatError(f"{path}, line {number}: is no record of a step; the file is damaged")
            records.append(record)
        return cls(records)

    def plot(self, ax: Any = None) -> Any:
        """Draws loss and its parts over the steps; returns the Axes."""
        from relpt.report.plots import plot_history

        return plot_history(self, ax=ax)

    def __repr__(self) -> str:
        if not self.records:
            return f"<relpt.History: no steps, {self.status}>"
        first, last = self.records[0], self.records[-1]
        return (
            f"<relpt.History: {len(self)} steps, loss {first['loss']:.3f} -> {last['loss']:.3f}, "
            f"{np.median(self['sentences_per_second']):.0f} sentences/s, {self.status}>"
        )
