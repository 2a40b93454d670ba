"""Speed of the matrix products of a training step, against the libraries' best, in alternating runs.

    python benchmarks/gemm_cpu.py [--contestants NAME …] [--tokens N] [--rounds N] [--threads N]
                                  [--json] [--out FILE] [--short]

Each linear map of MiniLM-L6 and BERT-base, forward and both gradients: relpt's operations in float32 and bfloat16,
which take and give float32; NumPy's OpenBLAS in float32; PyTorch's matmul in float32, and in bfloat16 with operands
and results already bfloat16, so without the conversions that its autocast adds. GFLOP/s, medians over rounds.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from contest import contest, turns
from report import installed, options_of, publish

SHAPES = {  # inputs, outputs
    "MiniLM-L6 qkv": (384, 1152),
    "MiniLM-L6 out": (384, 384),
    "MiniLM-L6 up": (384, 1536),
    "MiniLM-L6 down": (1536, 384),
    "BERT-base qkv": (768, 2304),
    "BERT-base out": (768, 768),
    "BERT-base up": (768, 3072),
    "BERT-base down": (3072, 768),
}
FORMS = ("forward", "input gradient", "weight gradient")
CONTESTANTS = ["relpt float32", "relpt bfloat16", "NumPy float32", "PyTorch float32", "PyTorch bfloat16"]
DTYPES = ("float32", "bfloat16")  # rp_dtype


class Core:
    """relpt's linear operations on its own device."""

    def __init__(self, threads: int, tokens: int, inputs: int, outputs: int) -> None:
        from ops.harness import Device

        self.device, self.sizes = Device("cpu", threads), (tokens, inputs, outputs)
        self.device.raw("reserve", self.device.scratch_bytes((tokens, max(inputs, outputs), inputs * outputs, 1, 1)))
        shapes = {"x": (tokens, inputs), "w": (outputs, inputs), "y": (tokens, outputs)}
        self.at = {name: self.device.alloc(4 * rows * columns) for name, (rows, columns) in shapes.items()}
        self.out = self.device.alloc(4 * max(rows * columns for rows, columns in shapes.values()))
        for seed, (name, shape) in enumerate(shapes.items()):
            values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
            self.device.raw("upload", self.at[name], values.ctypes.data, values.nbytes)

    def run(self, form: str, products: int) -> None:
        self.device.struct.products = products
        x, w, y = (self.at[name] for name in "xwy")
        if form == "forward":
            self.device.raw("linear_forward", self.out, x, w, None, *self.sizes)
        elif form == "input gradient":
            self.device.raw("linear_backward", self.out, None, None, y, x, w, *self.sizes, 0)
        else:
            self.device.raw("linear_backward", None, self.out, None, y, x, w, *self.sizes, 0)


def numpy_products(tokens: int, inputs: int, outputs: int) -> dict[str, Callable[[], object]]:
    """What NumPy does for each form."""
    rng = np.random.default_rng(0)
    x, w, y = (rng.normal(size=s).astype(np.float32) for s in ((tokens, inputs), (outputs, inputs), (tokens, outputs)))
    return {FORMS[0]: lambda: x @ w.T, FORMS[1]: lambda: y @ w, FORMS[2]: lambda: y.T @ x}


def torch_products(tokens: int, inputs: int, outputs: int, dtype: str) -> dict[str, Callable[[], object]]:
    """What PyTorch does for each form."""
    import torch

    kind = getattr(torch, dtype)
    x, w, y = (torch.randn(shape, dtype=kind) for shape in ((tokens, inputs), (outputs, inputs), (tokens, outputs)))
    return {FORMS[0]: lambda: x @ w.T, FORMS[1]: lambda: y @ w, FORMS[2]: lambda: y.T @ x}


def contestant(tokens: int, threads: int, name: str) -> Callable[[tuple[str, str]], float]:
    """Does one form of one shape for half a second, and says its GFLOP/s."""
    library, dtype = name.split()
    if library == "PyTorch":
        import torch

        torch.set_num_threads(threads)

    @functools.cache
    def products(shape: str) -> dict[str, Callable[[], object]]:
        if library == "relpt":
            core = Core(threads, tokens, *SHAPES[shape])
            return {form: partial(core.run, form, DTYPES.index(dtype)) for form in FORMS}
        if library == "NumPy":
            return numpy_products(tokens, *SHAPES[shape])
        return torch_products(tokens, *SHAPES[shape], dtype)

    def work(order: tuple[str, str]) -> float:
        shape, form = order
        call, done = products(shape)[form], 0
        call()
        begin = time.perf_counter()
        while (seconds := time.perf_counter() - begin) < 0.5:
            call()
            done += 1
        inputs, outputs = SHAPES[shape]
        return 2e-9 * tokens * inputs * outputs * done / seconds

    return work


def measure(names: list[str], options: argparse.Namespace) -> list[dict]:
    """One row per shape, form and contestant."""
    rows = []
    os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)  # NumPy's; relpt's calls it with one
    with contest(names, partial(contestant, options.tokens, options.threads)) as ask:
        for shape in SHAPES:
            for form in FORMS:
                speeds: dict[str, list[float]] = {name: [] for name in names}
                for _, name in turns(names, options.rounds):
                    speeds[name].append(ask(name, (shape, form)))
                for name, values in speeds.items():
                    found = {"gflops": statistics.median(values), "lowest": min(values), "highest": max(values)}
                    rows.append({"shape": shape, "form": form, "contestant": name, **found})
    return rows


def main() -> int:
    parser = options_of(__doc__, rounds=5, short="1 round")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, metavar="NAME")
    parser.add_argument("--tokens", type=int, default=2816)
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    names = installed(options.contestants, {"PyTorch": ("torch",)})
    rows = measure(names, options)
    speed = {(row["shape"], row["form"], row["contestant"]): row["gflops"] for row in rows}
    publish(
        options,
        title=f"Matrix products of {options.tokens} tokens, GFLOP/s",
        head=["", *names],
        lines=[
            [f"{shape}, {form}", *(f"{speed[shape, form, name]:.0f}" for name in names)]
            for shape in SHAPES
            for form in FORMS
        ],
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
