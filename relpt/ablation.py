"""Tables of the field's papers: models × input settings × fractions × data sets, with intervals and paired tests."""

from __future__ import annotations

import html
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from relpt.analysis import _markdown, _markdown_table, _mcnemar
from relpt.fewshot import FewShot
from relpt.files import json_text
from relpt.finetuning import Protocol, grid, prediction_file
from relpt.frames import aligned, data_frame
from relpt.hybrid import open_encoder
from relpt.intervals import mean_interval, paired_t
from relpt.progress import progress
from relpt.runs import Row, RunFolder, data_identity, encoder_identity, projection_identity, run_key

__all__ = ["Ablation", "Comparison", "Predictions", "ablate", "splits_of"]

_SPLITS: Final = {"train": ("train",), "dev": ("dev", "val", "valid"), "test": ("test",)}
_AXES: Final = ("data", "model", "inputs", "setting")
_NONE: Final = "none of the above"
_STATISTICS: Final = ("mean", "median")


# -- results ----------------------------------------------------------------------------------------------------------


class Predictions(NamedTuple):
    """What a run said: for each sentence of test (or dev), or for each query of the few-shot episodes.

    Attributes:
        rows: the sentences' places in the data.
        gold, predicted: their relations.
    """

    rows: list[int]
    gold: list[str]
    predicted: list[str]


class Comparison(NamedTuple):
    """How far a is above b in one place of the table.

    Attributes:
        a, b: what is compared.
        data, setting: where; and ``model`` or ``inputs`` where both have the same one, else None.
        metric: the measure.
        seeds: how many both were run with.
        score_a, score_b, difference: means over the seeds.
        ci95: half width of the difference's interval over seeds (Student's t); None for one seed.
        p_seeds: of the paired t-test over seeds; None for one seed.
        p_sentences: of the sign test over sentences.
    """

    a: str
    b: str
    data: str
    setting: str
    model: str | None
    inputs: str | None
    metric: str
    seeds: int
    score_a: float
    score_b: float
    difference: float
    ci95: float | None
    p_seeds: float | None
    p_sentences: float


@dataclass(frozen=True, repr=False)
class Ablation:
    """The runs of ``ablate``; prints as a table, and shows as one in a notebook.

    Attributes:
        rows: a dict for each run: data, model, inputs, setting ("10 %" of the training data, "5-way 1-shot"), seed,
            metric, score (on test, without one on dev; few-shot accuracy), sentences. Fine-tuning adds what
            ``FineTuning.rows`` has; few-shot way, shot, episodes and ci95 (over episodes).
        computed: the runs that were computed, not found done.
    """

    rows: list[Row]
    computed: int
    _said: Callable[[str], Predictions] = field(compare=False)

    def select(self, **where: Any) -> list[Row]:
        """The rows whose fields have these values: ``select(model="CP", inputs="OnlyC")``.

        Raises:
            ValueError: no row has.
        """
        found = [row for row in self.rows if all(row.get(name) == value for name, value in where.items())]
        if not found:
            raise ValueError(f"no run has {_told(where)}; the table has {self._values()}")
        return found

    def predictions(self, **where: Any) -> Predictions:
        """What one run said, for ``relpt.analysis.agreement`` and ``cases``.

        Args:
            where: fields that leave one run, such as model, inputs, setting, seed; those that all have may be left out.

        Raises:
            ValueError: no run, or several, have these values.
        """
        found = self.select(**where)
        if len(found) > 1:
            differing = [name for name in (*_AXES, "seed") if len({row[name] for row in found}) > 1]
            raise ValueError(f"{len(found)} runs have {_told(where)}; say {', '.join(differing)} too")
        return self._said(found[0]["key"])

    def summary(self) -> list[Row]:
        """A dict for each place of the table: data, model, inputs, setting, metric, seeds, and the score's mean, ci95
        (half width of its interval over seeds by Student's t, None for one seed), median, low and high over the seeds.
        """
        summary = []
        for place, rows in _grouped(self.rows, _AXES).items():
            scores = [row["score"] for row in rows]
            mean, ci95 = mean_interval(scores)
            spread = {"median": float(np.median(scores)), "low": min(scores), "high": max(scores)}
            same = {name: rows[0][name] for name in ("protocol", "metric")}
            found = dict(zip(_AXES, place, strict=True)) | same
            summary.append(found | {"seeds": len(rows), "mean": mean, "ci95": ci95} | spread)
        return summary

    def compare(self, a: str | Mapping[str, Any], b: str | Mapping[str, Any], **where: Any) -> list[Comparison]:
        """How far ``a`` is above ``b``, at each place of the table that has both.

        Two tests, since they ask different things. Over seeds, a paired t-test: each seed draws the same sentences
        and the same order for both, so that their difference is free of the luck of the draw; it speaks of training
        again on this test set, and has few numbers to go by (3 to 5). Over sentences, an exact sign test of
        which of the two is right more often, over the seeds, on each test sentence: with one seed McNemar's test.
        It speaks of other sentences; every sentence counts once however many seeds or queries it has, as they do not
        add independent evidence. It is about right answers, also where the metric is F1. For few-shot tests only the
        episodes differ between seeds, so that ``p_seeds`` speaks of their draw alone.

        Args:
            a, b: a model's label, an input setting, or a dict of fields, such as {"model": "CP", "inputs": "OnlyC"}.
            where: fields that hold for both, such as data="SemEval", setting="10 %".

        Raises:
            ValueError: nothing of that name; a place or a seed that has only one of the two.
        """
        asked = [self._chosen(a), self._chosen(b)]
        free = [name for name in _AXES if not any(name in chosen for chosen in asked)]
        tables = [_grouped(self.select(**where, **chosen), free) for chosen in asked]
        if tables[0].keys() != tables[1].keys():
            raise ValueError(f"{_told(asked[0])} and {_told(asked[1])} were run at different places of the table")
        names = [" ".join(str(value) for value in chosen.values()) for chosen in asked]
        return [
            self._compared(names, dict(zip(free, place, strict=True)), rows, tables[1][place])
            for place, rows in tables[0].items()
        ]

    def _compared(self, names: list[str], place: Row, rows_a: list[Row], rows_b: list[Row]) -> Comparison:
        pairs = _paired(rows_a, rows_b)
        scores = [(a["score"], b["score"]) for a, b in pairs]
        differences = [a - b for a, b in scores]
        mean, ci95 = mean_interval(differences)
        first = rows_a[0]
        return Comparison(
            a=names[0],
            b=names[1],
            data=first["data"],
            setting=first["setting"],
            model=place.get("model"),
            inputs=place.get("inputs"),
            metric=first["metric"],
            seeds=len(pairs),
            score_a=float(np.mean([a for a, _ in scores])),
            score_b=float(np.mean([b for _, b in scores])),
            difference=mean,
            ci95=ci95,
            p_seeds=paired_t(differences),
            p_sentences=_sign_test([(self._said(a["key"]), self._said(b["key"])) for a, b in pairs]),
        )

    def _chosen(self, what: str | Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(what, Mapping):
            unknown = [name for name in what if name not in _AXES]
            if unknown:
                raise ValueError(f"cannot compare by {unknown[0]!r}; expected {', '.join(_AXES)}")
            return dict(what)
        for name in ("model", "inputs", "setting", "data"):
            if any(row[name] == what for row in self.rows):
                return {name: what}
        raise ValueError(f"{what!r} is none of the table's models or settings; it has {self._values()}")

    def _values(self) -> str:
        return "; ".join(f"{name} {', '.join(map(repr, self._order(name)))}" for name in _AXES)

    def _order(self, name: str) -> list[Any]:
        return list(dict.fromkeys(row[name] for row in self.rows))

    # -- tables and plots --------------------------------------------------------------------------------------------

    def tables(self, statistic: str = "mean") -> list[list[list[str]]]:
        """The papers' table as text, a header first: a line for each data set and model, a column for each setting and
        input setting. One for fine-tuning and one for few-shot tests, where there are both.

        Args:
            statistic: "mean" with its 95 % interval over seeds, or "median" with the lowest and highest, the one that
                Peng et al. 2020 report.
        """
        from relpt.inputs import choice

        choice(statistic, _STATISTICS, "statistic")
        tables = []
        for part in _grouped(self.summary(), ["protocol"]).values():
            columns = list(dict.fromkeys((item["setting"], item["inputs"]) for item in part))
            columns.sort(key=lambda column: [item["setting"] for item in part].index(column[0]))
            head = ["data", "metric", "model", *(f"{setting} {inputs}" for setting, inputs in columns)]
            lines = [head]
            for (data, metric, model), items in _grouped(part, ["data", "metric", "model"]).items():
                cells = {(item["setting"], item["inputs"]): _figure(item, statistic) for item in items}
                lines.append([data, metric, model, *(cells.get(column, "–") for column in columns)])
            tables.append(lines)
        return tables

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame; ImportError where pandas is not installed."""
        return data_frame([{name: value for name, value in row.items() if name != "key"} for row in self.rows])

    def to_text(self, statistic: str = "mean") -> str:
        """``tables`` with their columns aligned, as they are printed."""
        return "\n\n".join(map(aligned, self.tables(statistic)))

    def to_markdown(self, statistic: str = "mean") -> str:
        """``tables`` in Markdown."""
        return "\n\n".join(
            _markdown_table(head, [[_markdown(cell) for cell in line] for line in lines])
            for head, *lines in self.tables(statistic)
        )

    def plot(self, ax: Any = None, **where: Any) -> Any:
        """Bars of means with 95 % intervals, grouped by input setting: a panel for each data set and setting.

        Args:
            ax: Axes, one for each panel; None makes a figure.
            where: fields that the runs shown have, such as data="SemEval", setting="10 %".

        Returns:
            The Axes; an array of them where there are several panels.
        """
        from relpt.report.plots import plot_ablation

        wanted = {row["key"] for row in self.select(**where)} if where else None
        rows = [row for row in self.rows if wanted is None or row["key"] in wanted]
        return plot_ablation(Ablation(rows, 0, self._said).summary(), ax=ax)

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = []
        for head, *lines in self.tables():
            names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
            rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
            parts.append(f"<table><tr>{names}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        return "".join(parts)


def _grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _told(where: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in where.items()) or "these fields"


def _figure(item: Row, statistic: str) -> str:
    if statistic == "mean":
        return f"{item['mean']:.3f}" + (f" ± {item['ci95']:.3f}" if item["ci95"] is not None else "")
    spread = f" ({item['low']:.3f} – {item['high']:.3f})" if item["seeds"] > 1 else ""
    return f"{item['median']:.3f}{spread}"


def _paired(rows_a: list[Row], rows_b: list[Row]) -> list[tuple[Row, Row]]:
    """The rows of the same seeds; refuses others, and several of a seed."""
    by_seed = [{row["seed"]: row for row in rows} for rows in (rows_a, rows_b)]
    if by_seed[0].keys() != by_seed[1].keys() or any(
        len(rows) != len(found) for rows, found in zip((rows_a, rows_b), by_seed, strict=True)
    ):
        raise ValueError("a and b need one run each of the same seeds; name both by the same fields")
    return [(row, by_seed[1][seed]) for seed, row in by_seed[0].items()]


def _sign_test(pairs: list[tuple[Predictions, Predictions]]) -> float:
    """Exact two-sided test that as many sentences favour a as favour b; a sentence favours the one that is more often
    right on it."""
    lead: dict[int, int] = {}
    for a, b in pairs:
        if (a.rows, a.gold) != (b.rows, b.gold):
            raise ValueError("a and b were tested on different sentences; compare runs on the same data")
        for row, gold, said_a, said_b in zip(a.rows, a.gold, a.predicted, b.predicted, strict=True):
            lead[row] = lead.get(row, 0) + (said_a == gold) - (said_b == gold)
    return _mcnemar(sum(n > 0 for n in lead.values()), sum(n < 0 for n in lead.values()))


# -- running ----------------------------------------------------------------------------------------------------------


def ablate(
    models: Any,
    data: Any,
    inputs: str | Iterable[str] = ("C+M", "OnlyC", "OnlyM"),
    fractions: float | Iterable[float] = 1.0,
    seeds: int | Iterable[int] = range(42, 47),
    *,
    few_shot: FewShot | Iterable[FewShot] | None = None,
    metric: str | None = None,
    negative: str | None = None,
    output: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row, float | None], Any] | None = None,
    show_progress_bar: bool | None = None,
    **options: Any,
) -> Ablation:
    """Runs every model in every input setting on every data set, as tables 1 and 5 of Peng et al. 2020 do.

    A data set with training sentences is fine-tuned on, at each fraction and seed (``finetune``); one without is a
    few-shot test (``FewShot``), at each seed of the episodes.

    Args:
        models: one or several of: a name or folder as ``Encoder.from_pretrained`` takes it, the folder of a
            ``HybridEncoder`` or ``CNNEncoder``, or such an object. A mapping gives labels; else the end of its name is
            one. An ``EntityTable`` cannot be fine-tuned, and is for few-shot tests.
        data: a data set, or a mapping of names to them: {"train": …, "dev": …, "test": …} with dev or test or both,
            each what ``relpt.load`` takes; a folder with files of these names; or what ``relpt.load`` takes, labelled,
            for a few-shot test.
        inputs, fractions, seeds: one or several.
        few_shot: one or several tasks of different ways or shots; None: 5-way 1-shot. Their seeds are those of
            ``seeds``.
        metric, negative: as in ``Classifier.score``; None chooses by the data set.
        output: a folder for rows and predictions. Runs that it holds for the same model, options and data are not
            computed again, whatever they are called; it may be one of ``finetune``.
        on_row: called with each row and the seconds it took, None for one that the folder held.
        show_progress_bar: one bar over all runs; None shows it in a notebook or on a terminal.
        options: of ``Classifier``, but for the seed; ``max_length`` also holds for few-shot tests (else 128 there).

    Raises:
        KeyboardInterrupt: Ctrl-C; the runs up to it are in ``output``.
        FileNotFoundError: there is no such model or file.
        TypeError: a model that cannot be fine-tuned; an option that nothing uses.
        ValueError: two models of one label; data, options or settings that do not fit, told before any run.
    """
    settings, shares, numbers = grid(inputs, fractions, seeds)
    sets = {name: _parts(name, value) for name, value in _data_sets(data).items()}
    tasks = _tasks(few_shot, sets, options)
    encoders = _models(models)
    jobs: list[tuple[Row, _FineTuned | _Tested]] = []
    for data_name, given in sets.items():
        for label, encoder in encoders.items():
            place = {"data": data_name, "model": label}
            if isinstance(given, dict):
                parts = (given["train"], given.get("dev"), given.get("test"))
                protocol = Protocol(encoder, *parts, metric, negative, options, False)
                protocol.check(settings, shares)
                jobs.append((place, _FineTuned(protocol, shares)))
            else:
                jobs.append((place, _Tested(encoder, given, tasks, settings, options.get("max_length", 128))))
    planned = [
        ({**place, "inputs": name, **setting, "seed": seed}, job)
        for place, job in jobs
        for name in settings
        for setting in job.settings()
        for seed in numbers
    ]
    if not planned:
        raise ValueError("nothing to run: models, data, inputs, fractions or seeds are empty")
    return _run(planned, None if output is None else RunFolder(Path(output)), on_row, show_progress_bar)


def _run(
    planned: list[tuple[Row, _FineTuned | _Tested]], folder: RunFolder | None, on_row: Any, show: bool | None
) -> Ablation:
    rows: list[Row] = []
    computed, kept = 0, dict[str, Predictions]()
    with progress(len(planned), show, desc="ablate", unit="run") as bar:
        for place, job in planned:
            bar.set_postfix(run=" ".join(str(place[name]) for name in (*_AXES, "seed")), refresh=False)
            begin = time.monotonic()
            key = job.key(place)
            found = None if folder is None else folder.find(key)
            row = found
            if row is None:
                result, file, said = job.run(place)
                row = {**place, **result, "key": key}
                if folder is None:
                    kept[key] = said
                else:
                    folder.add(row, *file)
                computed += 1
            rows.append({**row, **place, **job.facts(row)})
            bar.update()
            if on_row is not None:
                on_row(rows[-1], None if found is not None else time.monotonic() - begin)
    return Ablation(rows, computed, kept.__getitem__ if folder is None else _reader(folder))


def _reader(folder: RunFolder) -> Callable[[str], Predictions]:
    def read(key: str) -> Predictions:
        lines = folder.predictions(key)
        if "relations" in lines[0]:
            return _unpacked(lines[0])
        return Predictions(*([line[name] for line in lines] for name in ("row", "gold", "predicted")))

    return read


class _FineTuned:
    """The runs of one model that are fine-tuned on one data set."""

    def __init__(self, protocol: Protocol, shares: Sequence[float]) -> None:
        self.protocol, self.shares = protocol, shares

    def settings(self) -> list[Row]:
        """What tells the runs of one input setting and seed apart."""
        return [{"setting": f"{100 * share:.4g} %", "fraction": share} for share in self.shares]

    def key(self, place: Row) -> str:
        return self.protocol.key(place["inputs"], place["fraction"], place["seed"])

    def run(self, place: Row) -> tuple[Row, tuple[str, str], Predictions]:
        """Figures, name and text of the file of predictions, the predictions."""
        row, _, judged = self.protocol.run(place["inputs"], place["fraction"], place["seed"])
        said = Predictions(list(range(len(judged.gold))), judged.gold, judged.predicted)
        return row, prediction_file(row, judged), said

    def facts(self, row: Row) -> Row:
        """What the row of a fine-tuned classifier is in this table."""
        return {"protocol": "fine-tuning", "score": row["dev"] if row["test"] is None else row["test"]}


class _Tested:
    """The few-shot tests of one model on one data set, whose sentences are encoded once for each input setting."""

    def __init__(self, encoder: Any, data: Any, tasks: list[FewShot], inputs: Iterable[str], max_length: int) -> None:
        self.encoder, self.data, self.max_length = encoder, data, max_length
        self.tasks = {_shape(task): task for task in tasks}
        self._identity: list[Any] | None = None
        self._encoded: tuple[str, np.ndarray] | None = None
        for task in tasks:
            task._check_threshold()
            task._check(data)
        for part in _encoders(encoder):
            part._input_tokens(part._as_corpus(data, max_length, False)[0], inputs)

    def settings(self) -> list[Row]:
        """What tells the tests of one input setting and seed apart."""
        return [{"setting": name, "way": task.n_way, "shot": task.k_shot} for name, task in self.tasks.items()]

    def key(self, place: Row) -> str:
        if self._identity is None:
            own = [encoder_identity(self.encoder), projection_identity(self.encoder)]
            self._identity = ["few-shot", own, data_identity(self.data), self.max_length]
        task = {**self.tasks[place["setting"]].get_params(), "seed": place["seed"]}
        return run_key([self._identity, task, place["inputs"]])

    def run(self, place: Row) -> tuple[Row, tuple[str, str], Predictions]:
        """Figures, name and text of the file of predictions, the predictions."""
        task = FewShot(**{**self.tasks[place["setting"]].get_params(), "seed": place["seed"]})
        vectors, threads = self._vectors(place["inputs"]), getattr(self.encoder, "num_threads", None)
        labels = self.data.labels
        numbers = {name: number for number, name in enumerate(labels)}
        relation = np.array([numbers[instance.relation] for instance in self.data], np.int32)
        result = task.score(vectors, relation, inputs=place["inputs"], num_threads=threads)
        episodes = task.draw(self.data)
        ways = np.append(relation[episodes.support[:, :, 0]], np.full((len(episodes), 1), len(labels)), axis=1)
        each = np.arange(len(episodes))
        gold, predicted = (
            ways[each, way] for way in (episodes.answers, task.answer(vectors, episodes, num_threads=threads))
        )
        packed = {"relations": [*labels, _NONE], "row": episodes.query, "gold": gold, "predicted": predicted}
        line = {name: getattr(value, "tolist", lambda value=value: value)() for name, value in packed.items()}
        name = f"{place['inputs']}-{_shape(task)}-{place['seed']}".replace(" ", "-")
        row = {"metric": "accuracy", "sentences": len(self.data), **result.to_dict()}
        return row, (name, json_text(line) + "\n"), _unpacked(line)

    def facts(self, row: Row) -> Row:
        """What the row of a few-shot test is in this table."""
        return {"protocol": "few-shot", "score": row["accuracy"]}

    def _vectors(self, inputs: str) -> np.ndarray:
        if self._encoded is None or self._encoded[0] != inputs:
            made = self.encoder.encode(self.data, inputs=inputs, max_length=self.max_length, show_progress_bar=False)
            self._encoded = inputs, made
        return self._encoded[1]


def _unpacked(line: Row) -> Predictions:
    names = line["relations"]
    return Predictions(line["row"], *([names[number] for number in line[key]] for key in ("gold", "predicted")))


def _shape(task: FewShot) -> str:
    return f"{task.n_way}-way {task.k_shot}-shot"


def _encoders(encoder: Any) -> list[Any]:
    """The encoders that read sentences: one, or those of a hybrid."""
    parts = getattr(encoder, "encoders", None)
    if parts is not None:
        return [inner for part in parts for inner in _encoders(part)]
    return [encoder] if hasattr(encoder, "_as_corpus") else []


# -- what is given ----------------------------------------------------------------------------------------------------


def _models(models: Any) -> dict[str, Any]:
    """The encoders by their labels."""
    named: list[tuple[str | None, Any]]
    if isinstance(models, Mapping):
        named = list(models.items())
    else:
        one = isinstance(models, (str, os.PathLike)) or hasattr(models, "encode")
        named = [(None, model) for model in ([models] if one else models)]
    found: dict[str, Any] = {}
    for given, model in named:
        encoder = open_encoder(model) if isinstance(model, (str, os.PathLike)) else model
        if not hasattr(encoder, "encode") and not hasattr(encoder, "_as_corpus"):
            raise TypeError(f"a model is a {type(encoder).__name__}; give a name, a folder, or an encoder")
        label = given if given is not None else _label(encoder)
        if label in found:
            raise ValueError(f"two models are called {label!r}; give a mapping of labels to models")
        found[label] = encoder
    return found


def _label(encoder: Any) -> str:
    """The last part of its name, which may be a path; those of a hybrid's parts."""
    parts = getattr(encoder, "encoders", None)
    if parts is not None:
        return " + ".join(map(_label, parts))
    return Path(getattr(encoder, "name", "")).name or type(encoder).__name__


def splits_of(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The files of a folder that are called train, dev (val, valid) and test.

    Raises:
        ValueError: no train file, or several for one of them.
    """
    found: dict[str, str] = {}
    for split, stems in _SPLITS.items():
        files = [path for path in sorted(Path(folder).iterdir()) if path.is_file() and path.name.split(".")[0] in stems]
        if len(files) > 1:
            raise ValueError(f"{folder} has {', '.join(path.name for path in files)}; name the one for {split}")
        if files:
            found[split] = str(files[0])
    if "train" not in found:
        raise ValueError(f"{folder} has no file called train; give {{'train': …, 'dev': …, 'test': …}}")
    return found


def _data_sets(data: Any) -> dict[str, Any]:
    """Data sets by name."""
    if not isinstance(data, Mapping) or data.keys() & _SPLITS.keys():
        return {_data_name(data): data}
    return dict(data)


def _data_name(data: Any) -> str:
    if isinstance(data, Mapping):
        data = data.get("train")
    if isinstance(data, (str, os.PathLike)):
        return Path(data).name
    return str(getattr(data, "name", "data"))


def _parts(name: str, data: Any) -> Any:
    """A dict of the parts to fine-tune on, or the Dataset of a few-shot test."""
    from relpt.data.reading import as_dataset

    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        data = splits_of(data)
    if not isinstance(data, Mapping):
        return as_dataset(data)[0]
    unknown = [key for key in data if key not in _SPLITS]
    if unknown or data.get("train") is None:
        what = f"a part {unknown[0]!r}" if unknown else "no train"
        raise ValueError(f"data set {name!r} has {what}; expected train, and dev or test or both")
    return {key: as_dataset(part)[0] for key, part in data.items() if part is not None}


def _tasks(few_shot: FewShot | Iterable[FewShot] | None, sets: Mapping[str, Any], options: Row) -> list[FewShot]:
    tested = [name for name, data in sets.items() if not isinstance(data, dict)]
    if few_shot is not None and not tested:
        raise ValueError("few_shot is given, but every data set has training sentences; give labelled data to test on")
    unused = [name for name in options if name != "max_length"]
    if len(tested) == len(sets) and unused:
        raise TypeError(f"option {unused[0]!r} is for fine-tuning, but no data set has training sentences (train)")
    tasks = [FewShot()] if few_shot is None else [few_shot] if isinstance(few_shot, FewShot) else list(few_shot)
    shapes = [_shape(task) for task in tasks]
    if len(set(shapes)) < len(shapes):
        raise ValueError("two few-shot tasks have the same ways and shots; give each in an ablation of its own")
    return tasks
