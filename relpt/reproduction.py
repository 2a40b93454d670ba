"""Tables of the papers as one call: data, pre-training, evaluation and report of a reproduction kit (relpt/recipes)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from relpt import analysis
from relpt.ablation import Ablation, Comparison, Predictions, ablate
from relpt.fewshot import FewShot
from relpt.files import check_can_write, read_json, write_into, write_json
from relpt.metrics import measures_of
from relpt.recipes import SPLITS, Agreement, Evaluation, Expected, Kit, Model, Training, load_kit, objectives_of
from relpt.runs import Row, data_identity, encoder_identity, run_key

__all__ = ["Finding", "Reproduction", "SettingPair", "reproduce"]

_DONE: Final = "training.json"
_CHECKPOINT_EVERY: Final = 100
_ERROR: Final = 0.05
_PLACE: Final = ("data", "setting", "inputs", "model")
_OWN: Final = ("representation", "prompt", "markers", "marker_order")


# -- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What the paper says, held against one place of our table.

    Attributes:
        says: the paper's words.
        found: the comparison, None where it was not run.
        verdict: "confirmed", "denied", "open" (the difference may be chance) or "not run".
    """

    says: str
    found: Comparison | None
    verdict: str


@dataclass(frozen=True)
class SettingPair:
    """Two input settings of a model: the request, its figures, the sentences on which they differ.

    Attributes:
        figures: "shared right" and "shared wrong", the shares of a's right and wrong predictions that b has too, and
            the fields of ``relpt.analysis.Agreement``.
    """

    asked: Agreement
    figures: dict[str, float]
    cases: analysis.Cases


@dataclass(frozen=True, repr=False)
class Reproduction:
    """What ``reproduce`` found; ``report`` in ``output`` shows it.

    Attributes:
        kit: the kit at its scale.
        output: the folder of models, runs and report.
        ablations: the tables, by the evaluation's name.
        trained: by model, how it was trained: objectives, sentences, steps, loss_first, loss_last.
        findings: the paper's judgements, each at every place of the tables.
        pairs, complementarities, counts: the paper's analyses by their names.
        left_out: what was not run, and why.
        sentences: of each data set and split that was read.
        versions: of the libraries, and the machine.
    """

    kit: Kit
    output: Path
    ablations: dict[str, Ablation]
    trained: dict[str, Row]
    findings: list[Finding]
    pairs: dict[str, SettingPair]
    complementarities: dict[str, analysis.Complementarity]
    counts: dict[str, dict[str, list[Any]]]
    left_out: list[str]
    sentences: dict[str, int]
    versions: Row

    def published(self, data: str, setting: str, inputs: str, model: str) -> float | None:
        """The paper's figure for a place of our table; None where it has none."""
        name = self.kit.data[data].stands_for or data
        for block in self.kit.published:
            if (block.data, block.setting) == (name, setting) and inputs in block.inputs and model in block.figures:
                return block.figures[model][block.inputs.index(inputs)]
        return None

    def summary(self) -> list[Row]:
        """The tables' places, as ``Ablation.summary`` has them, each with its evaluation and the published figure."""
        return [
            {"evaluation": name, **item, "published": self.published(*(item[key] for key in _PLACE))}
            for name, ablation in self.ablations.items()
            for item in ablation.summary()
        ]

    def to_markdown(self) -> str:
        """The report without its figures."""
        from relpt.report.page import markdown_page
        from relpt.report.reproduction import blocks_of, lead_of, title_of

        return markdown_page(title_of(self), lead_of(self), blocks_of(self, figures=False))

    def to_dict(self) -> Row:
        """Plain values: kit, scale, results, findings, what was left out."""
        findings = [
            {"says": item.says, "verdict": item.verdict, **(item.found._asdict() if item.found is not None else {})}
            for item in self.findings
        ]
        pairs = {name: {**vars(pair.asked), "figures": pair.figures} for name, pair in self.pairs.items()}
        both = {
            name: {"a": item.a.accuracy, "b": item.b.accuracy, "both": item.both.accuracy, "cka": item.cka}
            for name, item in self.complementarities.items()
        }
        return {
            "kit": self.kit.name,
            "scale": self.kit.scale,
            "results": self.summary(),
            "findings": findings,
            "agreement": pairs,
            "complementarity": both,
            "statistics": self.counts,
            "trained": self.trained,
            "left_out": self.left_out,
            "differences": self.kit.differences,
            "changes": [dict(zip(("key", "full", "here"), change, strict=True)) for change in self.kit.changes],
        }

    def __repr__(self) -> str:
        runs = sum(len(ablation.rows) for ablation in self.ablations.values())
        return f"<relpt.Reproduction: {self.kit.name}, {self.kit.scale} scale, {runs} runs, in {self.output}>"


# -- running ----------------------------------------------------------------------------------------------------------


def reproduce(
    recipe: str | Path,
    data: str | Path = "data",
    *,
    scale: str = "small",
    output: str | Path | None = None,
    settings: Iterable[str] = (),
    skip_missing: bool = False,
    num_threads: int | None = None,
    say: Callable[[str], object] = lambda text: None,
    on_row: Callable[[Row, float | None], Any] | None = None,
    callbacks_of: Callable[[int], list[Any]] = lambda steps: [],
    show_progress_bar: bool | None = None,
) -> Reproduction:
    """Runs a reproduction kit: trains its models, evaluates them, and writes a report with the published figures.

    Every run is kept in ``output`` as soon as it is there, training in steps of 100: called again, the same goes on
    where it was.

    Args:
        recipe: a kit's name (``relpt.recipes.kit_names()``), or the path of a TOML file in its form.
        data: the folder of the data sets; an error names the files that are missing and where they come from.
        scale: "small", for two cores, or "full".
        output: folder for models, runs, report.md and report.html; None: reproduce/NAME-SCALE.
        settings: lines of TOML over the kit, such as "models.CP.train.max_steps = 30".
        skip_missing: leave out the data sets whose files are missing, and what needs them, and say so in the report.
        num_threads: of the core; None takes the CPUs that this process may use.
        say: called with each line for the reader.
        on_row: as in ``relpt.ablate``.
        callbacks_of: further callbacks of a training run, given its number of steps.
        show_progress_bar: None shows bars in a notebook or on a terminal.

    Raises:
        FileNotFoundError: no such kit; files are missing.
        FormatError: the kit has a key or value that it cannot have.
        KeyboardInterrupt: Ctrl-C; what is done is in ``output``.
    """
    from relpt.report.reproduction import write_reproduction

    kit = load_kit(recipe, scale, settings)
    folder = Path("reproduce") / f"{kit.name}-{kit.scale}" if output is None else Path(output)
    run = _Run(kit, Path(data), folder, num_threads, say, on_row, callbacks_of, show_progress_bar)
    run.check_files(skip_missing)
    check_can_write(folder, "-o")  # rather than after the training
    result = run.all()
    write_reproduction(result)
    return result


@dataclass
class _Run:
    """One call of ``reproduce``."""

    kit: Kit
    data: Path
    output: Path
    num_threads: int | None
    say: Callable[[str], object]
    on_row: Callable[[Row, float | None], Any] | None
    callbacks_of: Callable[[int], list[Any]]
    show: bool | None
    missing: set[str] = field(default_factory=set)  # data sets
    left_out: list[str] = field(default_factory=list)
    trained: dict[str, Row] = field(default_factory=dict)
    sentences: dict[str, int] = field(default_factory=dict)
    _models: dict[str, Any] = field(default_factory=dict)
    _sources: dict[str, Path | str] = field(default_factory=dict)
    _loaded: dict[tuple[str, str], Any] = field(default_factory=dict)

    # -- what there is -----------------------------------------------------------------------------------------------

    def check_files(self, skip: bool) -> None:
        """Refuses to begin without all files, or notes whose are missing."""
        used = {name: self.kit.data[name] for name in self._used_data()}
        absent = {
            name: [file for file in one.files() if not (self.data / file).is_file()] for name, one in used.items()
        }
        absent = {name: files for name, files in absent.items() if files}
        self.missing = set(absent)
        total = sum(len(one.files()) for one in used.values())
        if absent and (not skip or len(absent) == len(used)):
            wanted = "; ".join(
                f"{', '.join(files)} – {used[name].what} ({used[name].origin})" for name, files in absent.items()
            )
            count = sum(map(len, absent.values()))
            rest = ", or leave out what needs them by --skip-missing" if len(absent) < len(used) else ""
            raise FileNotFoundError(
                f"{self.data}: {count} of the {total} files of {self.kit.name} ({self.kit.scale} scale) are not there: "
                f"{wanted}. Put them there, or name another folder{rest}"
            )
        for name, files in absent.items():
            self.left_out.append(f"{name}: {', '.join(files)} not in {self.data} ({used[name].origin})")
        for name in self.kit.models:
            if not self._can(name):
                self.left_out.append(f"model {name}: its data are missing")

    def _used_data(self) -> list[str]:
        """The data sets that something reads."""
        names = [name for run in self.kit.evaluate.values() for name in run.data]
        names += [both.data for both in self.kit.complementarity.values()]
        names += [name for counts in self.kit.statistics.values() for name in counts.data]
        for name in self._used_models():
            names += self.kit.models[name].data_sets()
        return list(dict.fromkeys(names))

    def _used_models(self) -> list[str]:
        """The models that something evaluates, and those that they are made from, in the kit's order."""
        wanted = [name for run in self.kit.evaluate.values() for name in run.models or self.kit.models]
        wanted += [name for both in self.kit.complementarity.values() for name in (both.a, both.b)]
        for name in wanted:
            wanted += [parent for parent in self.kit.models[name].parents() if parent not in wanted]
        return [name for name in self.kit.models if name in wanted]

    def _can(self, name: str) -> bool:
        """Whether the data of a model, and of those it is made from, are there."""
        model = self.kit.models[name]
        return not self.missing & {*model.data_sets()} and all(map(self._can, model.parents()))

    def load(self, name: str, split: str) -> Any:
        """A data set's sentences, or None where it has no such split."""
        from relpt.data import load

        one = self.kit.data[name]
        files = getattr(one, split)
        if not files:
            return None
        if (name, split) not in self._loaded:
            paths = [str(self.data / file) for file in ([files] if isinstance(files, str) else files)]
            found = load(paths if len(paths) > 1 else paths[0], format=one.format, name=f"{name} {split}")
            if split in one.patches:
                found = found.relabel(self.data / one.patches[split], drop_missing=one.drop_missing)
            self._loaded[name, split] = found
            self.sentences[f"{name}, {split}"] = len(found)
        return self._loaded[name, split]

    @cached_property
    def types(self) -> list[str]:
        """The types of entities in all data, for typed markers."""
        vectors = {model.vectors for model in self.kit.models.values()}
        names = [name for name in self._used_data() if name not in self.missing | vectors]
        sets = [found for name in names for found in self._parts(name).values()]
        return list(dict.fromkeys(kind for found in sets for kind in found.types))

    # -- models ------------------------------------------------------------------------------------------------------

    def model(self, name: str) -> Any:
        """A model of the kit, trained where it is to be."""
        if name not in self._models:
            self._models[name] = self._made(name, self.kit.models[name])
        return self._models[name]

    def _made(self, name: str, model: Model) -> Any:
        from relpt.hybrid import EntityTable, HybridEncoder

        if model.join:
            return HybridEncoder(*map(self.model, model.join), weights=model.weights)
        if model.entities is not None:
            sentences = self.load(str(model.data), "train")
            return EntityTable.from_corpus(self.model(model.entities), sentences, show_progress_bar=self.show)
        if model.cnn is not None:
            return self._network(name, model)
        self._sources[name] = self._source(model)
        if model.train is None:
            return self._opened(name, model)
        self._sources[name] = self._trained(name, model, model.train)
        return self._opened(name, model)

    def _network(self, name: str, model: Model) -> Any:
        """A network of words, as it is before any training."""
        from relpt.cnn import CNNEncoder

        options = {**(model.cnn or {}), "vectors": None}
        if model.vectors:
            options["vectors"] = self.data / str(self.kit.data[model.vectors].train)
        sentences = self.load(str(model.data), "train")
        return CNNEncoder.from_data(sentences, name=name, num_threads=self.num_threads, **options)

    def _source(self, model: Model) -> Path | str:
        """The name or folder that the encoder is opened from."""
        if model.start is not None:
            self.model(model.start)
            return self._sources[model.start]
        return model.encoder or str(self.kit.encoder.get("name", "minilm"))

    def _opened(self, name: str, model: Model) -> Any:
        from relpt.encoder import Encoder

        options = {key: value for key, value in self.kit.encoder.items() if key != "name"}
        options |= {key: getattr(model, key) for key in _OWN if getattr(model, key) is not None}
        if str(options.get("markers", "")).startswith("typed"):
            options["types"] = self.types
        return Encoder.from_pretrained(self._sources[name], num_threads=self.num_threads, **options)

    def _trained(self, name: str, model: Model, run: Training) -> Path:
        """The folder of the trained encoder, which is made unless it is there."""
        from relpt.trainer import Trainer

        encoder = self._opened(name, model)
        sentences = self.load(run.data, "train")
        key = run_key([encoder_identity(encoder), run.objectives, run.options, data_identity(sentences)])
        folder = self.output / "models" / f"{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}-{key[:8]}"
        if not (folder / _DONE).is_file():
            trainer = Trainer(encoder, objectives=objectives_of(run), **run.options)
            steps = int(trainer.options["max_steps"])
            self.say(f"train {name}: {_named(run)}, {steps:,} steps on {len(sentences):,} sentences of {run.data}")
            history = trainer.fit(
                sentences,
                callbacks=self.callbacks_of(steps),
                checkpoint_dir=folder / "checkpoints",
                checkpoint_every=_CHECKPOINT_EVERY,
                resume=True,
                show_progress_bar=self.show,
            )
            if history.status == "interrupted":
                raise KeyboardInterrupt
            encoder.save_pretrained(folder)
            facts = {"objectives": _named(run), "data": run.data, "sentences": len(sentences), "steps": len(history)}
            facts |= {"loss_first": history[0]["loss"], "loss_last": history[-1]["loss"]}
            with write_into(folder) as new:
                write_json(new / _DONE, facts)
            shutil.rmtree(folder / "checkpoints")
        else:
            self.say(f"train {name}: done before")
        self.trained[name] = read_json(folder / _DONE)
        return folder

    # -- evaluation --------------------------------------------------------------------------------------------------

    def all(self) -> Reproduction:
        """Everything that the kit asks for."""
        from relpt.info import facts_of_machine

        ablations = {name: self._ablation(name, run) for name, run in self.kit.evaluate.items()}
        ablations = {name: made for name, made in ablations.items() if made.rows}
        pairs = {name: self._pair(asked, ablations[asked.evaluate]) for name, asked in self.kit.agreement.items()
                 if self._has(ablations, asked)}  # fmt: skip
        both = {name: self._complementarity(name) for name, asked in self.kit.complementarity.items()
                if asked.data not in self.missing and self._can(asked.a) and self._can(asked.b)}  # fmt: skip
        counts = {
            name: {
                data: [self._count(data, what) for what in asked.show]
                for data in asked.data
                if data not in self.missing
            }
            for name, asked in self.kit.statistics.items()
        }
        facts = facts_of_machine()
        return Reproduction(
            kit=self.kit,
            output=self.output,
            ablations=ablations,
            trained=self.trained,
            findings=[found for claim in self.kit.expected for found in _findings(claim, ablations)],
            pairs=pairs,
            complementarities=both,
            counts=counts,
            left_out=self.left_out,
            sentences=self.sentences,
            versions={**facts["versions"], "CPU": facts["cpu"]["name"], "CPU level": facts["cpu"]["level"]},
        )

    def _ablation(self, name: str, run: Evaluation) -> Ablation:
        """The tables of all data sets of an evaluation as one."""
        models = {model: self.model(model) for model in run.models or self.kit.models if self._can(model)}
        alike: dict[str, dict[str, Any]] = {}  # models that are fine-tuned by the same options are one table
        for model, made in models.items():
            alike.setdefault(repr(self.kit.models[model].tuning), {})[model] = made
        sets = [data for data in run.data if data not in self.missing]
        tables = [self._table(name, run, data, group) for data in sets for group in alike.values()]
        rows = [row for table in tables for row in table.rows]
        said = {row["key"]: table._said for table in tables for row in table.rows}
        return Ablation(rows, sum(table.computed for table in tables), lambda key: said[key](key))

    def _table(self, name: str, run: Evaluation, data: str, models: dict[str, Any]) -> Ablation:
        """One data set's table of models that are tuned alike; its fractions are called after the whole training data,
        of which a part may be held."""
        holds = self.kit.data[data].holds
        few = run.protocol == "few-shot"
        given: Any = self.load(data, "test") if few else self._parts(data)
        shares = {round(share / holds, 9): share for share in run.fractions if few or share <= holds}
        gone = [f"{100 * share:.4g} %" for share in run.fractions if not few and share > holds]
        without = f"{data}: {', '.join(gone)} of the training data, of which {100 * holds:.4g} % are there"
        if gone and without not in self.left_out:
            self.left_out.append(without)
        if not shares:
            return Ablation([], 0, dict[str, Predictions]().__getitem__)
        self.say(f"{name}: {run.protocol} on {data}, {', '.join(models)}")
        tasks = [
            FewShot(n_way=way, k_shot=shot, episodes=run.episodes, similarity=run.similarity)
            for way in run.way
            for shot in run.shot
        ]
        found = ablate(
            models,
            {data: given},
            run.inputs,
            list(shares),
            run.seeds,
            few_shot=tasks if few else None,
            metric=run.metric,
            negative=run.negative,
            output=self.output / "runs",
            on_row=self.on_row,
            show_progress_bar=self.show,
            **(run.options if few else {**run.options, **self.kit.models[next(iter(models))].tuning}),
        )
        rows = found.rows if few else [
            {**row, "setting": f"{100 * shares[row['fraction']]:.4g} %"} for row in found.rows
        ]  # fmt: skip
        return Ablation(rows, found.computed, found._said)

    def _parts(self, data: str) -> dict[str, Any]:
        """The splits that a data set has."""
        return {split: found for split in SPLITS if (found := self.load(data, split)) is not None}

    def _has(self, ablations: dict[str, Ablation], asked: Agreement) -> bool:
        rows = ablations[asked.evaluate].rows if asked.evaluate in ablations else []
        return any((row["data"], row["model"]) == (asked.data, asked.model) for row in rows)

    def _pair(self, asked: Agreement, table: Ablation) -> SettingPair:
        """Two settings' predictions with the most training data and the first seed."""
        place = table.select(data=asked.data, model=asked.model, inputs=asked.a)[-1]
        seed = table.rows[0]["seed"]
        where = {"data": asked.data, "model": asked.model, "setting": place["setting"], "seed": seed}
        a, b = (table.predictions(inputs=inputs, **where) for inputs in (asked.a, asked.b))
        found = analysis.agreement(a.gold, a.predicted, b.predicted)
        right, wrong = found.both_right + found.only_a, found.both_wrong + found.only_b
        shares = {
            "shared right": found.both_right / right if right else 0.0,
            "shared wrong": found.same_wrong / wrong if wrong else 0.0,
        }
        sentences = self.load(asked.data, "test") or self.load(asked.data, "dev")
        cases = analysis.cases(sentences, a.gold, {asked.a: a.predicted, asked.b: b.predicted}, limit=asked.cases)
        return SettingPair(asked, shares | found._asdict(), cases)

    def _complementarity(self, name: str) -> analysis.Complementarity:
        asked = self.kit.complementarity[name]
        self.say(f"{name}: {asked.a} and {asked.b} on {asked.data}")
        sentences = self.load(asked.data, "test")
        a, b = (
            self.model(model).encode(sentences, inputs=asked.inputs, show_progress_bar=self.show)
            for model in (asked.a, asked.b)
        )
        return analysis.complementarity(
            a,
            b,
            [instance.relation for instance in sentences],
            names=(asked.a, asked.b),
            inputs=asked.inputs,
            n_way=asked.way,
            k_shot=asked.shot,
            episodes=asked.episodes,
            num_threads=self.num_threads,
        )

    def _count(self, data: str, what: str) -> float | int | None:
        """A figure of ``Statistics.show``; None where the data set has no such split."""
        parts = self._parts(data)
        if what in SPLITS:
            return len(parts[what]) if what in parts else None
        if what.endswith("%"):
            share = round(float(what[:-1]) / 100 / self.kit.data[data].holds, 9)
            return len(parts["train"].fraction(share)) if "train" in parts and share <= 1 else None
        counts: dict[str, int] = {}
        for part in parts.values():
            for label, count in part.label_counts().items():
                counts[label] = counts.get(label, 0) + count
        if what == "relations":
            return len(counts)
        negative = measures_of(list(counts)).negative
        total = sum(counts.values())
        return total if what == "instances" else None if negative is None else counts[negative] / total


def _named(run: Training) -> str:
    return " + ".join(item["type"].upper() for item in run.objectives)


def _findings(claim: Expected, ablations: dict[str, Ablation]) -> list[Finding]:
    """The claim at every place of the table that has both; one that was not run, where none has."""
    table = ablations.get(claim.evaluate)
    try:
        found = [] if table is None else table.compare(claim.above, claim.below, **claim.where)
    except ValueError:  # one of the two was left out, and the report says why
        found = []
    return [Finding(claim.says, one, _verdict(one)) for one in found] or [Finding(claim.says, None, "not run")]


def _verdict(found: Comparison) -> str:
    """By the interval over seeds; for one seed by the test over sentences."""
    sure = found.p_sentences < _ERROR if found.ci95 is None else abs(found.difference) > found.ci95
    return "open" if not sure or found.difference == 0 else "confirmed" if found.difference > 0 else "denied"
