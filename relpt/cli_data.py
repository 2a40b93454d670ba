"""The commands ``relpt check`` and ``relpt relabel``: what data files hold, and patches of their relations."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relpt.cli_shared import (
    FORMATS,
    add_data_options,
    given_options,
    load_data,
    natural,
    new_file,
    print_json,
    print_rows,
)
from relpt.runlog import counted

if TYPE_CHECKING:
    from relpt.data import BadRecord

__all__ = ["add_check", "add_relabel"]

# -- check ------------------------------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> int:
    """Reports on data files; exit code 1 where records are bad."""
    from relpt.data import load

    reports, bad_total = [], 0
    for path in args.data:
        data = load(path, on_bad="collect", **given_options(args, "format", "spans"))
        report, bad = data.check(), [str(note) for note in data.bad]
        bad_total += len(data.bad)
        reports.append({"file": path, **report.to_dict(), "bad": [note.to_dict() for note in data.bad]})
        if args.json:
            continue
        if len(reports) > 1:
            print()
        print(path)
        if data.bad and not len(data):  # figures of nothing would hide what is wrong; likely it is one thing
            print(f"  {_nothing_read(data.bad)}")
            bad = _collapsed(data.bad)
        else:
            print_rows(dataclasses.replace(report, bad=[]).rows())
        for line in bad[: args.show]:
            print(f"    {line}")
        if len(bad) > args.show:
            print(f"    … and {len(bad) - args.show:,} more (--show {len(bad)} lists them all)")
        if data.bad and not len(data):
            print_rows([("--format", f"says what the file is, where that was guessed wrong: {', '.join(FORMATS)}")])
    if args.json:
        print_json({"files": reports, "bad": bad_total})
    return 1 if bad_total else 0


def _nothing_read(bad: Sequence[BadRecord]) -> str:
    return "its record cannot be read:" if len(bad) == 1 else f"none of its {len(bad):,} records can be read:"


def _collapsed(bad: Sequence[BadRecord]) -> list[str]:
    """The records' messages, those of one reason as their number and the first of them."""
    reasons = Counter((note.field, note.reason) for note in bad)
    first = {(note.field, note.reason): note for note in reversed(bad)}
    return [f"{first[key]}" + (f" (and {n - 1:,} more like it)" if n > 1 else "") for key, n in reasons.items()]


def add_check(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of ``relpt check``."""
    text = "Reads data files and reports counts, lengths, relations and bad records. Exit code 1 where records are bad."
    p = commands.add_parser("check", parents=[common], help="report on data files", description=text)
    p.add_argument("data", nargs="+", metavar="DATA", help="files with sentences")
    p.add_argument("--show", type=natural, default=20, metavar="N", help="bad records to list (default: 20)")
    add_data_options(p, on_bad=False)
    p.set_defaults(run=check)


# -- relabel ----------------------------------------------------------------------------------------------------------


def relabel(args: argparse.Namespace) -> int:
    """Writes the data with a patch's relations."""
    target = new_file(args.output, "the file")
    data = load_data(args, [args.data])
    new = data.relabel(args.patch, drop_missing=args.drop_missing)
    new.save(target)
    before = {instance.id: instance.relation for instance in data}
    changed = sum(instance.relation != before[instance.id] for instance in new)
    left_out = len(data) - len(new)
    if args.json:
        print_json({"output": str(target), "instances": len(new), "changed": changed, "left_out": left_out})
    else:
        print(
            f"{target}: {counted(len(new), 'instance')}; relations changed {changed:,}, instances left out {left_out:,}"
        )
    return 0


def add_relabel(commands: Any, common: argparse.ArgumentParser) -> None:
    """The parser of ``relpt relabel``."""
    text = (
        "Gives instances the relations that a patch has for their ids, as TACREV's and Re-TACRED's do for TACRED, and "
        "writes them as JSON lines for every other command."
    )
    p = commands.add_parser("relabel", parents=[common], help="patch relations: TACREV, Re-TACRED", description=text)
    p.add_argument("data", metavar="DATA", help="a file with sentences, each with its id")
    p.add_argument("patch", metavar="PATCH", help="a list of {id, relation} (TACREV) or an object {id: relation}")
    p.add_argument("-o", "--output", required=True, metavar="X.jsonl", help="the file to write")
    missing = p.add_mutually_exclusive_group()
    missing.add_argument(
        "--drop-missing",
        action="store_true",
        default=None,
        help="leave out what the patch does not hold, as Re-TACRED does",
    )
    missing.add_argument(
        "--keep-missing", dest="drop_missing", action="store_false", default=None, help="keep its relations"
    )
    add_data_options(p)
    p.set_defaults(run=relabel)
