"""The command ``relpt reproduce``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from relpt.cli_ablate import tell_run
from relpt.cli_shared import add_machine_options, callbacks_for, given_options, print_json, print_rows, seed_list
from relpt.runlog import duration, tell

__all__ = ["add_reproduce"]


def _settings(args: argparse.Namespace) -> list[str]:
    """The options as lines of TOML over the kit."""
    from relpt.recipes import load_kit

    lines = [f"encoder.{name} = {json.dumps(value)}" for name, value in given_options(args, "dtype", "device").items()]
    if args.encoder is not None:
        lines.append(f"encoder.name = {json.dumps(args.encoder)}")
    if args.seeds is not None:
        runs = load_kit(args.name, args.scale).evaluate
        lines += [f"evaluate.{json.dumps(name)}.seeds = {args.seeds}" for name in runs]
    return [*lines, *args.set]


def reproduce(args: argparse.Namespace) -> int:
    """Runs a kit, or lists them."""
    from relpt.progress import interactive
    from relpt.reproduction import reproduce as run

    if args.name is None:
        return _list(args)
    begin = time.monotonic()
    output = Path("reproduce") / f"{Path(args.name).stem}-{args.scale}" if args.output is None else Path(args.output)
    try:
        result = run(
            args.name,
            args.data,
            scale=args.scale,
            output=output,
            settings=_settings(args),
            skip_missing=args.skip_missing,
            num_threads=args.threads,
            say=(lambda text: None) if args.quiet else (lambda text: tell(f"relpt: {text}")),
            on_row=None if args.quiet or interactive() else tell_run,
            callbacks_of=lambda steps: callbacks_for(args, steps),
            show_progress_bar=False if args.quiet else None,
        )
    except KeyboardInterrupt:
        if output.is_dir():  # not before the first model or run
            tell(f"relpt: what is done is kept in {output}; the same command goes on")
        raise
    if args.json:
        print_json({**result.to_dict(), "report": str(output / "report.html")})
        return 0
    print(result.to_markdown(), end="")
    if not args.quiet:
        tell(f"relpt: {duration(time.monotonic() - begin)}; {output / 'report.html'} shows it with figures")
    return 0


def _list(args: argparse.Namespace) -> int:
    from relpt.recipes import kit_names, load_kit

    kits = [load_kit(name) for name in kit_names()]
    if args.json:
        print_json([{"name": kit.name, "paper": kit.paper, "table": kit.table, "about": kit.about} for kit in kits])
        return 0
    for paper in dict.fromkeys(kit.paper for kit in kits):
        print(paper)
        print_rows([(kit.name, kit.table) for kit in kits if kit.paper == paper])
    print("relpt reproduce NAME --data FOLDER runs one, and says which files it misses.")
    return 0


def add_reproduce(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command to the parser's."""
    text = (
        "Runs the kit of a paper's table: trains its models, evaluates them, and writes a report with the published "
        "figures beside. Without NAME lists the kits. An interrupted run goes on by the same command."
    )
    p = commands.add_parser("reproduce", parents=[common], help="tables of the papers", description=text)
    p.add_argument("name", nargs="?", metavar="NAME", help="a kit, or a .toml file in a kit's form")
    p.add_argument("--data", default="data", metavar="FOLDER", help="folder of the data sets (default: data)")
    p.add_argument(
        "--scale", choices=("small", "full"), default="small", help="for two cores (default), or the paper's"
    )
    p.add_argument("-o", "--output", metavar="DIR", help="models, runs, report (default: reproduce/NAME-SCALE)")
    p.add_argument("--skip-missing", action="store_true", help="leave out data sets that are not there, and say so")
    p.add_argument("--encoder", metavar="E", help="in place of the kit's: a name or folder")
    p.add_argument("--seeds", type=seed_list, metavar="S", help="of all evaluations, such as 42-44")
    add_machine_options(p, trains=True)
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a line of TOML over the kit, such as models.CP.train.max_steps=30; repeatable",
    )
    p.set_defaults(run=reproduce)
