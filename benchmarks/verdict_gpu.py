"""What the CUDA back end was built to reach on one H100 or H200, against what this GPU shows: a line for each figure.

    python benchmarks/verdict_gpu.py [--parts NAME …] [--train FILE…] [--test FILE] [--checkpoint FOLDER]
                                     [--steps N] [--seeds 42-44] [--profile FILE] [--device D]
                                     [--json] [--out FILE]

Each part is one of the benchmarks, or commands of relpt's, in processes of their own:

    step      train_gpu.py on BERT-base's size, 2,048 pairs: milliseconds, share of the product, against PyTorch;
              --profile writes where a step's time goes
    minilm    the same on MiniLM-L6's size, against PyTorch unpadded
    small     steps of 32 pairs, with CUDA graphs and without: nothing is asked, the gain is shown
    encode    encode_gpu.py from text, against sentence-transformers
    fewshot   MiniLM-L6 after 300 steps of 32 pairs on --train, 5-way 1-shot on --test, on the GPU and on the CPU: the
              difference of the means over the seeds, asked to be no more than the CPU's range,
              of two seeds or more
    job       `relpt pretrain` as published, 2,048 pairs of up to 64 word pieces on BERT-base's size with random
              weights, for --steps steps from reading the files to the saved model; fewer than 3,500 are scaled up, and
              said so

Without --train and --test it takes the sample corpus, which is too small for the few-shot figure to mean much. The exit
status is 1 where a part fails or a figure misses. `make test-cuda` comes first.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from report import dataset, options_of, publish
from train_cpu import BERT_BASE, write_random

HERE = Path(__file__).parent
JOB_STEPS = 3500


class Figure(NamedTuple):
    name: str
    found: float
    asked: float | None = None
    at_most: bool = False

    @property
    def reached(self) -> bool:
        if self.asked is None:
            return True
        return self.found <= self.asked if self.at_most else self.found >= self.asked


def benchmark(options: argparse.Namespace, script: str, *arguments: str) -> dict[str, dict]:
    """{contestant: row} of a benchmark."""
    command = [sys.executable, str(HERE / script), "--json", *arguments]
    if options.checkpoint:
        command += ["--checkpoint", str(options.checkpoint)]
    if options.train:
        command += ["--data", *map(str, options.train)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {row["contestant"]: row for row in json.loads(done.stdout)["rows"]}


def against(options: argparse.Namespace, model: str, opponents: tuple[str, ...]) -> float:
    """How many times as fast relpt is as the fastest of these; NaN where none starts.

    One that does not start, as where both do not fit into the GPU's memory, tries again in micro-batches, and says so.
    """
    from train_gpu import LABELS

    found = []
    for name in opponents:
        for at_once in ((), ("--at-once", "512"), ("--at-once", "128")):
            contest = ("--short", "--model", model, "--contestants", "relpt", name, *at_once)
            try:
                rows = benchmark(options, "train_gpu.py", *contest)
                found.append(rows[LABELS[name]]["relpt_is_faster_by"])
                break
            except (subprocess.CalledProcessError, KeyError) as error:
                print(f"{' '.join((name, *at_once))} is not compared: {error}", file=sys.stderr)
    return min(found, default=math.nan)


def step(options: argparse.Namespace) -> Iterator[Figure]:
    alone = ["--short", "--model", "bert-base", "--contestants", "relpt"]
    if options.profile:
        alone += ["--profile", str(options.profile)]
    (ours,) = benchmark(options, "train_gpu.py", *alone).values()
    yield Figure("BERT-base, 2,048 pairs: milliseconds a step", ours["milliseconds"]["median"], 130, at_most=True)
    yield Figure("… share of the bfloat16 product's speed", ours["share"], 0.5)
    yield Figure("… times PyTorch, unpadded", against(options, "bert-base", ("torch-unpadded", "torch-chunks")), 1.5)
    yield Figure("… times PyTorch, padded", against(options, "bert-base", ("torch-padded",)), 3)


def minilm(options: argparse.Namespace) -> Iterator[Figure]:
    found = against(options, "minilm", ("torch-unpadded", "torch-chunks"))
    yield Figure("MiniLM-L6, 2,048 pairs: times PyTorch, unpadded", found, 2)


def small(options: argparse.Namespace) -> Iterator[Figure]:
    from train_gpu import LABELS

    sizes = ("--model", "minilm", "--pairs", "32", "--steps", "100", "--rounds", "3")
    rows = benchmark(options, "train_gpu.py", *sizes, "--contestants", "relpt", "relpt-direct")
    yield Figure("MiniLM-L6, 32 pairs: milliseconds a step", rows[LABELS["relpt"]]["milliseconds"]["median"])
    yield Figure("… times the same without CUDA graphs", rows[LABELS["relpt-direct"]]["relpt_is_faster_by"])


def encode(options: argparse.Namespace) -> Iterator[Figure]:
    rows = benchmark(options, "encode_gpu.py", "--short", "--device", options.device)
    yield Figure("MiniLM-L6: sentences a second", rows["relpt bfloat16"]["sentences_per_second"]["median"])
    if "sentence-transformers from text" in rows:
        found = rows["sentence-transformers from text"]["relpt_is_faster_by"]
        yield Figure("encoding from text: times sentence-transformers", found, 1.5)


def accuracies(options: argparse.Namespace, device: str) -> list[float]:
    """Few-shot accuracy after the job of the README, for each seed."""
    import relpt

    found = []
    for seed in options.seeds:
        encoder = relpt.Encoder.from_pretrained(options.checkpoint or "minilm", device=device)
        trainer = relpt.CPTrainer(encoder, pairs_per_step=32, max_steps=options.fewshot_steps, seed=seed)
        trainer.fit(dataset(options.train), show_progress_bar=False)
        result = relpt.FewShot(n_way=5, k_shot=1).evaluate(encoder, dataset(options.test), show_progress_bar=False)
        print(f"fewshot, {device}, seed {seed}: {result.accuracy:.4f}", file=sys.stderr)
        found.append(result.accuracy)
    return found


def fewshot(options: argparse.Namespace) -> Iterator[Figure]:
    there, here = (accuracies(options, device) for device in (options.device, "cpu"))
    yield Figure(f"few-shot accuracy after {options.fewshot_steps} steps", statistics.mean(there))
    off = abs(statistics.mean(there) - statistics.mean(here))
    spread = max(here) - min(here) if len(here) > 1 else None
    yield Figure("… difference to the CPU's", off, spread, at_most=True)


def job(options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "encoder").mkdir()
        write_random(folder / "encoder", BERT_BASE, options.checkpoint)
        files = options.train
        if not files:
            import relpt

            files = [folder / "sample.jsonl"]
            relpt.load_sample("all").save(files[0])
        command = [sys.executable, "-m", "relpt", "pretrain", "-q", "--data", *map(str, files)]
        command += ["--encoder", str(folder / "encoder"), "-o", str(folder / "run"), "--device", options.device]
        command += ["--preset", "released-code", "--set", "mask_same_relation=true"]  # train_cpu.JOB
        command += ["--pairs", str(options.pairs), "--max-length", "64", "--steps", str(options.steps)]
        begin = time.monotonic()
        subprocess.run(command, stdout=sys.stderr, check=True)
        minutes = (time.monotonic() - begin) / 60
    scaled = "" if options.steps == JOB_STEPS else f", scaled up from {options.steps}"
    yield Figure(f"3,500 steps, end to end: minutes{scaled}", minutes * JOB_STEPS / options.steps, 10, at_most=True)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Figure]]] = {
    "step": step,
    "minilm": minilm,
    "small": small,
    "encode": encode,
    "fewshot": fewshot,
    "job": job,
}


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> int:
    parser = options_of(__doc__, rounds=1, short="nothing is shorter: the parts are in their short form")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--train", nargs="*", type=Path, default=[], help="FewRel's training file")
    parser.add_argument("--test", nargs="*", type=Path, default=[], help="FewRel's validation file")
    parser.add_argument("--checkpoint", type=Path, help="a folder with MiniLM-L6; default: the installed package")
    parser.add_argument("--steps", type=int, default=JOB_STEPS, help="of the job")
    parser.add_argument("--pairs", type=int, default=2048, help="a step of the job")
    parser.add_argument("--fewshot-steps", type=int, default=300)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("42-44"))
    parser.add_argument("--profile", type=Path, help="of the part step: where a step's time goes, to this file")
    parser.add_argument("--device", default="cuda", help="cpu, to try the script")
    options = parser.parse_args()
    figures: list[Figure] = []
    failed = []
    for name in options.parts:
        print(f"== {name}", file=sys.stderr)
        try:
            figures += PARTS[name](options)
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            print(f"== {name} FAILED: {error}", file=sys.stderr)
            failed.append(name)
    lines = [
        [
            figure.name,
            f"{figure.found:.3g}",
            "–" if figure.asked is None else f"{'≤' if figure.at_most else '≥'} {figure.asked:.3g}",
            "" if figure.asked is None else "reached" if figure.reached else "MISSED",
        ]
        for figure in figures
    ]
    lines += [[f"{name} failed", "", "", "MISSED"] for name in failed]
    rows = [{**figure._asdict(), "reached": figure.reached} for figure in figures]
    publish(options, title="The CUDA back end", head=["", "found", "asked", ""], lines=lines, rows=rows)
    return 1 if failed or not all(figure.reached for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
