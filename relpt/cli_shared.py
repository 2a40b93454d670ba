"""What the commands of ``relpt`` share: how they print, read options' values, and open data and encoders."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from relpt.files import check_can_write
from relpt.inputs import DTYPES, input_name
from relpt.runlog import StepLines

__all__ = [
    "FORMATS",
    "add_data_options",
    "add_encoder_options",
    "add_machine_options",
    "callbacks_for",
    "count_list",
    "given_options",
    "input_setting",
    "input_settings",
    "load_data",
    "natural",
    "new_file",
    "opened_encoder",
    "opened_model",
    "positive",
    "print_json",
    "print_rows",
    "seed_list",
    "share_list",
]

# relpt.data's, named here so that --help loads nothing.
FORMATS: Final = (
    *("fewrel", "fewrel-unsupervised", "opennre", "chemprot", "tacred", "semeval", "nyt-fb", "wiki-wd", "coref"),
)

# -- output -----------------------------------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """The one object of ``--json``."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_rows(rows: Iterable[tuple[str, str]], indent: str = "  ") -> None:
    """Name and finding in two columns, wrapped to the terminal's width."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    columns = max(60, min(shutil.get_terminal_size((80, 24)).columns, 120))
    for name, finding in rows:
        first = f"{indent}{name:<{width}}"
        wrapped = textwrap.wrap(
            finding,
            columns - 1,
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )
        print("\n".join(wrapped or [first]))


def callbacks_for(args: argparse.Namespace, steps: int) -> list[Any]:
    """What shows the course of a training run: ``StepLines`` where there is no progress bar."""
    from relpt.progress import interactive

    return [] if args.quiet or interactive() else [StepLines(steps)]


# -- option values ----------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return value


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 on")
    return int(text)


def count_list(text: str) -> list[int]:
    """Whole numbers from 1 on, such as 5,10."""
    return [positive(part.strip()) for part in text.split(",")]


def share_list(text: str) -> list[float]:
    """Different shares above 0, at most 1, such as 0.01,0.1."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers above 0, at most 1, such as 0.01,0.1")
    return list(dict.fromkeys(shares))


def seed_list(text: str) -> list[int]:
    """Different seeds, numbers or ranges such as 42-46."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"{text!r}: expected numbers or ranges such as 42-46 or 1,2,5")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def input_setting(text: str) -> str:
    """An input setting by any of its names."""
    try:
        return input_name(text.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def input_settings(text: str) -> list[str]:
    """Different input settings, such as C+M,OnlyC."""
    return list(dict.fromkeys(input_setting(part) for part in text.split(",")))


def new_file(name: str, what: str, option: str = "-o") -> Path:
    """The path of a file to write, refused before anything is computed where it cannot be one."""
    target = Path(name)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; {option} names {what} to write")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: there is no such folder to write {target.name} into ({option})")
    check_can_write(target.parent, option)
    return target


# -- what options say -------------------------------------------------------------------------------------------------


def given_options(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that the user gave, so that defaults and presets hold for the others."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def load_data(args: argparse.Namespace, paths: Sequence[str]) -> Any:
    """The ``Dataset`` of files, read as the options say."""
    from relpt.data import load

    return load(list(paths), **given_options(args, "format", "spans", "on_bad"))


def opened_encoder(args: argparse.Namespace, name: str, *data: Any) -> Any:
    """The ``Encoder`` as the options say; typed markers that they ask for are those of the data's types."""
    from relpt.encoder import Encoder

    return Encoder.from_pretrained(name, **_opening(args, name, *data))


def opened_model(args: argparse.Namespace, name: str, *data: Any) -> Any:
    """The same, where a folder may also hold a CNN or a hybrid."""
    from relpt.hybrid import open_encoder

    return open_encoder(name, **_opening(args, name, *data))


def _opening(args: argparse.Namespace, name: str, *data: Any) -> dict[str, Any]:
    """The options of opening an encoder that the user gave."""
    from relpt.checkpoint import latest_checkpoint

    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        checkpoint = latest_checkpoint(folder / "checkpoints")
        if checkpoint is not None:
            raise FileNotFoundError(
                f"{folder} is a run that has not ended: go on with relpt pretrain … --resume, or give {checkpoint}"
            )
    options = given_options(args, "representation", "prompt", "markers", "marker_order", "device", "dtype", "seed")
    if options.get("markers", "").startswith("typed"):
        options["types"] = dict.fromkeys(kind for part in data for kind in part.types)
    if args.threads is not None:
        options["num_threads"] = args.threads
    return options


# -- options of several commands --------------------------------------------------------------------------------------


def add_data_options(parser: argparse.ArgumentParser, *, on_bad: bool = True) -> None:
    """How data are read."""
    group = parser.add_argument_group("reading data")
    group.add_argument("--format", choices=FORMATS, metavar="F", help=f"{', '.join(FORMATS)} (default: guessed)")
    group.add_argument("--spans", choices=("token", "char"), help="what positions count (default: guessed)")
    if on_bad:
        group.add_argument("--on-bad", choices=("raise", "skip"), help="what to do at a bad record (default: raise)")


def add_encoder_options(parser: argparse.ArgumentParser, length: str, *, trains: bool = False) -> None:
    """How an encoder is opened and run, or trained; --dtype of a command that only encodes is ``encoding_dtype``.

    Args:
        length: the default of --max-length, for the help.
    """
    parser.add_argument(
        "--representation",
        metavar="R",
        help="entity_start, mention_mean, cls, mean, mask, or several joined by + (default: the model's)",
    )
    parser.add_argument(
        "--prompt",
        metavar="P",
        help='behind each sentence, read at its [MASK]: between, relation, is-of, triple, or a text such as "The '
        "relation between {head} and {tail} is [MASK].\" (default: the model's)",
    )
    parser.add_argument(
        "--markers",
        metavar="M",
        help="plain, punct, typed or typed_punct: these say entities' types (default: the model's)",
    )
    parser.add_argument(
        "--marker-order",
        metavar="O",
        help="role (head, tail) or text: whose the first marker is (default: the model's)",
    )
    parser.add_argument("--max-length", type=positive, metavar="N", help=f"word pieces a sentence (default: {length})")
    add_machine_options(parser, trains=trains)


def add_machine_options(parser: argparse.ArgumentParser, *, trains: bool = False) -> None:
    """Where and in what an encoder computes, see ``add_encoder_options``."""
    parser.add_argument("--threads", type=positive, metavar="N", help="default: the CPUs this process may use")
    dtypes = (
        "float32 (default on the CPU), bfloat16 (on a GPU), which is faster where there are instructions for it, or on "
        "a GPU tf32"
    )
    if trains:
        parser.add_argument("--dtype", help=f"of matrix products: {dtypes}")
    else:
        dtypes += "; int8 on the CPU, the fastest where it has instructions for that"
        parser.add_argument("--dtype", dest="encoding_dtype", choices=DTYPES, help=f"of matrix products: {dtypes}")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cpu (default), or cuda: the first GPU")
