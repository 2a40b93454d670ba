"""Training speed of relpt against PyTorch at its best, on the same batches, in alternating runs.

    python benchmarks/train_cpu.py [--model minilm|bert-base] [--data FILE…] [--rounds N] [--steps N] [--threads N]
                                   [--contestants NAME …] [--json] [--out FILE] [--short]

The job is that of `relpt pretrain --pairs 32`: CP + MLM, 64 sentences a step, at most 64 word pieces; on MiniLM-L6 or
on a network of BERT-base's size with random weights. Every contestant lives in a process of its own, which sleeps while
another one is timed; in each round every contestant does the same number of steps on the same batches. Medians over
rounds, with the range; ratios are to relpt in either precision.

``share``: the floating-point operations that the steps need (see ``needed_operations``) each second, divided by those
of relpt's float32 matrix product of 2048 x 768 x 768, which is timed in every round too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from contest import contest, turns
from report import add_data, dataset, installed, options_of, publish, ranged, spread

OURS = {"relpt": "float32", "relpt-bf16": "bfloat16"}
OPPONENTS = {
    "torch": {"padded_to": None, "bf16": False},  # packed, SDPA, MLM head on masked rows, fused AdamW, float32
    "torch-bf16": {"padded_to": None, "bf16": True},
    "torch-bucketed": {"padded_to": None, "bucket": 16, "bf16": False},  # the same, but padded in buckets
    "torch-bucketed-bf16": {"padded_to": None, "bucket": 16, "bf16": True},
    "torch-published": {"padded_to": 64, "bf16": False},  # padded to 64, MLM head on every position
}
LABELS = {
    "relpt": "relpt, float32",
    "relpt-bf16": "relpt, bfloat16",
    "torch": "PyTorch at its best, float32",
    "torch-bf16": "PyTorch at its best, bf16 autocast",
    "torch-bucketed": "PyTorch in buckets by length, float32",
    "torch-bucketed-bf16": "PyTorch in buckets by length, bf16 autocast",
    "torch-published": "PyTorch, published recipe (padded, MLM head everywhere)",
}
NEEDS = {name: ("torch",) for name in OPPONENTS}
PRODUCT = "matrix product"  # relpt's, the yardstick
JOB = {"preset": "released-code", "mask_same_relation": True, "pairs_per_step": 32, "max_steps": 10**6}
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


# -- the job -----------------------------------------------------------------------------------------------------------


def write_random(folder: Path, sizes: dict[str, int], source: Path | None = None) -> None:
    """A checkpoint of these sizes with relpt's initial weights, normal(0, 0.02), and MiniLM's tokenizer and config, of
    the folder `source` or the installed files."""
    from relpt import _core, weights

    source = weights.find_folder("minilm") if source is None else source
    config = {**weights.load_config(source), **sizes}
    model = _core.Model(**{field: config[field] for field in weights.CONFIG})
    for name, _ in model.parameters():
        model.init(name, 42)
    weights.save_model(folder, model, config, {})
    shutil.copy(source / "tokenizer.json", folder)


def job(folder: Path, paths: list[str], threads: int, dtype: str = "float32"):
    """The trainer, the sampler of its batches and the encoder's config."""
    import relpt

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    encoder = relpt.Encoder.from_pretrained(folder, representation="entity_start", num_threads=threads, dtype=dtype)
    corpus = dataset(paths).tokenize(encoder, max_length=64, show_progress_bar=False)
    owner = relpt.CPTrainer(encoder, **JOB)
    return owner, owner._sampler(corpus), encoder.config


def needed_operations(batch: dict, config: dict) -> int:
    """Floating-point operations of a training step on a batch, recomputing nothing and skipping what nobody reads.

    With T tokens in sequences of n, hidden H, feed-forward F, vocabulary V, M masked tokens, a multiply-add as two:
    a product of (T,I) and (I,O) takes 2TIO forward and as much for either gradient; attention 4 sum(n^2) H forward and
    8 sum(n^2) H backward; the MLM head 6M (HV + H^2). Behind the keys and values of the last layer only the R rows that
    a loss reads count: its start markers and masked tokens. Element-wise work and the contrastive loss are left out.
    """
    H, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    lengths = np.diff(batch["cu_seqlens"].astype(np.int64))
    read = np.unique(np.concatenate([batch["head"], batch["tail"], batch["mlm_row"]]))
    T, R, M = int(lengths.sum()), len(read), len(batch["mlm_row"])
    whole = 6 * T * (4 * H * H + 2 * H * F) + 12 * int((lengths**2).sum()) * H
    seen = int(lengths[batch["sequence"][read]].sum())  # keys of all queries that count
    last = 6 * T * 2 * H * H + 6 * R * (2 * H * H + 2 * H * F) + 12 * seen * H
    return (config["num_hidden_layers"] - 1) * whole + last + 6 * M * (H * V + H * H)


# -- the contestants ---------------------------------------------------------------------------------------------------


def make_relpt(folder: Path, paths: list[str], threads: int, dtype: str) -> Callable[[int], object]:
    """step(number), on relpt."""
    from relpt import _core

    owner, sampler, _ = job(folder, paths, threads, dtype)
    trainer = _core.Trainer(**owner._core_options(32))
    return lambda step: trainer.step(sampler, step)


def make_torch(folder: Path, paths: list[str], threads: int, **form: object) -> Callable[[int], object]:
    """The same on PyTorch, with relpt's batches."""
    import torch
    from torch_model import Opponent

    torch.set_num_threads(threads)
    _, sampler, _ = job(folder, paths, 1)
    model = Opponent(folder, **form, learning_rate=3e-5)
    return lambda step: model.step(sampler.batch(step))


def make_product(threads: int) -> Callable[[int], object]:
    """Ten matrix products."""
    from gemm_cpu import FORMS, Core

    core = Core(threads, 2048, 768, 768)
    return lambda _: [core.run(FORMS[0], 0) for _ in range(10)]


def contestant(folder: Path, paths: list[str], threads: int, name: str) -> Callable[[tuple[int, int]], float]:
    """Does (first, steps), and says how many seconds they took."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if name == PRODUCT:
        step = make_product(threads)
    elif name in OURS:
        step = make_relpt(folder, paths, threads, OURS[name])
    else:
        step = make_torch(folder, paths, threads, **OPPONENTS[name])
    step(0)

    def work(order: tuple[int, int]) -> float:
        first, steps = order
        begin = time.perf_counter()
        for number in range(first, first + steps):
            step(number)
        return time.perf_counter() - begin

    return work


# -- the table ---------------------------------------------------------------------------------------------------------


def measure(names: list[str], options: argparse.Namespace, folder: Path) -> tuple[dict, dict, float]:
    """Sentences and needed operations per second of each contestant in each round, and the matrix product's speed."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    operations: dict[str, list[float]] = {name: [] for name in [*names, PRODUCT]}
    _, sampler, config = job(folder, options.data, 1)
    with contest([*names, PRODUCT], partial(contestant, folder, options.data, options.threads)) as ask:
        for number, name in turns([*names, PRODUCT], options.rounds):
            first = 1 + number * options.steps
            if name == PRODUCT:
                operations[name].append(options.steps * 10 * 2 * 2048 * 768 * 768 / ask(name, (first, options.steps)))
                continue
            seconds = ask(name, (first, options.steps))
            batches = [sampler.batch(step) for step in range(first, first + options.steps)]
            speeds[name].append(sum(len(batch["sample"]) for batch in batches) / seconds)
            operations[name].append(sum(needed_operations(batch, config) for batch in batches) / seconds)
            print(f"round {number + 1}/{options.rounds} {name}: {speeds[name][-1]:.1f}", file=sys.stderr)
    return speeds, operations, statistics.median(operations.pop(PRODUCT))


def main() -> int:
    parser = options_of(__doc__, rounds=7, short="3 rounds of 2 steps")
    add_data(parser)
    parser.add_argument("--model", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument(
        "--contestants", nargs="+", choices=list(LABELS), default=list(LABELS),
        help="all are in memory at once: some 5 GB each for bert-base",
    )  # fmt: skip
    options = parser.parse_args()
    if options.short:
        options.rounds, options.steps = 3, 2
    names = installed(options.contestants, NEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        from relpt.weights import find_folder

        folder = find_folder("minilm") if options.model == "minilm" else Path(temporary)
        if options.model == "bert-base":
            write_random(folder, BERT_BASE)
        speeds, operations, product = measure(names, options, folder)
    ours = [name for name in OURS if name in names]
    rows = [
        {
            "contestant": LABELS[name],
            "sentences_per_second": spread(values),
            **{f"{us}_is_faster_by": statistics.median(speeds[us]) / statistics.median(values) for us in ours},
            "gflops": statistics.median(operations[name]) / 1e9,
            "share": statistics.median(operations[name]) / product,
        }
        for name, values in speeds.items()
    ]
    lines = [
        [
            row["contestant"],
            *ranged(row["sentences_per_second"]),
            *(f"{row[us + '_is_faster_by']:.2f}" for us in ours),
            f"{row['gflops']:.0f}",
            f"{row['share']:.2f}",
        ]
        for row in rows
    ]
    model = {"minilm": "MiniLM-L6", "bert-base": "a network of BERT-base's size"}[options.model]
    publish(
        options,
        title=f"CP + MLM, {model}, 64 sentences a step; matrix product: {product / 1e9:.0f} GFLOP/s",
        head=["", "sentences/s", "range", *(f"{us} / it" for us in ours), "GFLOP/s", "share"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
