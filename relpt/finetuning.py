"""The protocol of supervised relation extraction: fractions of the training data, seeds, median and spread."""

from __future__ import annotations

import html
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt.classifier import Classifier, Judged, trainable_labels
from relpt.data.reading import as_dataset
from relpt.files import read_table
from relpt.frames import aligned, data_frame
from relpt.inputs import input_name
from relpt.runs import Row, RunFolder, data_identity, encoder_identity, json_lines, run_key

__all__ = ["FineTuning", "Protocol", "finetune", "grid", "kept_run", "prediction_file"]

_log = logging.getLogger("relpt")
_FIGURES: Final = ("dev", "test", "official_dev", "official_test")


@dataclass(frozen=True, repr=False)
class FineTuning:
    """The runs of ``finetune``; a table of medians as text and in a notebook.

    Attributes:
        rows: a dict for each run: inputs, fraction, seed, metric, dev, test; negative (the class that the metric leaves
            out), official (the measure that the data's authors prescribe), official_dev, official_test; unknown
            (sentences of dev and test whose relation was not trained, counted as wrong), sentences (trained on),
            best_epoch, and with a folder key (of encoder, options and data). A set that was not given has None. Where
            bags were scored, bags holds the figures of ``BagScore.to_dict`` on test, or without one on dev.
        computed: the runs that were computed, not found done.
    """

    rows: list[Row]
    computed: int

    def summary(self) -> list[Row]:
        """A dict for each input setting and fraction: the number of seeds, and of each figure the median, lowest and
        highest over them, as dev, dev_low, dev_high and so on."""
        groups: dict[tuple[str, float], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row["inputs"], row["fraction"]), []).append(row)
        summary = []
        for (inputs, fraction), rows in groups.items():
            same = {name: rows[0][name] for name in ("metric", "negative", "official", "sentences")}
            found = {"inputs": inputs, "fraction": fraction, "seeds": len(rows), **same}
            for name in _FIGURES:
                values = [row[name] for row in rows if row[name] is not None]
                low, high, middle = (f(values) if values else None for f in (min, max, _median))
                found |= {name: middle, f"{name}_low": low, f"{name}_high": high}
            summary.append(found)
        return summary

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
        return data_frame(self.rows)

    def table(self) -> list[list[str]]:
        """The summary as text, a header first; the official measure has a column where it is another one."""
        summary = self.summary()
        other = any(item["official"] != item["metric"] for item in summary)
        head = ["inputs", "fraction", "sentences", "seeds", "metric", "dev", "test"]
        lines = [head + [f"{summary[0]['official']} test"] * other] if summary else [head]
        for item in summary:
            cells = [_spread(item, name) for name in ("dev", "test", *(["official_test"] * other))]
            facts = (item["inputs"], f"{item['fraction']:g}", f"{item['sentences']:,}", str(item["seeds"]))
            lines.append([*facts, item["metric"], *cells])
        return lines

    def __str__(self) -> str:
        return aligned(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *lines = self.table()
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
        names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        return f"<table><tr>{names}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _spread(item: Row, name: str) -> str:
    if item[name] is None:
        return "–"
    spread = f" ({item[f'{name}_low']:.4f} – {item[f'{name}_high']:.4f})" if item["seeds"] > 1 else ""
    return f"{item[name]:.4f}{spread}"


def finetune(
    encoder: Any,
    train: Any,
    *,
    dev: Any = None,
    test: Any = None,
    inputs: str | Iterable[str] = "C+M",
    fractions: float | Iterable[float] = 1.0,
    seeds: int | Iterable[int] = range(42, 47),
    metric: str | None = None,
    negative: str | None = None,
    output: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row, float | None], Any] | None = None,
    show_progress_bar: bool | None = None,
    **options: Any,
) -> FineTuning:
    """Fine-tunes a classifier for every input setting, fraction of the training data and seed.

    Source: Peng et al. 2020, table 5 and appendix B: 1 %, 10 % and 100 % of each relation's sentences, the median of
    the seeds 42 to 46. Here every seed draws a fraction of its own (``Dataset.fraction``), so that the spread holds the
    luck of the draw; the published files of a fraction are given as ``train`` with fraction 1. The classes are those of
    all of ``train``.

    Args:
        encoder: the ``Encoder``, ``CNNEncoder`` or ``HybridEncoder`` that every run starts from; it stays as it is.
        train, dev, test: labelled, ``Dataset`` or what ``relpt.load`` takes; dev or test may be left out.
        inputs, fractions, seeds: one or several.
        metric, negative: as in ``Classifier.score``.
        output: a folder. It gets rows.jsonl, the predictions on test (without one, on dev) of each run, and, where
            there is a dev set, in "model" the classifier with the best score on it. One of other training or dev data
            is replaced. Runs that the folder holds for the same encoder, options and data are not computed again.
        on_row: called with each row and the seconds it took, None for one that the folder held.
        show_progress_bar: None shows it in a notebook or on a terminal.
        options: of ``Classifier``, but for the seed.

    Raises:
        KeyboardInterrupt: Ctrl-C; the rows up to it are in ``output``.
        ValueError: neither dev nor test; an option, the data or a measure that does not fit, told before any run.
    """
    settings, shares, numbers = grid(inputs, fractions, seeds)
    protocol = Protocol(encoder, train, dev, test, metric, negative, options, show_progress_bar)
    protocol.check(settings, shares)
    folder = None if output is None else RunFolder(Path(output))
    rows, computed = [], 0
    for name in settings:
        for share in shares:
            for seed in numbers:
                begin = time.monotonic()
                key = "" if folder is None else protocol.key(name, share, seed)
                row = None if folder is None else folder.find(key)
                done = row is not None
                if row is None:
                    row, classifier, judged = protocol.run(name, share, seed)
                    if folder is not None:
                        row |= {"key": key}
                        _keep_best(folder.path / "model", row, classifier, protocol)
                        folder.add(row, *prediction_file(row, judged))
                    computed += 1
                rows.append(row)
                if on_row is not None:
                    on_row(row, None if done else time.monotonic() - begin)
    return FineTuning(rows, computed)


def grid(inputs: Any, fractions: Any, seeds: Any) -> tuple[list[str], list[float], list[int]]:
    """The axes of an experiment as lists, from one or several values of each."""
    settings = [input_name(name) for name in ([inputs] if isinstance(inputs, str) else inputs)]
    shares = [fractions] if isinstance(fractions, (int, float)) else list(fractions)
    return settings, shares, [seeds] if isinstance(seeds, int) else list(seeds)


class Protocol:
    """What all runs of one encoder on one data set share, and one run."""

    def __init__(
        self,
        encoder: Any,
        train: Any,
        dev: Any,
        test: Any,
        metric: str | None,
        negative: str | None,
        options: dict[str, Any],
        show: bool | None,
    ) -> None:
        for name in ("seed", "copy"):
            if name in options:
                raise TypeError(f"finetune takes no option {name!r}: it sets that itself (seeds=…)")
        if dev is None and test is None:
            raise ValueError("finetune has nothing to score; give dev=… (--dev), test=… (--test), or both")
        self.encoder, self.options, self.show = encoder, options, show
        self.sample = Classifier(encoder, **options)  # refuses bad options before anything is read
        self.train, _ = as_dataset(train)
        self.corpus = self.sample.parts.read(self.train, self.sample._cut, show)
        self.labels = trainable_labels(self.corpus.corpus, None)
        self.judged = {
            name: self.sample.parts.read(data, self.sample._cut, show)
            for name, data in (("dev", dev), ("test", test))
            if data is not None
        }
        if options.get("early_stopping") is not None and dev is None:
            raise ValueError("early_stopping needs a dev set to judge epochs by; give dev=… (--dev), or leave it out")
        self.asked = metric, negative
        self._common: Row | None = None
        self._compared: Row | None = None

    def key(self, inputs: str, share: float, seed: int) -> str:
        """Of the run, for a folder: the same for the same encoder, options and data."""
        if self._common is None:  # reads all weights
            options = self.sample.get_params()
            idle = ("seed", "copy", "representation", *(() if options["bags"] is not None else ("bags", "bag_size")))
            self._common = {
                "encoder": encoder_identity(self.sample.parts.encoder),
                "options": {name: value for name, value in options.items() if name not in idle},
                "data": [self.corpus.data_hash, {name: data.data_hash for name, data in self.judged.items()}],
                "metric": self.asked,
            }
        return run_key([self._common, inputs, float(share), seed])

    def compared(self) -> Row:
        """What scores on dev depend on beside the run: those of other data or classes say nothing about each other.

        The sentences count, not their tokens, so that runs of encoders that cut text in other ways can be compared.
        """
        if self._compared is None:
            dev = self.judged["dev"]
            identity = dev.data_hash if dev.data is None else data_identity(dev.data)  # None: a Corpus was given
            self._compared = {"train": data_identity(self.train), "dev": identity, "labels": self.labels}
        return self._compared

    def check(self, settings: Sequence[str], shares: Sequence[float]) -> None:
        """Refuses what would fail in the midst of the runs."""
        for share in shares:
            self.train.fraction(share)
        measures = self.sample._measures(self.labels, *self.asked)
        for data in self.judged.values():
            self.sample._check_judged(data, self.labels, measures)
        for name in settings:
            for data in (self.corpus, *self.judged.values()):
                self.sample.parts.check(data, name)

    def run(self, inputs: str, share: float, seed: int) -> tuple[Row, Classifier, Judged]:
        """One run: its row, the classifier, and what it says of the last set."""
        classifier = Classifier(self.encoder, seed=seed, **self.options)
        data = self.corpus if share == 1 else self.train.fraction(share, seed=seed)
        metric, negative = self.asked
        early: dict[str, Any] = {"dev": self.judged["dev"]} if self.options.get("early_stopping") is not None else {}
        classifier.fit(
            data,
            inputs=inputs,
            labels=self.labels,
            metric=metric,
            negative=negative,
            show_progress_bar=self.show,
            **early,
        )
        if classifier.history.status == "interrupted":
            raise KeyboardInterrupt
        found = {name: classifier._judge(data, metric, negative, self.show) for name, data in self.judged.items()}
        scores = {name: judged.score for name, judged in found.items()}
        any_score = next(iter(scores.values()))
        row = {"inputs": inputs, "fraction": share, "seed": seed, "metric": any_score.metric}
        row |= {name: float(scores[name]) if name in scores else None for name in ("dev", "test")}
        row |= {"negative": any_score.negative, "official": any_score.official_metric}
        row |= {f"official_{name}": scores[name].official if name in scores else None for name in ("dev", "test")}
        row |= {
            "unknown": sum(score.unknown for score in scores.values()),
            "sentences": len(data),
            "best_epoch": classifier.best_epoch,
        }
        last = found["test" if "test" in found else "dev"]
        return row | ({} if last.bags is None else {"bags": last.bags.to_dict()}), classifier, last


def prediction_file(row: Row, judged: Judged) -> tuple[str, str]:
    """Name and text of a run's predictions: a line of JSON for each sentence."""
    columns = ("gold", "predicted", "probability")
    cells = zip(*(getattr(judged, column) for column in columns), strict=True)
    lines = [{"row": i, **dict(zip(columns, values, strict=True))} for i, values in enumerate(cells)]
    return f"{row['inputs']}-{row['fraction']:g}-{row['seed']}", json_lines(lines)


def kept_run(folder: str | os.PathLike[str]) -> Row | None:
    """The row of the run whose classifier is in "model" of a folder of ``finetune``; None where there is none."""
    found = _kept(Path(folder) / "model").get("row")
    return found if isinstance(found, dict) else None


def _kept(folder: Path) -> Row:
    """What the card of a classifier's folder says of it; nothing where there is no such folder."""
    card = folder / "relpt.json"
    own = read_table(card).get("classifier") if card.is_file() else None
    return own if isinstance(own, dict) else {}


def _keep_best(folder: Path, row: Row, classifier: Classifier, protocol: Protocol) -> None:
    """Saves the classifier unless the folder has one with as good a score on the same dev, trained on the same data."""
    if row["dev"] is None:
        return
    kept, compared = _kept(folder), protocol.compared()
    best = kept.get("row")
    if isinstance(best, dict) and kept.get("compared") == compared:
        same = all(best.get(name) == row[name] for name in ("metric", "negative"))
        if same and best["dev"] >= row["dev"]:
            return
    classifier.save_pretrained(folder, card={"row": row, "compared": compared})
