"""The command ``relpt fewshot``: accuracy of an encoder, and episodes in files, predictions for them, their score."""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any, Final

from relpt.cli_shared import (
    add_data_options,
    add_encoder_options,
    count_list,
    given_options,
    input_settings,
    load_data,
    natural,
    new_file,
    opened_model,
    positive,
    print_json,
    print_rows,
)
from relpt.inputs import SIMILARITIES
from relpt.intervals import known_intervals, with_interval
from relpt.nota import NOTA_SCORES
from relpt.runlog import counted, duration, tell
from relpt.settings import UsageError

__all__ = ["add_fewshot"]


# -- option values ----------------------------------------------------------------------------------------------------


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number")
    return value


def _rates(text: str) -> list[float]:
    rates = [_finite(part) for part in text.split(",")]
    if not all(0 <= rate < 1 for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r}: expected shares from 0 to below 1")
    return rates


# -- the command ------------------------------------------------------------------------------------------------------


def _first_of_each(data: Any, n: int) -> Any:
    """The first n instances of each relation, in the data's order."""
    seen: dict[str | None, int] = {}
    rows = []
    for row, instance in enumerate(data):
        seen[instance.relation] = seen.get(instance.relation, 0) + 1
        if seen[instance.relation] <= n:
            rows.append(row)
    return data[rows]


def _labelled(args: argparse.Namespace, paths: Sequence[str] | None) -> Any:
    """The data of an option, as many sentences of each relation as asked for; None where it is not given."""
    if paths is None:
        return None
    data = load_data(args, paths)
    return data if args.per_relation is None else _first_of_each(data, args.per_relation)


# What each thing that can be asked of the command needs, and what does not go with it.
_ASKED: Final = {
    "score": (("answers",), ("model", "data", "output", "none_label", "nota", "nota_threshold", "nota_fit")),
    "predict": (("model",), ("data", "way", "shot", "answers")),
    "write_episodes": (("data",), ("model", "output", "answers", "none_label", "nota_threshold", "nota_fit")),
    "evaluate": (("model", "data"), ("output", "answers", "none_label")),
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def fewshot(args: argparse.Namespace) -> int:
    """Few-shot accuracy of an encoder, or what goes with it: episodes in a file, predictions for them, their score."""
    run = {"score": _score, "predict": _predict, "write_episodes": _write, "evaluate": _evaluate}
    asked = [name for name in _ASKED if getattr(args, name, None) is not None] or ["evaluate"]
    if len(asked) > 1:
        raise UsageError(f"{_flag(asked[0])} and {_flag(asked[1])} are two things; ask for one")
    needed, refused = _ASKED[asked[0]]
    for name in needed:
        if getattr(args, name) is None:
            raise UsageError(f"{_flag(name)} is missing" + ("" if asked == ["evaluate"] else f" for {_flag(asked[0])}"))
    for name in refused:
        if getattr(args, name) is not None:
            goes = next(other for other, (_, no) in _ASKED.items() if name not in no)
            raise UsageError(
                f"{_flag(name)} goes with {_flag(goes)}"
                if asked == ["evaluate"]
                else f"{_flag(name)} does not go with {_flag(asked[0])}"
            )
    if asked[0] in ("evaluate", "predict"):
        _check_nota(args)
    args.way, args.shot = args.way or [5], args.shot or [1]
    return run[asked[0]](args)


def _check_nota(args: argparse.Namespace) -> None:
    rates = args.nota or [0.0]
    if args.nota_threshold is not None and args.nota_fit is not None:
        raise UsageError("--nota-threshold gives the threshold and --nota-fit fits one; give one of the two")
    if args.nota_fit is not None and not all(rates):
        raise UsageError("--nota-fit needs --nota with shares above 0, those to expect")
    if any(rates) and args.nota_threshold is None and args.nota_fit is None:
        raise UsageError("--nota needs a threshold: give --nota-threshold, or data of other relations with --nota-fit")


def _tasks(args: argparse.Namespace, ways: Sequence[int], shots: Sequence[int]) -> list[Any]:
    from relpt.fewshot import FewShot

    fixed = {"n_query": args.query, "episodes": args.episodes, "similarity": args.similarity, "seed": args.seed}
    fixed |= {"nota_threshold": args.nota_threshold, "nota_score": args.nota_score}
    rates = args.nota or [0.0]
    return [
        FewShot(n_way=way, k_shot=shot, nota_rate=rate, **fixed) for way in ways for shot in shots for rate in rates
    ]


def _evaluate(args: argparse.Namespace) -> int:
    from relpt.corpus.tokenizing import number_relations

    begin = time.monotonic()
    data, fit = _labelled(args, args.data), _labelled(args, args.nota_fit)
    tasks = _tasks(args, args.way, args.shot)
    for task in tasks:
        task._check(data)
        if fit is not None:
            task._check(fit)
    if fit is not None:
        _warn_of_shared(data, fit)
    parts = [data] if fit is None else [data, fit]
    encoder = opened_model(argparse.Namespace(**{**vars(args), "seed": None}), args.model, *parts)
    length, show = given_options(args, "max_length"), False if args.quiet else None
    threads, numbers = getattr(encoder, "num_threads", args.threads), [number_relations(part)[1] for part in parts]
    if hasattr(encoder, "_as_corpus"):  # tokenized once for all settings; a hybrid's parts read each in their own way
        parts = [encoder._as_corpus(part, args.max_length or 128, show)[0] for part in parts]
    results = []
    for inputs in args.inputs:
        vectors = [
            encoder.encode(part, inputs=inputs, dtype=args.encoding_dtype, show_progress_bar=show, **length)
            for part in parts
        ]
        for task in tasks:
            if fit is not None:
                task.nota_threshold = task.best_threshold(vectors[1], numbers[1], num_threads=threads)
            results.append(task.score(vectors[0], numbers[0], inputs=inputs, num_threads=threads))
    if args.json:
        print_json({"results": [result.to_dict() for result in results]})
        return 0
    print(
        f"{encoder.name} on {data.name}: {counted(len(data), 'sentence')}, "
        f"{counted(len(data.labels), 'relation')}\n"
        f"{counted(args.episodes, 'episode')}, {args.similarity}, seed {args.seed}\n"
    )
    _print_results(results)
    if not args.quiet:
        tell(f"relpt: {duration(time.monotonic() - begin)}")
    return 0


def _warn_of_shared(data: Any, fit: Any) -> None:
    """Warns where the threshold is fitted to what is tested, which it then suits better than relations not seen."""
    shared = [name for name in fit.labels if name in set(data.labels)]
    if shared:
        warnings.warn(
            f"{len(shared):,} of the {counted(len(fit.labels), 'relation')} of --nota-fit are also in --data, such as "
            f"{shared[0]!r}: accuracies may be too high; give data of other relations",
            stacklevel=2,
        )


def _print_results(results: Sequence[Any]) -> None:
    if results[0].nota_rate is None:
        print(f"  {'inputs':<8}{'way':>4}{'shot':>6}   accuracy ± 95 % interval")
        for r in results:
            print(f"  {r.inputs:<8}{r.way:>4}{r.shot:>6}   {with_interval(r.accuracy, r.ci95, 4)}")
        return
    print(f"  {'inputs':<7} way shot  nota threshold  {'accuracy':<15}{'known':<15}none (± 95 %)")
    for r in results:
        pairs = ((r.accuracy, r.ci95), (r.known_accuracy, r.known_ci95), (r.none_accuracy, r.none_ci95))
        cells = "".join(f"  {'–' if value is None else with_interval(value, ci95, 3):<13}" for value, ci95 in pairs)
        line = f"  {r.inputs:<7}{r.way:>4}{r.shot:>5}{r.nota_rate:>6.2f}{r.nota_threshold:>10.3f}{cells}"
        print(line.rstrip())


def _predict(args: argparse.Namespace) -> int:
    """Answers the episodes of a file; scores them too where the file has the answers."""
    from relpt.episodes import load_episodes, score_predictions
    from relpt.files import replace_file

    begin = time.monotonic()
    if len(args.inputs) > 1 or len(args.nota or [0]) > 1:
        raise UsageError("--predict takes one input setting and one --nota")
    target = None if args.output is None else new_file(args.output, "the .json file")
    episodes = load_episodes(args.predict)
    (task,) = _tasks(args, [episodes.n_way], [episodes.k_shot])
    fit = _labelled(args, args.nota_fit)
    if fit is not None:
        task._check(fit)
    if target is None and episodes.answers is None:
        raise UsageError(f"{args.predict} has no answers to score; name the file to write with -o")
    parts = [episodes.data] if fit is None else [episodes.data, fit]
    encoder = opened_model(argparse.Namespace(**{**vars(args), "seed": None}), args.model, *parts)
    threads = getattr(encoder, "num_threads", args.threads)
    encode = functools.partial(
        encoder.encode,
        inputs=args.inputs[0],
        dtype=args.encoding_dtype,
        show_progress_bar=False if args.quiet else None,
        **given_options(args, "max_length"),
    )
    if fit is not None:
        labels = [instance.relation for instance in fit]
        task.nota_threshold = task.best_threshold(encode(fit), labels, num_threads=threads)
    said = task.answer(encode(episodes.data), episodes, num_threads=threads)
    facts: dict[str, Any] = {"episodes": len(said), "sentences": len(episodes.data), "inputs": args.inputs[0]}
    facts |= {"way": episodes.n_way, "shot": episodes.k_shot, "similarity": args.similarity}
    if task.nota_threshold is not None:
        facts |= {"nota_threshold": task.nota_threshold, "none": int((said == episodes.n_way).sum())}
    if episodes.answers is not None:
        facts |= score_predictions(said, episodes.answers, n_way=episodes.n_way)
    if target is not None:
        none = episodes.n_way if args.none_label is None else args.none_label
        numbers = [none if way == episodes.n_way else way for way in said.tolist()]
        with replace_file(target) as file:
            file.write(json.dumps(numbers).encode() + b"\n")
        facts["output"] = str(target)
    if args.json:
        print_json(known_intervals(facts))
        return 0
    _print_facts(facts)
    if not args.quiet:
        tell(f"relpt: {duration(time.monotonic() - begin)}")
    return 0


def _score(args: argparse.Namespace) -> int:
    """Compares a file of predictions with the answers."""
    from relpt.episodes import score_predictions

    if len(args.way) > 1:
        raise UsageError("--score takes one --way, that of the predictions")
    facts = score_predictions(args.score, args.answers, n_way=args.way[0])
    if args.json:
        print_json(known_intervals(facts))
    else:
        _print_facts(facts)
    return 0


def _write(args: argparse.Namespace) -> int:
    """Writes drawn episodes and their answers into a file."""
    target = new_file(args.write_episodes, "the .json file", "--write-episodes")
    tasks = _tasks(args, args.way, args.shot)
    if len(tasks) > 1:
        raise UsageError("--write-episodes takes one --way, one --shot and one --nota: one file has one shape")
    episodes = tasks[0].draw(_labelled(args, args.data))
    episodes.save(target)
    facts = {"output": str(target), "episodes": len(episodes), "way": episodes.n_way, "shot": episodes.k_shot}
    if args.json:
        print_json(known_intervals(facts))
    else:
        _print_facts(facts)
    return 0


def _print_facts(facts: dict[str, Any]) -> None:
    """Figures by name, each with its interval."""
    rows = []
    for name, value in facts.items():
        half = facts.get("ci95" if name == "accuracy" else name.replace("_accuracy", "_ci95"))
        if "ci95" in name or value is None:
            continue
        if name.endswith("accuracy"):
            rows.append((name.replace("_", " "), with_interval(value, half, 4)))
        else:
            rows.append((name.replace("_", " "), f"{value:,}" if type(value) is int else f"{value}"))
    print_rows(rows)


def add_fewshot(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser's."""
    text = (
        "Accuracy over N-way K-shot episodes with prototypes, and its 95 % interval; predictions for given episodes "
        "(--predict), such as those of FewRel's leaderboards; such episodes of your own data (--write-episodes)."
    )
    p = commands.add_parser("fewshot", parents=[common], help="few-shot accuracy", description=text)
    p.add_argument("--model", metavar="RUN", help="as in relpt finetune")
    p.add_argument("--data", nargs="+", metavar="DATA", help="files with labelled sentences")
    p.add_argument("--inputs", type=input_settings, default=["C+M"], metavar="I", help="a list such as C+M,OnlyC,OnlyM")
    p.add_argument("--way", type=count_list, metavar="N", help="relations an episode, a list (default: 5)")
    p.add_argument("--shot", type=count_list, metavar="K", help="support sentences, a list (default: 1)")
    p.add_argument("--query", type=positive, default=1, metavar="Q", help="query sentences a relation (default: 1)")
    p.add_argument("--episodes", type=positive, default=10_000, metavar="N", help="default: 10000")
    p.add_argument("--similarity", choices=SIMILARITIES, default="cosine", help="default: cosine")
    p.add_argument("--seed", type=natural, default=42, metavar="S", help="seed of the episodes (default: 42)")
    p.add_argument("--per-relation", type=positive, metavar="N", help="use the first N sentences of each relation")
    nota = p.add_argument_group("none of the above")
    nota.add_argument("--nota", type=_rates, metavar="R", help="share of such queries, a list such as 0.15,0.3,0.5")
    nota.add_argument("--nota-threshold", type=_finite, metavar="T", help="the answer where the score is below T")
    nota.add_argument("--nota-fit", nargs="+", metavar="DATA", help="fit the threshold to these, other relations")
    nota.add_argument(
        "--nota-score",
        choices=NOTA_SCORES,
        default="similarity",
        help="compared with T (default: similarity); similarity+margin where the fit is on text of another kind",
    )
    files = p.add_argument_group("episodes in files")
    files.add_argument("--predict", metavar="FILE", help="answer these episodes, a JSON list of meta_train, meta_test")
    files.add_argument("-o", "--output", metavar="PRED", help="the .json file to write the predicted ways into")
    files.add_argument(
        "--none-label", type=int, metavar="L", help="number of none of the above in it (default: N, after 0 to N - 1)"
    )
    files.add_argument("--write-episodes", metavar="FILE", help="draw episodes of --data, with answers, into a file")
    files.add_argument("--score", metavar="PRED", help="compare predictions with --answers")
    files.add_argument("--answers", metavar="FILE", help="a JSON list of ways, or episodes that have answers")
    add_encoder_options(p, "128")
    add_data_options(p)
    p.set_defaults(run=fewshot)
