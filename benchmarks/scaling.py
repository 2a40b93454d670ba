"""How relpt's cost grows: with sentences, their length, pairs a step, and threads.

    python benchmarks/scaling.py [--plot FILE.png] [--rounds N] [--threads N] [--json] [--out FILE] [--short]

MiniLM-L6 on the sample corpus, in float32 and bfloat16:

- sentences: seconds to encode so many (C+M, at most 64 word pieces; beyond the corpus' size its sentences repeat).
- length: microseconds a token to encode sequences of exactly so many tokens, 4,096 tokens a call.
- pairs: sentences a second of a training step (CP + MLM) of so many pairs, all activations held at once.
- threads: sentences a second of a training step of 32 pairs on so many threads.

Medians over rounds, with the range; every round goes through all points, in alternating order.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from contest import turns
from report import options_of, publish, ranged, spread
from train_cpu import JOB

POINTS = {
    "sentences": [16, 64, 256, 1024, 4096],
    "length": [8, 16, 32, 64, 128, 256, 512],
    "pairs": [4, 8, 16, 32, 64, 128, 256],
}
SHORT = {"sentences": [16, 64, 256], "length": [16, 64, 256], "pairs": [4, 16, 64]}
UNITS = {"sentences": "seconds", "length": "µs a token", "pairs": "sentences/s", "threads": "sentences/s"}
LABELS = {
    "sentences": "sentences",
    "length": "tokens a sentence",
    "pairs": "pairs a step",
    "threads": "threads (32 pairs a step)",
}
ENCODING = ("sentences", "length")
DTYPES = ("float32", "bfloat16")
TOKENS = 4096


# -- what is timed: each gives a function that measures a point once, in its unit --------------------------------------


@cache
def encoder_of(dtype: str, threads: int):
    import relpt

    return relpt.Encoder.from_pretrained("minilm", representation="entity_start", dtype=dtype, num_threads=threads)


@cache
def corpus():
    import relpt

    return relpt.load_sample("all").tokenize(encoder_of("float32", 1), max_length=64, show_progress_bar=False)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def sentences(count: int, dtype: str, threads: int) -> Callable[[], float]:
    encoder, rows = encoder_of(dtype, threads), np.resize(np.arange(len(corpus())), count)
    return lambda: seconds(lambda: encoder._states(corpus(), rows, "C+M", 64, dtype, False))


def length(tokens: int, dtype: str, threads: int) -> Callable[[], float]:
    from relpt import _core

    run = _core.EncodeRun(encoder_of(dtype, threads)._model, TOKENS, TOKENS, threads, DTYPES.index(dtype))
    ids = np.random.default_rng(0).integers(2000, 20000, TOKENS).astype(np.int32)
    cu_seqlens = np.arange(0, TOKENS + 1, tokens, dtype=np.int32)
    return lambda: 1e6 * seconds(lambda: run.ids(ids, cu_seqlens)) / TOKENS


def pairs(count: int, dtype: str, threads: int) -> Callable[[], float]:
    import relpt
    from relpt import _core

    owner = relpt.CPTrainer(encoder_of(dtype, threads), **{**JOB, "pairs_per_step": count})
    sampler = owner._sampler(corpus())

    def measure() -> float:
        trainer = _core.Trainer(**owner._core_options(count))  # its memory is given back before the next point
        trainer.step(sampler, 0)
        return 2 * count / seconds(lambda: trainer.step(sampler, 1))

    return measure


def threads(count: int, dtype: str, _: int) -> Callable[[], float]:
    return pairs(JOB["pairs_per_step"], dtype, count)


KINDS = {"sentences": sentences, "length": length, "pairs": pairs, "threads": threads}


# -- table and plot ----------------------------------------------------------------------------------------------------


def plot(rows: list[dict], path: Path, title: str) -> None:
    """A panel for each question: medians, with the range as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for panel, kind in zip(panels.flat, KINDS, strict=True):
        for dtype in DTYPES:
            of = [row for row in rows if (row["kind"], row["dtype"]) == (kind, dtype)]
            x, y = [row["point"] for row in of], np.array([row["found"]["median"] for row in of])
            low, high = (np.array([row["found"][end] for row in of]) for end in ("lowest", "highest"))
            panel.errorbar(x, y, [y - low, high - y], marker="o", markersize=4, capsize=2, label=dtype)
        panel.set_xscale("log", base=2)
        panel.set_xticks(x, [f"{point:,}" for point in x])
        if kind == "sentences":
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            panel.set_ylim(bottom=0)
        panel.minorticks_off()
        panel.set(xlabel=LABELS[kind], ylabel=UNITS[kind], title="encoding" if kind in ENCODING else "training")
        panel.grid(alpha=0.3)
    panels[0, 0].legend()
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> int:
    parser = options_of(__doc__, rounds=5, short="2 rounds of fewer points")
    parser.add_argument("--plot", type=Path, help="a figure of the table")
    options = parser.parse_args()
    points = dict(SHORT if options.short else POINTS)
    if options.short:
        options.rounds = 2
    cores = len(os.sched_getaffinity(0))
    points["threads"] = sorted({*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores})
    work = {
        f"{kind} {point} {dtype}": (kind, point, dtype, KINDS[kind](point, dtype, options.threads))
        for kind in KINDS
        for point in points[kind]
        for dtype in DTYPES
    }
    values: dict[str, list[float]] = {name: [] for name in work}
    for _, name in turns(list(work), options.rounds + 1):
        values[name].append(work[name][-1]())
    rows = [
        {"kind": kind, "point": point, "dtype": dtype, "found": spread(values[name][1:])}  # the first round warms up
        for name, (kind, point, dtype, _) in work.items()
    ]
    found = {(row["kind"], row["point"], row["dtype"]): row["found"] for row in rows}
    lines = [
        [f"{LABELS[kind]}: {point:,}", UNITS[kind], *(c for d in DTYPES for c in ranged(found[kind, point, d], 2))]
        for kind in KINDS
        for point in points[kind]
    ]
    title = "How relpt's cost grows, MiniLM-L6"
    publish(options, title=title, head=["", "unit", "float32", "range", "bfloat16", "range"], lines=lines, rows=rows)
    if options.plot:
        from machine import cpu_model

        plot(rows, options.plot, f"relpt, MiniLM-L6, {cpu_model()}, {options.threads} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
