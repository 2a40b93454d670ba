"""Training speed of relpt against PyTorch at its best, on the same batches, in alternating runs.

    python benchmarks/train_cpu.py [--data FILE…] [--rounds N] [--steps N] [--threads N] [--opponents …]
                                   [--json] [--short]

The job is that of `relpt pretrain --pairs 32`: MiniLM-L6, CP + MLM, 64 sentences a step, at most 64 word pieces. Every
contestant lives in a process of its own, which sleeps while another one is timed; in each round every contestant does
the same number of steps on the same batches. Medians over rounds, with the range; ratios are to
relpt in either precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from contest import contest, turns
from machine import describe

OURS = {"relpt": "float32", "relpt-bf16": "bfloat16"}
OPPONENTS = {
    "torch": {"padded_to": None, "bf16": False},  # packed, SDPA, MLM head on masked rows, fused AdamW, float32
    "torch-bf16": {"padded_to": None, "bf16": True},
    "torch-published": {"padded_to": 64, "bf16": False},  # padded to 64, MLM head on every position
}
JOB = {"preset": "released-code", "mask_same_relation": True, "pairs_per_step": 32, "max_steps": 10**6}
LABELS = {
    "relpt": "relpt, float32",
    "relpt-bf16": "relpt, bfloat16",
    "torch": "PyTorch at its best, float32",
    "torch-bf16": "PyTorch at its best, bf16 autocast",
    "torch-published": "PyTorch, published recipe (padded, MLM head everywhere)",
}


def corpus_and_encoder(paths: list[str], threads: int, dtype: str = "float32"):
    import relpt

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    encoder = relpt.Encoder.from_pretrained("minilm", num_threads=threads, dtype=dtype)
    data = relpt.load(paths[0] if len(paths) == 1 else paths) if paths else relpt.load_sample("all")
    return data.tokenize(encoder, max_length=64, show_progress_bar=False), encoder


def make_relpt(paths: list[str], threads: int, dtype: str):
    """step(number) -> sentences, on relpt."""
    import relpt
    from relpt import _core

    corpus, encoder = corpus_and_encoder(paths, threads, dtype)
    owner = relpt.CPTrainer(
        encoder, preset="released-code", mask_same_relation=True, pairs_per_step=32, max_steps=10**6
    )
    sampler, trainer = owner._sampler(corpus), _core.Trainer(**owner._core_options(32))
    return lambda step: trainer.step(sampler, step)["sentences"]


def make_torch(paths: list[str], threads: int, padded_to: int | None, bf16: bool):
    """The same on PyTorch, with relpt's batches."""
    import torch
    from torch_model import Opponent

    import relpt
    from relpt.weights import find_folder

    torch.set_num_threads(threads)
    corpus, encoder = corpus_and_encoder(paths, 1)
    owner = relpt.CPTrainer(
        encoder, preset="released-code", mask_same_relation=True, pairs_per_step=32, max_steps=10**6
    )
    sampler = owner._sampler(corpus)
    model = Opponent(find_folder("minilm"), padded_to=padded_to, bf16=bf16, learning_rate=3e-5)

    def step(number: int) -> int:
        model.step(sampler.batch(number))
        return 64

    return step


def contestant(paths: list[str], threads: int, name: str) -> Callable[[tuple[int, int]], tuple[float, int]]:
    """Does (first, steps), and says how many seconds and sentences they took."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if name in OURS:
        step = make_relpt(paths, threads, OURS[name])
    else:
        step = make_torch(paths, threads, **OPPONENTS[name])
    step(0)

    def work(order: tuple[int, int]) -> tuple[float, int]:
        first, steps = order
        begin = time.perf_counter()
        sentences = sum(step(first + i) for i in range(steps))
        return time.perf_counter() - begin, sentences

    return work


def measure(names: list[str], options: argparse.Namespace) -> dict[str, list[float]]:
    """Sentences per second of each contestant in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    with contest(names, partial(contestant, options.data, options.threads)) as ask:
        for number, name in turns(names, options.rounds):
            seconds, sentences = ask(name, (1 + number * options.steps, options.steps))
            speeds[name].append(sentences / seconds)
            print(f"round {number + 1}/{options.rounds} {name}: {speeds[name][-1]:.1f}", file=sys.stderr)
    return speeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", nargs="*", default=[], help="FewRel or OpenNRE files; default: the shipped sample corpus"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--opponents", nargs="*", choices=list(OPPONENTS), default=list(OPPONENTS))
    parser.add_argument("--short", action="store_true", help="3 rounds of 2 steps")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--out", type=Path, help="write the JSON to this file too")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.steps = 3, 2
    names = [*OURS, *options.opponents]
    speeds = measure(names, options)
    rows = [
        {
            "contestant": name,
            "sentences_per_second": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            **{f"{ours}_is_faster_by": statistics.median(speeds[ours]) / statistics.median(values) for ours in OURS},
        }
        for name, values in speeds.items()
    ]
    job = {"rounds": options.rounds, "steps": options.steps, "data": options.data or "sample corpus"}
    result = {"benchmark": "train_cpu", "machine": describe(options.threads), **job, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
        return 0
    machine = result["machine"]
    print(f"{machine['cpu']}, {machine['level']}, {options.threads} threads; {machine['versions']}")
    ratios = "".join(f"{ours + ' / it':>16}" for ours in OURS)
    print(f"{'CP + MLM, MiniLM-L6, 64 sentences a step':56} {'sent/s':>8} {'range':>15} {ratios}")
    for row in rows:
        spread = f"{row['lowest']:.1f}–{row['highest']:.1f}"
        print(
            f"{LABELS[row['contestant']]:56} {row['sentences_per_second']:8.1f} {spread:>15} "
            + "".join(f"{row[ours + '_is_faster_by']:16.2f}" for ours in OURS)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
