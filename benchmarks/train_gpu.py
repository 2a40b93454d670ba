"""Training speed of relpt on a GPU against PyTorch at its best on the same one, on the same batches, in turns.

    python benchmarks/train_gpu.py [--model minilm|bert-base] [--pairs N] [--data FILE…] [--rounds N] [--steps N]
                                   [--contestants NAME …] [--at-once N] [--profile FILE]
                                   [--checkpoint FOLDER] [--json] [--out FILE] [--short]

The job is the published one: CP + MLM, 2,048 pairs a step, at most 64 word pieces, on a network of BERT-base's or
MiniLM-L6's size with random weights. The opponents compute in bfloat16 (autocast) with fused AdamW: "unpadded" with
packed rows and FlashAttention on a jagged tensor, "chunks" with attention on runs of sentences of near-equal length,
compiled, "padded" to 64 with the MLM head on every position. The scores of all these positions fit no GPU at once, so
"padded" goes in micro-batches of 256 pairs, each contrasted by itself, as the published job's are. Small steps (--pairs
32) go as CUDA graphs where that is faster; the contestant relpt-direct, which has to be named, never makes any. Every
contestant has a process of its own, and all hold the GPU's memory at once: where it is small, name fewer, or give the
opponents --at-once pairs in a micro-batch. Times of whole steps, the host's part included, between CUDA events; medians
over rounds.

``share``: the floating-point operations that the steps need (train_cpu.needed_operations) each second, divided by those
of PyTorch's bfloat16 product of 8192 x 8192 x 8192. --profile writes how long each kernel took in one step of relpt's,
and each product by its shape, with its speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from contest import contest, turns
from report import add_data, aligned, dataset, installed, options_of, publish, ranged, spread
from stopwatch import stopwatch
from train_cpu import BERT_BASE, JOB, needed_operations, write_random

OURS = {"relpt": "bfloat16", "relpt-float32": "float32", "relpt-direct": "bfloat16"}
OPPONENTS = {
    "torch-unpadded": {"padded_to": None, "jagged": True},
    "torch-chunks": {"padded_to": None, "chunk": 512, "compiled": True},
    "torch-padded": {"padded_to": 64, "chunk": 4096, "compiled": True, "at_once": 256},
}
LABELS = {
    "relpt": "relpt, bfloat16 products",
    "relpt-float32": "relpt, float32",
    "relpt-direct": "relpt, bfloat16 products, without CUDA graphs",
    "torch-unpadded": "PyTorch, unpadded, FlashAttention",
    "torch-chunks": "PyTorch, unpadded, attention in chunks, compiled",
    "torch-padded": "PyTorch, padded, compiled",
}
DEFAULT = [name for name in LABELS if name != "relpt-direct"]
NEEDS = {name: ("torch",) for name in OPPONENTS}
SIZE = 8192  # of the product that is the yardstick


def job(folder: Path, options: argparse.Namespace, dtype: str = "bfloat16", device: str = "cuda"):
    """The trainer, the sampler of its batches and the encoder."""
    import relpt

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    encoder = relpt.Encoder.from_pretrained(folder, representation="entity_start", device=device, dtype=dtype)
    corpus = dataset(options.data).tokenize(encoder, max_length=64, show_progress_bar=False)
    owner = relpt.CPTrainer(encoder, **{**JOB, "pairs_per_step": options.pairs})
    return owner, owner._sampler(corpus), encoder


def make_relpt(folder: Path, options: argparse.Namespace, dtype: str) -> Callable[[int], object]:
    """step(number) on relpt."""
    from relpt import _core

    owner, sampler, _ = job(folder, options, dtype)
    trainer = _core.Trainer(**owner._core_options(owner._micro_batch_pairs()))
    return lambda step: trainer.step(sampler, step)


def make_torch(folder: Path, options: argparse.Namespace, **form: object) -> Callable[[int], object]:
    """The same on PyTorch, with relpt's batches."""
    import torch
    from torch_model import Opponent

    torch.set_float32_matmul_precision("high")
    _, sampler, _ = job(folder, options, "float32", "cpu")
    if options.at_once:
        form["at_once"] = options.at_once
    model = Opponent(folder, bf16=True, learning_rate=3e-5, device="cuda", **form)
    return lambda step: model.step(sampler.batch(step))


def warm_up(options: argparse.Namespace) -> int:
    """Steps before the first round: plans, compilation; of small steps more, which try CUDA graphs out."""
    return max(3, 8192 // options.pairs)


def contestant(folder: Path, options: argparse.Namespace, name: str) -> Callable[[tuple[int, int]], float]:
    """Does (first, steps), and says how many seconds they took."""
    if name in OURS:
        os.environ["RELPT_CUDA_GRAPHS"] = "0" if name == "relpt-direct" else "auto"
        step = make_relpt(folder, options, OURS[name])
    else:
        step = make_torch(folder, options, **OPPONENTS[name])
    start = stopwatch("relpt" if name in OURS else "torch")

    def timed(order: tuple[int, int]) -> float:
        first, steps = order
        stop = start()
        for number in range(first, first + steps):
            step(number)
        return stop()

    timed((0, warm_up(options)))
    return timed


def product_speed() -> float:
    """Floating-point operations a second of PyTorch's bfloat16 product, the median of 20."""
    import torch

    a, b = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    start, seconds = stopwatch("torch"), []
    for _ in range(25):
        stop = start()
        a @ b
        seconds.append(stop())
    return 2 * SIZE**3 / statistics.median(seconds[5:])


def profile(folder: Path, options: argparse.Namespace) -> str:
    """A table of what one step of relpt's did: how often, how long, which part of the step's time, how fast."""
    from relpt import _cuda

    step = make_relpt(folder, options, "bfloat16")
    for number in range(2):
        step(number)
    _cuda.profile_begin()
    step(2)
    found: dict[str, list[tuple[float, float]]] = {}
    for name, seconds, operations in _cuda.profile_end():
        found.setdefault(name, []).append((seconds, operations))
    times = {name: [sum(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    whole = sum(seconds for seconds, _ in times.values())
    lines = [["", "times", "ms", "share", "TFLOP/s"]]
    for name, (seconds, operations) in sorted(times.items(), key=lambda row: -row[1][0]):
        speed = f"{operations / seconds / 1e12:.0f}" if operations else ""
        lines.append([name, str(len(found[name])), f"{1e3 * seconds:.3f}", f"{seconds / whole:.3f}", speed])
    products = sum(seconds for seconds, operations in times.values() if operations)
    lines.append(["all products", "", f"{1e3 * products:.3f}", f"{products / whole:.3f}", ""])
    lines.append(["all", str(sum(map(len, found.values()))), f"{1e3 * whole:.3f}", "", ""])
    return "\n".join(aligned(lines)) + "\n"


def measure(names: list[str], options: argparse.Namespace, folder: Path) -> tuple[dict, dict]:
    """Seconds a step and needed operations a second of each contestant in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    operations: dict[str, list[float]] = {name: [] for name in names}
    _, sampler, encoder = job(folder, options, "float32", "cpu")
    with contest(names, partial(contestant, folder, options)) as ask:
        for number, name in turns(names, options.rounds):
            first = warm_up(options) + number * options.steps
            took = ask(name, (first, options.steps))
            batches = [sampler.batch(step) for step in range(first, first + options.steps)]
            needed = sum(needed_operations(batch, encoder.config) for batch in batches)
            seconds[name].append(took / options.steps)
            operations[name].append(needed / took)
            print(f"round {number + 1}/{options.rounds} {name}: {1e3 * seconds[name][-1]:.1f} ms", file=sys.stderr)
    return seconds, operations


def main() -> int:
    parser = options_of(__doc__, rounds=5, short="3 rounds of 2 steps")
    add_data(parser)
    parser.add_argument("--model", choices=("minilm", "bert-base"), default="bert-base")
    parser.add_argument("--checkpoint", type=Path, help="a folder with MiniLM's config.json and tokenizer.json")
    parser.add_argument("--pairs", type=int, default=2048, help="a step")
    parser.add_argument("--steps", type=int, default=10, help="a round")
    parser.add_argument("--at-once", type=int, help="pairs in a micro-batch of the opponents")
    parser.add_argument("--profile", type=Path, help="write the time of each kernel and product of a step to this file")
    parser.add_argument("--contestants", nargs="+", choices=list(LABELS), default=DEFAULT)
    options = parser.parse_args()
    if options.short:
        options.rounds, options.steps = 3, 2
    names = installed(options.contestants, NEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_random(folder, BERT_BASE if options.model == "bert-base" else {}, options.checkpoint)
        if options.profile:
            options.profile.write_text(profile(folder, options), encoding="utf-8")
        seconds, operations = measure(names, options, folder)
    peak = product_speed() if installed(["torch"], {"torch": ("torch",)}) else float("nan")
    rows = [
        {
            "contestant": LABELS[name],
            "milliseconds": spread([1e3 * value for value in values]),
            "relpt_is_faster_by": statistics.median(values) / statistics.median(seconds.get("relpt", values)),
            "tflops": statistics.median(operations[name]) / 1e12,
            "share": statistics.median(operations[name]) / peak,
        }
        for name, values in seconds.items()
    ]
    lines = [
        [
            row["contestant"],
            *ranged(row["milliseconds"]),
            f"{row['relpt_is_faster_by']:.2f}",
            f"{row['tflops']:.0f}",
            f"{row['share']:.2f}",
        ]
        for row in rows
    ]
    publish(
        options,
        title=f"CP + MLM, {options.model}, {options.pairs} pairs a step; bfloat16 product: {peak / 1e12:.0f} TFLOP/s",
        head=["", "ms a step", "range", "relpt / it", "TFLOP/s", "share"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
