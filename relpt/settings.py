"""Options given as text: ``--set option=value`` and ``--objective name:weight``."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, ClassVar, Final, get_args, get_origin, get_type_hints

__all__ = ["UsageError", "make_trainer", "parse_objectives", "parse_settings"]


class UsageError(Exception):
    """Options that are unknown, of another type, or do not go together; the command line's exit code 2."""


_WORDS: Final = {"true": True, "false": False, "none": None}


def _literal(text: str) -> Any:
    """A Python literal; true, false and none in any case; else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an option's type."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is tuple:
        as_many = isinstance(value, (tuple, list)) and len(value) == len(kinds)
        return as_many and all(_fits(item, kind) for item, kind in zip(value, kinds, strict=True))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, kinds[0]) for item in value)
    if origin in (Mapping, dict):
        return isinstance(value, dict) and all(_fits(item, kinds[1]) for item in value.values())
    if hint is Any or kinds:
        return hint is Any or any(_fits(value, kind) for kind in kinds)
    if hint is float or hint is int:
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint in (None, NoneType) else hint)


def _describe(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "none"}
    if get_origin(hint) is tuple:
        return f"{len(get_args(hint))} numbers such as 0.9,0.999"
    if hint in names:
        return names[hint]
    if hint == Mapping[str, float]:
        return """a dict such as '{"C+M": 0.9, "OnlyM": 0.1}'"""
    if get_origin(hint) is list:
        return "a list" if Any in get_args(hint) else f"a list, each {_describe(get_args(hint)[0])}"
    if dict in (hint, get_origin(hint)) or get_origin(hint) is Mapping:
        return "a table" if Any in get_args(hint) or hint is dict else f"a table, each {_describe(get_args(hint)[1])}"
    return " or ".join(_describe(kind) for kind in get_args(hint)) or hint.__name__


def parse_settings(settings: Iterable[str], hints: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options from ``option=value`` texts.

    Args:
        settings: the texts.
        hints: type of each option; None: those of CPTrainer.

    Raises:
        UsageError: no such option (near misses are named), or a value of another type.
    """
    if hints is None:
        from relpt.trainer import CPOptions

        hints = get_type_hints(CPOptions)
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {setting}: expected option=value")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 3, 0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(hints)}"
            raise UsageError(f"--set {setting}: there is no option {name!r}; {hint}")
        value = _literal(text.strip())
        if not _fits(value, hints[name]):
            raise UsageError(f"--set {setting}: {name} is {value!r}, expected {_describe(hints[name])}")
        options[name] = tuple(value) if isinstance(value, list) else value
    return options


# -- objectives -------------------------------------------------------------------------------------------------------


def parse_objectives(texts: Iterable[str]) -> dict[str, float | None]:
    """Objectives and their weights from texts such as "cp", "cp:1,mlm:0.5"; None where no weight is given.

    Raises:
        UsageError: no such objective, one named twice, or a weight that is no number.
    """
    from relpt.objectives import OBJECTIVES

    found: dict[str, float | None] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, colon, weight = part.partition(":")
        if name not in OBJECTIVES:
            raise UsageError(f"--objective {part}: there is no objective {name!r}; there are {', '.join(OBJECTIVES)}")
        if name in found:
            raise UsageError(f"--objective {part}: {name} is named twice")
        value = _literal(weight)
        if colon and not _fits(value, float):
            raise UsageError(f"--objective {part}: the weight is {weight!r}, expected a number")
        found[name] = float(value) if colon else None
    return found or {"cp": None}


def make_trainer(
    objectives: Mapping[str, float | None], preset: str | None, flags: Mapping[str, Any], settings: Iterable[str]
) -> Any:
    """The trainer of a command line, its encoder still None: CPTrainer or MTBTrainer where the objectives are theirs.

    Args:
        objectives: from ``parse_objectives``.
        preset: of CPTrainer, or None.
        flags: options by name.
        settings: the texts of --set; where the objectives are those of no ready-made trainer, an option of an objective
            is called "objective.option".

    Raises:
        UsageError: options that are unknown, given twice, or do not go with the objectives.
    """
    from relpt import trainer as module

    ready = {"cp": (module.CPTrainer, module.CPOptions), "mtb": (module.MTBTrainer, module.MTBOptions)}
    first, rest = next(iter(objectives)), list(objectives)[1:]
    if preset is not None and first != "cp":
        raise UsageError(f"--preset {preset} is of the objective cp, not of {first}")
    if first not in ready or rest not in ([], ["mlm"]):
        if preset is not None:
            raise UsageError(f"--preset {preset} is of cp and mlm alone; set the options of {', '.join(objectives)}")
        return _compose(objectives, flags, settings)
    kind, options_type = ready[first]
    weights = {f"{name}_weight": weight for name, weight in objectives.items() if weight is not None}
    if rest and objectives["mlm"] is None:
        weights["mlm_weight"] = 1.0
    given = _together(flags, weights, parse_settings(settings, get_type_hints(options_type)))
    return kind(None, **({"preset": preset} if first == "cp" else {}), **given)


def _together(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """The options of all parts; UsageError where two have the same."""
    options: dict[str, Any] = {}
    for part in parts:
        for name in options.keys() & part.keys():
            raise UsageError(f"{name} is given twice: by an option of its own and by --set")
        options |= part
    return options


def _compose(objectives: Mapping[str, float | None], flags: Mapping[str, Any], settings: Iterable[str]) -> Any:
    """A relpt.Trainer of these objectives."""
    from relpt.objectives import OBJECTIVES
    from relpt.trainer import Trainer, TrainerOptions

    hints: dict[str, Any] = get_type_hints(TrainerOptions)
    for name in objectives:
        own = {field: hint for field, hint in get_type_hints(OBJECTIVES[name]).items() if field != "name"}
        hints |= {f"{name}.{field}": hint for field, hint in own.items() if get_origin(hint) is not ClassVar}
    weights = {f"{name}.weight": weight for name, weight in objectives.items() if weight is not None}
    options = _together(flags, weights, parse_settings(settings, hints))
    made = []
    for name in objectives:
        own = {key.partition(".")[2]: value for key, value in options.items() if key.partition(".")[0] == name}
        made.append(OBJECTIVES[name](**own))
    trainer = Trainer(None, objectives=made, **{key: value for key, value in options.items() if "." not in key})
    if "pairs_per_step" in options and not trainer._reads_pairs():
        raise UsageError(
            f"no objective of {', '.join(objectives)} draws pairs: how many sentences a step has is said by options of "
            "their own; leave out --pairs"
        )
    return trainer
