"""The commands ``relpt finetune`` and ``relpt predict``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from relpt.cli_shared import (
    add_data_options,
    add_encoder_options,
    add_machine_options,
    given_options,
    input_settings,
    load_data,
    natural,
    new_file,
    opened_model,
    positive,
    print_json,
    seed_list,
    share_list,
)
from relpt.runlog import counted, duration, tell

__all__ = ["add_finetune", "add_predict", "add_training_options", "runs_text", "training_options"]

# relpt.scores' and relpt.objectives', named here so that --help loads nothing.
_METRICS = ("accuracy", "micro_f1", "macro_f1", "semeval", "bag_auc")
_POOLINGS = ("attention", "one", "mean")


# -- option values ----------------------------------------------------------------------------------------------------


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of parts, from 0, such as 0 or 0,2")
    return tuple(map(int, parts))


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of ``Classifier`` that the user gave."""
    sizes = ("epochs", "batch_size", "micro_batch_size", "max_length", "early_stopping", "warmup_steps")
    others = ("representation", "dropout", "label_smoothing", "unknown_labels", "optimizer", "momentum", "frozen")
    options = given_options(args, *sizes, *others, "bags", "bag_size")
    if args.lr is not None:
        options["learning_rate"] = args.lr
    return options


def add_training_options(p: Any) -> None:
    """The options of fine-tuning, for a parser or a group of its options."""
    p.add_argument("--metric", choices=_METRICS, help="default: the data set's, told by its relations")
    p.add_argument("--negative", metavar="R", help="the class that F1 leaves out (default: no_relation, Other, NA, P0)")
    p.add_argument("--lr", type=float, metavar="F", help="learning rate (default: 3e-5)")
    p.add_argument("--optimizer", choices=("adamw", "sgd"), help="default: adamw")
    p.add_argument("--momentum", type=float, metavar="F", help="of sgd (default: 0)")
    p.add_argument("--frozen", type=_numbers, metavar="N", help="parts of a hybrid that stay as they are, such as 0,2")
    p.add_argument("--bags", choices=_POOLINGS, help="train and score bags of sentences: for distant labels")
    p.add_argument("--bag-size", type=positive, metavar="N", help="sentences of a bag in training (default: 8)")
    p.add_argument("--epochs", type=positive, metavar="N", help="default: 6")
    p.add_argument("--batch-size", type=positive, metavar="N", help="sentences a step (default: 64)")
    p.add_argument("--micro-batch-size", type=positive, metavar="N", help="sentences held in memory at a time")
    p.add_argument("--warmup-steps", type=natural, metavar="N", help="default: a tenth of the steps")
    p.add_argument("--dropout", type=float, metavar="F", help="default: the model's")
    p.add_argument("--label-smoothing", type=float, metavar="F", help="default: 0")
    p.add_argument("--early-stopping", type=positive, metavar="N", help="stop after N epochs without gain on dev")
    p.add_argument(
        "--unknown-labels",
        choices=("raise", "wrong"),
        help="relations that --train lacks: an error (default), or wrong",
    )


# -- finetune ---------------------------------------------------------------------------------------------------------


def _tell_row(row: dict[str, Any], seconds: float | None) -> None:
    figures = ", ".join(f"{name} {row[name]:.4f}" for name in ("dev", "test") if row[name] is not None)
    took = "done before" if seconds is None else duration(seconds)
    tell(f"relpt: {row['inputs']}, fraction {row['fraction']:g}, seed {row['seed']}: {figures} ({took})")


def finetune(args: argparse.Namespace) -> int:
    """Fine-tunes a classifier for every setting, fraction and seed."""
    from relpt.finetuning import finetune as run
    from relpt.parts import for_head

    begin = time.monotonic()
    data = {name: load_data(args, [getattr(args, name)]) for name in ("train", "dev", "test") if getattr(args, name)}
    encoder = opened_model(args, args.model, *data.values())
    try:
        result = run(
            encoder,
            data.pop("train"),
            **data,
            inputs=args.inputs,
            fractions=args.fraction,
            seeds=args.seeds,
            metric=args.metric,
            negative=args.negative,
            output=args.output,
            on_row=None if args.quiet else _tell_row,
            show_progress_bar=False if args.quiet else None,
            **training_options(args),
        )
    except KeyboardInterrupt:
        if args.output is not None:
            tell(f"relpt: the runs so far are kept in {args.output}; the same command goes on")
        raise
    if args.json:
        print_json({"results": result.rows, "summary": result.summary()})
        return 0
    read = getattr(for_head(encoder, args.representation), "representation", None)  # a hybrid's parts have theirs
    _print_result(result, encoder.name if read is None else f"{encoder.name}, {read}")
    if args.output is not None:
        tell(f"relpt: {runs_text(result)}, in {duration(time.monotonic() - begin)}")
        tell(f"relpt: rows and predictions are in {args.output}; {_kept_text(args, result.rows)}")
    return 0


def runs_text(result: Any) -> str:
    """How many runs a result has, and how many of them are new."""
    return f"{counted(len(result.rows), 'run')}, {result.computed:,} of them new"


def _kept_text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """Whose model the folder keeps: the best on dev of these runs, or an earlier one's."""
    from relpt.finetuning import kept_run

    kept, folder = kept_run(args.output), Path(args.output) / "model"
    if kept is None:
        return "no model: one is kept where there is --dev to choose it by"
    run = f"{kept['inputs']}, fraction {kept['fraction']:g}, seed {kept['seed']}: {kept['metric']} {kept['dev']:.4f}"
    if any(row["key"] == kept["key"] for row in rows):
        return f"the model best on dev, of {run}, is {folder}"
    return f"the model in {folder} is of an earlier command's run, {run} on its dev"


def _print_result(result: Any, name: str) -> None:
    row = result.rows[0]
    left_out = f" without {row['negative']!r}" if row["negative"] is not None and row["metric"] != "accuracy" else ""
    print(f"{name}: {row['metric']}{left_out}; median (lowest – highest) over seeds\n\n{result}")
    if "bags" in row:
        _print_bags(result.rows)
    if row["unknown"]:
        unknown = counted(row["unknown"], "sentence")
        print(f"\n{unknown} of dev and test with relations that were not trained: counted as wrong")


def _print_bags(rows: list[dict[str, Any]]) -> None:
    """The figures of the held-out evaluation that the table lacks, a line for each run."""
    said = {"auc": "AUC", "max_f1": "max F1", "p_at_100": "P@100", "p_at_200": "P@200", "p_at_300": "P@300"}
    first = rows[0]["bags"]
    where = "dev" if rows[0]["test"] is None else "test"
    print(f"\n{where}: {counted(first['facts'], 'fact')} of {counted(first['bags'], 'bag')}")
    for row in rows:
        figures = "  ".join(f"{said[name]} {row['bags'][name]:.4f}" for name in said if name in row["bags"])
        print(f"{row['inputs']}, fraction {row['fraction']:g}, seed {row['seed']}:  {figures}")


def add_finetune(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command finetune to the parser's."""
    text = (
        "Fine-tunes a classifier on labelled sentences for every input setting, fraction and seed; reports medians. "
        "With -o, runs that the folder holds for the same encoder, options and data are not computed again."
    )
    p = commands.add_parser("finetune", parents=[common], help="train and score a classifier", description=text)
    p.add_argument(
        "--model",
        required=True,
        metavar="RUN",
        help='a run, a folder of a CNN or a hybrid, a Hugging Face folder, "minilm", a hub name',
    )
    for name, what in (("train", "to train on"), ("dev", "to choose by"), ("test", "to score")):
        p.add_argument(f"--{name}", required=name == "train", metavar="F", help=f"file with labelled sentences {what}")
    p.add_argument("--inputs", type=input_settings, default=["C+M"], metavar="I", help="a list such as C+M,OnlyC,OnlyM")
    p.add_argument(
        "--fraction",
        type=share_list,
        default=[1.0],
        metavar="F",
        help="of each relation's training sentences, a list such as 0.01,0.1 (default: 1)",
    )
    p.add_argument("--seeds", type=seed_list, default=list(range(42, 47)), metavar="S", help="default: 42-46")
    p.add_argument("-o", "--output", metavar="DIR", help="folder for rows, predictions and the best model")
    add_training_options(p)
    add_encoder_options(p, "100", trains=True)
    add_data_options(p)
    p.set_defaults(run=finetune)


# -- predict ----------------------------------------------------------------------------------------------------------


def _records(args: argparse.Namespace) -> Any:
    """The sentences of a file, or of lines of JSON on stdin."""
    from relpt.data import load
    from relpt.errors import FormatError

    if args.data != "-":
        return load_data(args, [args.data])
    records = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        if line.strip():
            try:
                records.append(json.loads(line.decode()))
            except ValueError as error:
                raise FormatError(f"stdin, line {number}: is no valid JSON ({error}); give one record a line") from None
    return load(records, name="stdin", **given_options(args, "format", "spans", "on_bad"))


def predict(args: argparse.Namespace) -> int:
    """Names the relation of each sentence, a line of JSON each."""
    from relpt.classifier import Classifier

    begin = time.monotonic()
    options = given_options(args, "dtype", "device")
    if args.threads is not None:
        options["num_threads"] = args.threads
    target = None if args.output is None else new_file(args.output, "the file of JSON lines")
    classifier = Classifier.from_pretrained(args.model, **options)
    data = _records(args)
    found = classifier.predict_top(data, k=args.top_k, show_progress_bar=False if args.quiet else None)
    rows = []
    for instance, top in zip(data, found, strict=True):
        ranked = [{"label": label, "probability": round(chance, 6)} for label, chance in top]
        rows.append({**instance.to_dict(), **ranked[0], "top": ranked})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if target is not None:
        new = target.with_name(f".{target.name}.new-{os.getpid()}")
        try:
            new.write_text(lines, encoding="utf-8")
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
    if args.json:
        print_json({"n": len(rows), "labels": len(classifier.labels), "inputs": classifier.inputs, "results": rows})
    elif target is None:
        sys.stdout.write(lines)
    if not args.quiet:
        where = "" if target is None else f" in {target}"
        took = duration(time.monotonic() - begin)
        tell(f"relpt: {counted(len(rows), 'sentence')}, {classifier.inputs}, {took}{where}")
    return 0


def add_predict(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the command predict to the parser's."""
    text = (
        "Names the relation of each sentence by a classifier of relpt finetune (DIR/model). Writes a line of JSON for "
        "each in the order of the data: the record with label, probability, and the likeliest relations in top."
    )
    p = commands.add_parser("predict", parents=[common], help="name the relation of sentences", description=text)
    p.add_argument("data", metavar="DATA", help='file with sentences and their two spans, or "-": JSON lines on stdin')
    p.add_argument("--model", required=True, metavar="DIR", help="folder of the classifier")
    p.add_argument("--top-k", type=positive, default=3, metavar="K", help="relations a sentence (default: 3)")
    p.add_argument("-o", "--output", metavar="OUT", help="file to write (default: stdout)")
    add_machine_options(p, trains=True)
    add_data_options(p)
    p.set_defaults(run=predict)
