"""Memory of a training step: relpt against PyTorch, each in a fresh process.

    python benchmarks/memory.py [--large] [--data FILE…] [--contestants NAME …] [--rounds N] [--threads N]
                                [--json] [--out FILE] [--short]

The job is that of train_cpu.py: MiniLM-L6, CP + MLM, 64 sentences a step, on the same batches. A process loads the
model and makes two steps, so that AdamW's moments are there. ``peak``: the most memory that was resident at any time
(VmHWM); ``rise``: the peak less what was resident when the libraries were imported and no model loaded; ``of PyTorch``:
divided by that of PyTorch in the same precision. The sentences are tokenized before, in another process.

--large adds one step of 2,048 pairs with relpt: the exact contrastive loss over all of them, by gradient caching, with
the activations of 32 pairs at a time. Linux only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
from contest import contest, turns
from report import add_data, dataset, installed, options_of, publish, ranged, spread
from train_cpu import JOB, OPPONENTS, OURS

LABELS = {
    "relpt": "relpt, float32",
    "relpt-bf16": "relpt, bfloat16",
    "torch": "PyTorch, float32",
    "torch-bf16": "PyTorch, bf16 autocast",
    "relpt-large": "relpt, float32, 2,048 pairs",
    "relpt-bf16-large": "relpt, bfloat16, 2,048 pairs",
}
SMALL = ["relpt", "relpt-bf16", "torch", "torch-bf16"]
LARGE = ["relpt-large", "relpt-bf16-large"]
RIVALS = {"relpt": "torch", "relpt-bf16": "torch-bf16"}
STEPS = 2


def resident(field: str) -> float:
    """A memory field of this process in MiB: VmRSS, or VmHWM for its highest value so far."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def prepare(paths: list[str], folder: Path) -> None:
    """The tokenized corpus and the batches of the steps."""
    import relpt

    encoder = relpt.Encoder.from_pretrained("minilm", representation="entity_start")
    corpus = dataset(paths).tokenize(encoder, max_length=64, show_progress_bar=False)
    corpus.save(folder / "corpus")
    sampler = relpt.CPTrainer(encoder, **JOB)._sampler(corpus)
    for step in range(STEPS):
        np.savez(folder / f"{step}.npz", **sampler.batch(step))


def run_relpt(folder: Path, threads: int, dtype: str, pairs: int, steps: int) -> None:
    import relpt
    from relpt import _core

    encoder = relpt.Encoder.from_pretrained("minilm", representation="entity_start", num_threads=threads, dtype=dtype)
    owner = relpt.CPTrainer(encoder, **{**JOB, "pairs_per_step": pairs})
    sampler = owner._sampler(relpt.Corpus.open(folder / "corpus"))
    trainer = _core.Trainer(**owner._core_options(JOB["pairs_per_step"]))
    for step in range(steps):
        trainer.step(sampler, step)


def run_torch(folder: Path, threads: int, form: dict) -> None:
    import torch
    from torch_model import Opponent

    from relpt.weights import find_folder

    torch.set_num_threads(threads)
    model = Opponent(find_folder("minilm"), **form, learning_rate=3e-5)
    for step in range(STEPS):
        with np.load(folder / f"{step}.npz") as batch:
            model.step(dict(batch))


def contestant(folder: Path, threads: int, name: str) -> Callable[[int], dict[str, float]]:
    """Trains, and says how much memory that took."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    plain = name.removesuffix("-large")
    if plain in OURS:
        libraries = ("relpt.trainer", "relpt.corpus", "tokenizers", "safetensors")
        pairs, steps = (2048, 1) if name in LARGE else (JOB["pairs_per_step"], STEPS)
        train = partial(run_relpt, folder, threads, OURS[plain], pairs, steps)
    else:
        libraries = ("torch_model", "relpt.weights")
        train = partial(run_torch, folder, threads, OPPONENTS[name])
    for library in libraries:
        import_module(library)
    before = resident("VmRSS")

    def work(_: int) -> dict[str, float]:
        train()
        peak = resident("VmHWM")
        return {"peak": peak, "rise": peak - before}

    return work


def main() -> int:
    parser = options_of(__doc__, rounds=3, short="1 round")
    add_data(parser)
    parser.add_argument("--contestants", nargs="+", choices=SMALL, default=SMALL)
    parser.add_argument("--large", action="store_true", help="a step of 2,048 pairs too, once")
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    names = installed(options.contestants, {"torch": ("torch",), "torch-bf16": ("torch",)})
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        prepare(options.data, Path(temporary))
        order = [*turns(names, options.rounds), *((0, name) for name in LARGE if options.large)]
        for number, name in order:
            with contest([name], partial(contestant, Path(temporary), options.threads)) as ask:
                found.setdefault(name, []).append(ask(name, number))
            print(f"{name}: {found[name][-1]['peak']:.0f} MiB", file=sys.stderr)
    rows = []
    for name, values in found.items():
        row = {"contestant": LABELS[name], **{key: spread([v[key] for v in values]) for key in ("peak", "rise")}}
        if (rival := found.get(RIVALS.get(name, ""))) is not None:
            for key in ("peak", "rise"):
                row[f"{key}_of_pytorch"] = row[key]["median"] / spread([v[key] for v in rival])["median"]
        rows.append(row)
    lines = [
        [
            row["contestant"],
            *(
                cell
                for key in ("peak", "rise")
                for cell in (
                    *ranged(row[key], 0),
                    f"{row[key + '_of_pytorch']:.2f}" if f"{key}_of_pytorch" in row else "–",
                )
            ),
        ]
        for row in rows
    ]
    publish(
        options,
        title="Memory of a training step in MiB: MiniLM-L6, CP + MLM, 64 sentences",
        head=["", "peak", "range", "of PyTorch", "rise", "range", "of PyTorch"],
        lines=lines,
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
