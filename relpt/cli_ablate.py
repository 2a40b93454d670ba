"""The command ``relpt ablate``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from relpt.cli_finetune import add_training_options, runs_text, training_options
from relpt.cli_shared import (
    add_data_options,
    add_encoder_options,
    count_list,
    input_settings,
    load_data,
    opened_model,
    positive,
    print_json,
    seed_list,
    share_list,
)
from relpt.inputs import SIMILARITIES
from relpt.runlog import counted, duration, tell
from relpt.settings import UsageError

__all__ = ["add_ablate", "tell_run"]


def _named(text: str) -> tuple[str, str]:
    """Label and value of LABEL=VALUE; a path that is there stands for itself."""
    label, sign, value = text.partition("=")
    if Path(text).exists() or not sign:
        return Path(text).name or text, text
    if not label or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH or a path")
    return label, value


def _unlike(option: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The values by their labels; refuses two of one label."""
    found: dict[str, str] = {}
    for label, value in pairs:
        if label in found:
            raise UsageError(f"{option}: two are called {label!r}; give them names, as in {label}-2={value}")
        found[label] = value
    return found


def _data(args: argparse.Namespace) -> dict[str, Any]:
    """Data sets by name: the parts of one to fine-tune on, or the sentences of a few-shot test."""
    from relpt.ablation import splits_of

    sets: dict[str, Any] = {}
    for name, path in _unlike("--data", args.data or []).items():
        if Path(path).is_dir():
            sets[name] = {part: load_data(args, [file]) for part, file in splits_of(path).items()}
        else:
            sets[name] = load_data(args, [path])
    parts = {part: load_data(args, [getattr(args, part)]) for part in ("train", "dev", "test") if getattr(args, part)}
    if parts and "train" not in parts:
        raise UsageError("--dev and --test go with --train; a file to test few-shot on goes with --data")
    if parts:
        sets[parts["train"].name] = parts
    if not sets:
        raise UsageError("no data: give --data, or --train with --dev or --test")
    return sets


def tell_run(row: dict[str, Any], seconds: float | None) -> None:
    """A line on stderr about a run of an ablation."""
    took = "done before" if seconds is None else duration(seconds)
    place = ", ".join(str(row[name]) for name in ("data", "model", "inputs", "setting"))
    tell(f"relpt: {place}, seed {row['seed']}: {row['metric']} {row['score']:.4f} ({took})")


def ablate(args: argparse.Namespace) -> int:
    """Runs every model in every setting on every data set."""
    from relpt.ablation import ablate as run
    from relpt.fewshot import FewShot

    begin = time.monotonic()
    models = _unlike("--model", args.model)
    sets = _data(args)
    loaded = [part for given in sets.values() for part in (given.values() if isinstance(given, dict) else [given])]
    fixed = {"episodes": args.episodes, "similarity": args.similarity}
    tasks = [FewShot(n_way=way, k_shot=shot, **fixed) for way in args.way for shot in args.shot]
    tested = [not isinstance(given, dict) for given in sets.values()]
    tuning = training_options(args)
    if all(tested):
        tuning.pop("representation", None)  # there it is the encoders' alone
    try:
        result = run(
            {label: opened_model(args, name, *loaded) for label, name in models.items()},
            sets,
            args.inputs,
            args.fraction,
            args.seeds,
            few_shot=tasks if any(tested) else None,
            metric=args.metric,
            negative=args.negative,
            output=args.output,
            on_row=None if args.quiet else tell_run,
            show_progress_bar=False if args.quiet else None,
            **tuning,
        )
    except KeyboardInterrupt:
        tell(f"relpt: the runs so far are kept in {args.output}; the same command goes on")
        raise
    _write(Path(args.output), result, args.statistic)
    if args.json:
        print_json({"results": result.rows, "summary": result.summary()})
        return 0
    spread = "mean ± 95 % interval" if args.statistic == "mean" else "median (lowest – highest)"
    print(f"{spread} over {counted(len(args.seeds), 'seed')}\n\n{result.to_text(args.statistic)}")
    unknown = sum(row.get("unknown", 0) for row in result.rows)
    if unknown:
        answers = counted(unknown, "answer")
        print(f"\n{answers}, over all runs, for relations that were not trained: counted as wrong")
    if not args.quiet:
        tell(f"relpt: {runs_text(result)}, in {duration(time.monotonic() - begin)}")
        tell(f"relpt: rows, predictions, table.md and the figure are in {args.output}")
    return 0


def _write(folder: Path, result: Any, statistic: str) -> None:
    """The table and the figure, beside the rows."""
    from relpt.files import replace_file
    from relpt.report.html import figure_png

    with replace_file(folder / "table.md") as file:
        file.write(result.to_markdown(statistic).encode() + b"\n")
    try:
        axes = result.plot()
    except ImportError as error:
        tell(f"relpt: no figure: {error}")
        return
    with replace_file(folder / "figure.png") as file:
        file.write(figure_png(axes if hasattr(axes, "figure") else axes[0]))


def add_ablate(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser's."""
    text = (
        "The papers' tables: every model in every input setting, fraction and seed on every data set, by fine-tuning "
        "where it has training sentences, else by few-shot tests. Runs that DIR holds are not computed again."
    )
    p = commands.add_parser("ablate", parents=[common], help="tables of models and settings", description=text)
    p.add_argument("--model", nargs="+", type=_named, required=True, metavar="[NAME=]RUN", help="as in relpt finetune")
    p.add_argument(
        "--data",
        nargs="+",
        type=_named,
        metavar="[NAME=]DATA",
        help="folders with files called train, dev, test, to fine-tune; files with labelled sentences, for few-shot",
    )
    for name, what in (("train", "to fine-tune on"), ("dev", "to choose by"), ("test", "to score")):
        p.add_argument(f"--{name}", metavar="F", help=f"file with labelled sentences {what}")
    p.add_argument(
        "--inputs", type=input_settings, default=["C+M", "OnlyC", "OnlyM"], metavar="I", help="C+M,OnlyC,OnlyM"
    )
    p.add_argument(
        "--fraction",
        type=share_list,
        default=[1.0],
        metavar="F",
        help="of each relation's training sentences, a list such as 0.01,0.1 (default: 1)",
    )
    p.add_argument("--seeds", type=seed_list, default=list(range(42, 47)), metavar="S", help="default: 42-46")
    p.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder for rows, predictions, table and figure"
    )
    p.add_argument(
        "--statistic", choices=("mean", "median"), default="mean", help="with 95 %% interval, or lowest and highest"
    )
    tests = p.add_argument_group("few-shot tests")
    tests.add_argument("--way", type=count_list, default=[5], metavar="N", help="relations an episode (default: 5)")
    tests.add_argument("--shot", type=count_list, default=[1], metavar="K", help="support sentences (default: 1)")
    tests.add_argument("--episodes", type=positive, default=10_000, metavar="N", help="default: 10000")
    tests.add_argument("--similarity", choices=SIMILARITIES, default="cosine", help="default: cosine")
    add_training_options(p.add_argument_group("fine-tuning"))
    add_encoder_options(p, "100 in fine-tuning, 128 in few-shot tests", trains=True)
    add_data_options(p)
    p.set_defaults(run=ablate)
