"""Reproduction kits: TOML files that say what a table of a paper takes, at full scale and at one for two cores.

A kit is data alone. Its tables, of which only ``data`` and one of the last four kinds have to be there:

- ``paper``, ``table``, ``about``: the source, the table in it, what it shows;
- ``encoder``: name and options of the encoder that models start from (``Encoder.from_pretrained``);
- ``data.NAME``: files below the user's folder, and where they come from (``DataSet``);
- ``models.NAME``: an encoder, trained, joined or looked up (``Model``);
- ``evaluate.NAME``: a run of ``relpt.ablate`` (``Evaluation``);
- ``agreement.NAME``, ``complementarity.NAME``, ``statistics.NAME``: the papers' analyses;
- ``published``: figures as printed, in the table's own form (``Published``);
- ``expected``: which of two is above the other, in the paper's judgement (``Expected``);
- ``differences``: what the kit does otherwise than the paper, a sentence each.

``small`` holds what the scale for two cores has otherwise: its tables are merged into those of the same name, its
values and lists replace them, and its ``differences`` come behind the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, get_origin, get_type_hints

from relpt.errors import FormatError
from relpt.settings import _describe, _fits

__all__ = [
    "SCALES",
    "Agreement",
    "Complementarity",
    "DataSet",
    "Evaluation",
    "Expected",
    "Kit",
    "Model",
    "Published",
    "Statistics",
    "Training",
    "kit_names",
    "load_kit",
    "objectives_of",
]

SCALES: Final = ("small", "full")
PROTOCOLS: Final = ("fine-tuning", "few-shot")
ENCODER_OPTIONS: Final = ("name", "representation", "prompt", "markers", "marker_order", "dtype", "device")
SPLITS: Final = ("train", "dev", "test")
COUNTS: Final = ("relations", "instances", "negative", *SPLITS)
_FOLDER: Final = Path(__file__).parent
_Table = dict[str, Any]


# -- what a kit holds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Files of a data set, each a path below the user's folder, and where to get them.

    Attributes:
        what, origin: what it is; where it comes from, with its licence where that binds.
        train, dev, test: a file, or several that are read as one.
        format: as in ``relpt.load``.
        patches: by split, files of corrected relations (``Dataset.relabel``).
        drop_missing: as in ``Dataset.relabel``.
        holds: share of the published training sentences that ``train`` holds.
        stands_for: the data set of the paper in whose place it is used, and whose figures stand beside its own.
    """

    what: str
    origin: str
    train: str | list[str] | None = None
    dev: str | list[str] | None = None
    test: str | list[str] | None = None
    format: str | None = None
    patches: Mapping[str, str] = field(default_factory=dict)
    drop_missing: bool | None = None
    holds: float = 1.0
    stands_for: str | None = None

    def files(self) -> list[str]:
        """All paths."""
        found: list[str] = []
        for split in SPLITS:
            value = getattr(self, split)
            found += [value] if isinstance(value, str) else value or []
        return [*found, *self.patches.values()]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run of ``relpt.Trainer``.

    Attributes:
        data: whose training sentences.
        objectives: tables of ``type`` (cp, mlm, mtb, …) and the objective's own options.
        options: of the trainer; in the file they stand beside the other two.
    """

    data: str
    objectives: list[Any]
    options: _Table


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder to evaluate. Without ``start``, ``join``, ``entities`` and ``cnn`` it is the kit's encoder.

    Attributes:
        start: the model that it goes on from.
        join: models whose vectors stand side by side (``HybridEncoder``), with ``weights``.
        entities: the model whose embeddings are averaged for each entity of ``data`` (``EntityTable``).
        cnn: options of a network of words (``CNNEncoder.from_data``), whose words are those of ``data``; its
            ``vectors`` names the data set whose ``train`` is the file of word vectors; "": they are drawn.
        data: of ``entities`` and ``cnn``.
        encoder, representation, prompt, markers, marker_order: in place of the kit's.
        train: what it is trained by.
        tuning: options of ``relpt.Classifier`` in place of the evaluation's.
    """

    start: str | None = None
    join: list[str] = field(default_factory=list)
    weights: list[float] | None = None
    entities: str | None = None
    cnn: _Table | None = None
    data: str | None = None
    encoder: str | None = None
    representation: str | None = None
    prompt: str | None = None
    markers: str | None = None
    marker_order: str | None = None
    train: Training | None = None
    tuning: _Table = field(default_factory=dict)

    def parents(self) -> list[str]:
        """The models that it is made from."""
        return [name for name in (self.start, self.entities, *self.join) if name is not None]

    def data_sets(self) -> list[str]:
        """The data sets that it is made from."""
        return [name for name in (self.data, self.train and self.train.data, self.vectors) if name]

    @property
    def vectors(self) -> str:
        """The data set whose file has the word vectors of ``cnn``; "" where there is none."""
        return str((self.cnn or {}).get("vectors", ""))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A run of ``relpt.ablate``; arguments by their names there.

    Attributes:
        protocol: "fine-tuning" or "few-shot", whose sentences are those of ``test``.
        models: all of the kit's, if none are named.
        statistic: "mean" or "median", what the report's tables show.
        options: of ``relpt.Classifier``; ``max_length`` also for few-shot tests.
    """

    protocol: str
    data: list[str]
    models: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=lambda: ["C+M", "OnlyC", "OnlyM"])
    seeds: list[int] = field(default_factory=lambda: [42, 43, 44, 45, 46])
    fractions: list[float] = field(default_factory=lambda: [1.0])
    statistic: str = "mean"
    metric: str | None = None
    negative: str | None = None
    way: list[int] = field(default_factory=lambda: [5])
    shot: list[int] = field(default_factory=lambda: [1])
    episodes: int = 10_000
    similarity: str = "cosine"
    options: _Table = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What two input settings of a model have in common, by the predictions of a fine-tuning evaluation's first seed.

    Attributes:
        evaluate: the evaluation.
        data, model, a, b: the data set, the model, the two settings.
        cases: sentences to list on which they differ.
        published: figures of the same names as the report's.
    """

    evaluate: str
    data: str
    model: str
    a: str
    b: str
    cases: int = 10
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Complementarity:
    """How much two models' vectors add to each other (``relpt.analysis.complementarity``), on ``data``'s test."""

    a: str
    b: str
    data: str
    inputs: str = "C+M"
    way: int = 5
    shot: int = 1
    episodes: int = 10_000


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts of data sets.

    Attributes:
        data: which.
        show: "relations", "instances", "negative" (share of the class that means no relation), "train", "dev", "test",
            or a share of the training data such as "10 %".
        published: by data set, the figures in the order of ``show``; "–" where the paper has none.
    """

    data: list[str]
    show: list[str]
    published: Mapping[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A block of a printed table: one data set and setting ("10 %", "5-way 1-shot"), models by input settings."""

    data: str
    setting: str
    inputs: list[str]
    figures: Mapping[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """That ``above`` has the higher figures than ``below``, each what ``Ablation.compare`` takes.

    Attributes:
        says: the paper's words, short, with the section.
        evaluate: the evaluation.
        where: fields that hold for both.
    """

    says: str
    evaluate: str
    above: str | Mapping[str, str]
    below: str | Mapping[str, str]
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A reproduction kit at one scale; see the module for its parts.

    Attributes:
        name, scale: of the kit.
        changes: what this scale, or the user, changed: key, its value at full scale, its value here.
    """

    name: str
    scale: str
    paper: str
    table: str
    about: str
    data: dict[str, DataSet]
    encoder: _Table = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    evaluate: dict[str, Evaluation] = field(default_factory=dict)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    complementarity: dict[str, Complementarity] = field(default_factory=dict)
    statistics: dict[str, Statistics] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    changes: list[tuple[str, Any, Any]] = field(default_factory=list)


# -- reading ----------------------------------------------------------------------------------------------------------


def kit_names() -> list[str]:
    """The kits that relpt ships."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_kit(recipe: str | Path, scale: str = "small", settings: Iterable[str] = ()) -> Kit:
    """Reads a kit.

    Args:
        recipe: the name of one that relpt ships, or the path of a TOML file.
        scale: "small" or "full".
        settings: lines of TOML that are merged over it, such as "models.CP.train.max_steps = 30".

    Raises:
        FileNotFoundError: there is no such kit; names those there are.
        FormatError: a key or value that a kit cannot have; names file or setting, key, what it got and what it expects.
    """
    from relpt.inputs import choice

    choice(scale, SCALES, "scale")
    path = _find(recipe)
    full = _parsed(path.read_text(encoding="utf-8"), str(path))
    small = full.pop("small", {})
    _check(small, dict, f"{path}: small")
    shipped = _merged(full, small) if scale == "small" else full
    over = {f"setting {line!r}": _parsed(line, f"setting {line!r}") for line in settings}
    name = {"name": path.stem, "scale": scale}
    table = _laid_over(shipped, over.values())
    try:
        kit = _Reader(str(path)).kit({**table, **name})
    except FormatError:
        _Reader(str(path)).kit({**shipped, **name})  # the file's own fault, if it is one
        _Reader(_faulty(over, shipped, name)).kit({**table, **name})
        raise
    return dataclasses.replace(kit, changes=_changes(full, table))


def _faulty(over: Mapping[str, _Table], shipped: _Table, name: _Table) -> str:
    """The setting without which the kit can be read; all of them where there is not one such."""
    found = []
    for where in over:
        others = [table for other, table in over.items() if other != where]
        with contextlib.suppress(FormatError):
            _Reader(where).kit({**_laid_over(shipped, others), **name})
            found.append(where)
    return found[0] if len(found) == 1 else ", ".join(over)


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.suffix == ".toml":
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file; relpt ships the kits {', '.join(kit_names())}")
        return path
    names = kit_names()
    if str(recipe) not in names:
        near = difflib.get_close_matches(str(recipe), names, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise FileNotFoundError(f"there is no kit {str(recipe)!r}; {hint} (a file of your own ends in .toml)")
    return _FOLDER / f"{recipe}.toml"


def _parsed(text: str, where: str) -> _Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{where}: is no valid TOML ({error})") from None


def _merged(table: _Table, over: _Table) -> _Table:
    """``over`` laid over ``table``: tables are merged, anything else replaced, differences added."""
    found = dict(table)
    for key, value in over.items():
        if key == "differences" and isinstance(value, list) and isinstance(table.get(key), list):
            found[key] = [*table[key], *value]
        elif isinstance(value, dict) and isinstance(table.get(key), dict):
            found[key] = _merged(table[key], value)
        else:
            found[key] = value
    return found


def _laid_over(table: _Table, tables: Iterable[_Table]) -> _Table:
    for over in tables:
        table = _merged(table, over)
    return table


def _changes(full: _Table, here: _Table, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, outermost first; prose and the paper's own figures are left out."""
    found = []
    for key in dict.fromkeys([*full, *here]):
        before, after = full.get(key), here.get(key)
        if before == after or (not prefix and key in ("differences", "expected", "published", "about")):
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += _changes(before, after, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", before, after))
    return found


def _check(value: Any, hint: Any, where: str) -> None:
    if not _fits(value, hint):
        raise FormatError(f"{where} is {value!r}, expected {_describe(hint)}")


class _Reader:
    """Makes a kit of the tables in a file, and says in which key something is wrong."""

    def __init__(self, file: str) -> None:
        self.file = file

    def fail(self, key: str, text: str) -> None:
        raise FormatError(f"{self.file}: {key} {text}")

    def made(self, kind: Any, table: Any, key: str, nested: Mapping[str, Any] | None = None) -> Any:
        """An object of a dataclass from a table; ``nested`` has the values that are made already."""
        nested = nested or {}
        if not isinstance(table, dict):
            self.fail(key, f"is {table!r}, expected a table")
        hints = {name: hint for name, hint in get_type_hints(kind).items() if name not in nested}
        self.values({name: value for name, value in table.items() if name not in nested}, hints, key)
        needed = [f.name for f in dataclasses.fields(kind) if _required(f) and f.name not in {*table, *nested}]
        if needed:
            self.fail(key, f"has no {needed[0]}, expected {_describe(hints[needed[0]])}")
        return kind(**{**table, **nested})

    def values(self, table: Mapping[str, Any], hints: Mapping[str, Any], key: str) -> None:
        """Refuses keys that there are not, and values of another type."""
        for name, value in table.items():
            if name not in hints:
                near = difflib.get_close_matches(name, hints, 3, 0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(hints)}"
                self.fail(key, f"has a key {name!r}, which there is not; {hint}")
            _check(value, hints[name], f"{self.file}: {key}.{name}")

    def kit(self, table: _Table) -> Kit:
        """The whole kit, its parts and their names checked."""
        parts = (DataSet, Evaluation, Agreement, Complementarity, Statistics)
        named = dict(zip(("data", "evaluate", "agreement", "complementarity", "statistics"), parts, strict=True))
        nested: _Table = {
            key: {name: self.made(kind, value, f"{key}.{name}") for name, value in self.table(table, key).items()}
            for key, kind in named.items()
        }
        nested["models"] = {
            name: self.model(value, f"models.{name}") for name, value in self.table(table, "models").items()
        }
        for key, kind in (("published", Published), ("expected", Expected)):
            _check(table.get(key, []), list[Any], f"{self.file}: {key}")
            nested[key] = [self.made(kind, value, f"{key}[{i}]") for i, value in enumerate(table.get(key, []))]
        kit: Kit = self.made(Kit, table, "the kit", nested)
        self.values(kit.encoder, dict.fromkeys(ENCODER_OPTIONS, str), "encoder")
        self.references(kit)
        return kit

    def table(self, table: _Table, key: str) -> _Table:
        found = table.get(key, {})
        _check(found, dict, f"{self.file}: {key}")
        return dict(found)

    def model(self, table: Any, key: str) -> Model:
        train = table.get("train") if isinstance(table, dict) else None
        nested = {"train": None if train is None else self.training(train, f"{key}.train")}
        model: Model = self.made(Model, table, key, nested)
        if sum(value not in (None, []) for value in (model.start, model.join, model.entities, model.cnn)) > 1:
            self.fail(key, "has two of start, join, entities and cnn; expected one at most")
        if (model.entities is None and model.cnn is None) != (model.data is None):
            self.fail(
                key,
                "has one of entities and data, or of cnn and data; expected both: whose embeddings, averaged over "
                "which sentences, or which network, of which sentences' words",
            )
        if model.train is not None and (model.join or model.entities):
            self.fail(key, "is joined or looked up, and has a train; train the models that it is made of")
        if model.cnn is not None:
            self.cnn(model, key)
        self.tuning(model.tuning, f"{key}.tuning")
        return model

    def cnn(self, model: Model, key: str) -> None:
        """A network's options; the kit trains it by its evaluation alone."""
        from relpt.cnn import CNNEncoder

        given = [name for name in ("encoder", "representation", "prompt", "markers", "marker_order", "train")
                 if getattr(model, name) is not None]  # fmt: skip
        if given:
            self.fail(key, f"has a cnn and {given[0]}; expected data, cnn and tuning alone")
        own = {"vectors": str, "min_count": int, "tags": list[str]}
        hints = {name: hint for name, hint in get_type_hints(CNNEncoder.__init__).items()
                 if name not in ("words", "pos_tags", "ner_tags", "num_threads", "name", "return")}  # fmt: skip
        self.values(model.cnn or {}, hints | own, f"{key}.cnn")

    def training(self, table: Any, key: str) -> Training:
        """The run, its objectives and options tried on the trainer itself."""
        from relpt.objectives import OBJECTIVES
        from relpt.trainer import Trainer, TrainerOptions

        own = {name: hint for name, hint in get_type_hints(Training).items() if name != "options"}
        _check(table, dict, f"{self.file}: {key}")
        options = {name: value for name, value in table.items() if name not in own}
        self.values(options, get_type_hints(TrainerOptions), key)
        run: Training = self.made(Training, {n: v for n, v in table.items() if n in own}, key, {"options": options})
        for i, item in enumerate(run.objectives):
            kind = item.get("type") if isinstance(item, dict) else None
            if kind in OBJECTIVES:
                own = {n: h for n, h in get_type_hints(OBJECTIVES[kind]).items() if get_origin(h) is not ClassVar}
                self.values(item, {"type": str, **own}, f"{key}.objectives[{i}]")
            else:
                self.fail(f"{key}.objectives[{i}]", f"is {item!r}, expected a table with type {', '.join(OBJECTIVES)}")
        try:
            Trainer(None, objectives=objectives_of(run), **options)
        except (ValueError, TypeError) as error:
            self.fail(key, f"cannot be run: {error}")
        return run

    def references(self, kit: Kit) -> None:
        """Refuses names that the kit does not have."""
        for name, model in kit.models.items():
            self.known(model.parents(), kit.models, f"models.{name}", "model")
            self.known(model.data_sets(), kit.data, f"models.{name}", "data set")
        for name, run in kit.evaluate.items():
            key = f"evaluate.{name}"
            wanted = "test" if run.protocol == "few-shot" else "train"
            without = [one for one in run.data if one in kit.data and not getattr(kit.data[one], wanted)]
            if without:
                self.fail(f"data.{without[0]}", f"has no {wanted}, which {key} needs")
            if run.protocol not in PROTOCOLS:
                self.fail(f"{key}.protocol", f"is {run.protocol!r}, expected {' or '.join(PROTOCOLS)}")
            self.known(run.data, kit.data, key, "data set")
            self.known(run.models, kit.models, key, "model")
            self.tuning(run.options, f"{key}.options")
        for name, pair in kit.agreement.items():
            self.known([pair.evaluate], kit.evaluate, f"agreement.{name}", "evaluation")
        for name, both in kit.complementarity.items():
            self.known([both.a, both.b], kit.models, f"complementarity.{name}", "model")
            self.known([both.data], kit.data, f"complementarity.{name}", "data set")
        for name, counts in kit.statistics.items():
            self.known(counts.data, kit.data, f"statistics.{name}", "data set")
            for what in counts.show:
                if what not in COUNTS and not re.fullmatch(r"[0-9.]+ %", what):
                    self.fail(
                        f"statistics.{name}.show", f"holds {what!r}, expected {', '.join(COUNTS)} or such as 10 %"
                    )
        for i, claim in enumerate(kit.expected):
            self.known([claim.evaluate], kit.evaluate, f"expected[{i}]", "evaluation")
            self.sides(claim, kit, f"expected[{i}]")
        for i, block in enumerate(kit.published):
            uneven = [model for model, row in block.figures.items() if len(row) != len(block.inputs)]
            if uneven:
                self.fail(
                    f"published[{i}].figures.{uneven[0]}", f"has not {len(block.inputs)} figures, one for each input"
                )
        if not (kit.evaluate or kit.complementarity or kit.statistics):
            self.fail("the kit", "evaluates nothing; expected evaluate, complementarity or statistics")

    def sides(self, claim: Expected, kit: Kit, key: str) -> None:
        """Refuses a comparison of what the evaluation has not."""
        run = kit.evaluate[claim.evaluate]
        there = {"model": run.models or [*kit.models], "inputs": run.inputs, "data": run.data}
        for name in ("above", "below"):
            side = getattr(claim, name)
            given = side if isinstance(side, Mapping) else {}
            wrong = [value for field, value in given.items() if field in there and value not in there[field]]
            if isinstance(side, str) and not any(side in values for values in there.values()):
                wrong = [side]
            if wrong:
                known = ", ".join(value for values in there.values() for value in values)
                self.fail(f"{key}.{name}", f"names {wrong[0]!r}, which evaluate.{claim.evaluate} has not: {known}")

    def known(self, names: Iterable[str], there: Mapping[str, Any], key: str, what: str) -> None:
        for name in names:
            if name not in there:
                self.fail(
                    key, f"names the {what} {name!r}, expected one of {', '.join(there) or 'none: there are none'}"
                )

    def tuning(self, options: _Table, key: str) -> None:
        """Refuses options that the classifier does not have."""
        from relpt.classifier import Classifier

        own = ("encoder", "return", "seed", "copy")
        self.values(options, {n: h for n, h in get_type_hints(Classifier.__init__).items() if n not in own}, key)


def objectives_of(run: Training) -> list[Any]:
    """The objectives of a run.

    Raises:
        TypeError, ValueError: an option that the objective does not have, or not so.
    """
    from relpt.objectives import OBJECTIVES

    return [
        OBJECTIVES[item["type"]](**{name: value for name, value in item.items() if name != "type"})
        for item in run.objectives
    ]


def _required(f: Any) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
