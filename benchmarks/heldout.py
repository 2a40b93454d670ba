"""How well settings of CPTrainer do on relations held out of a training file: for choosing settings without test data.

    python benchmarks/heldout.py --data FILE [--held-out 16] [--steps 300] [--pairs 32] [--seeds 42,43] [--preset P]
                                 [--representation R] [--dtype D] [--ways 5,10] [--shots 1,5] [--set option=value …]
                                 [--projection] [--json]

The relations are shuffled by --split-seed; the first ones are held out. Of each of these the first --per-relation
sentences are used: 10,000 episodes of every number of ways and shots, cosine, for C+M, OnlyC and OnlyM, by every seed
of the run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
import warnings
from collections import Counter

from machine import describe

import relpt
from relpt.settings import UsageError, parse_settings
from relpt.trainer import LOSS_REPRESENTATION, REPRESENTATION

INPUTS = ("C+M", "OnlyC", "OnlyM")


def split(data: relpt.Dataset, held_out: int, seed: int, per_relation: int) -> tuple[relpt.Dataset, relpt.Dataset]:
    """The sentences to train on, and the first ones of each held-out relation."""
    names = sorted(data.labels)
    random.Random(seed).shuffle(names)
    seen: Counter[str] = Counter()
    unseen = data.select(labels=names[:held_out])
    kept = []
    for number, instance in enumerate(unseen):
        seen[str(instance.relation)] += 1
        if seen[str(instance.relation)] <= per_relation:
            kept.append(number)
    return data.select(labels=names[held_out:]), unseen[kept]


def run(options: argparse.Namespace, settings: dict, seed: int) -> dict:
    """One training run and its scores."""
    encoder = relpt.Encoder.from_pretrained(options.encoder, representation=options.representation, dtype=options.dtype)
    train, unseen = (
        part.tokenize(encoder, show_progress_bar=False)
        for part in split(relpt.load(options.data), options.held_out, options.split_seed, options.per_relation)
    )
    sizes = {"pairs_per_step": options.pairs, "max_steps": options.steps, "seed": seed}
    trainer = relpt.CPTrainer(encoder, preset=options.preset, **{**settings, **sizes})
    begin = time.perf_counter()
    history = trainer.fit(train, show_progress_bar=False)
    seconds = time.perf_counter() - begin
    if options.projection:
        encoder.fit_projection(train, show_progress_bar=False)
    scores = {}
    for inputs in INPUTS:
        vectors = encoder.encode(unseen, inputs=inputs, show_progress_bar=False)
        for task in tasks_of(options):
            scores[label(inputs, task)] = task.score(vectors, unseen.relation).accuracy
    return {"seed": seed, **scores, "seconds": seconds, "loss": float(history["loss"][-20:].mean())}


def tasks_of(options: argparse.Namespace) -> list[relpt.FewShot]:
    """Every number of ways with every number of shots."""
    counts = itertools.product(*([int(n) for n in text.split(",")] for text in (options.ways, options.shots)))
    return [relpt.FewShot(n_way=way, k_shot=shot, episodes=10_000, seed=42) for way, shot in counts]


def label(inputs: str, task: relpt.FewShot) -> str:
    return f"{inputs} {task.n_way}w{task.k_shot}s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--representation", default=REPRESENTATION)
    parser.add_argument("--dtype", default="float32", help="of the matrix products, in training and after it")
    parser.add_argument("--ways", default="5")
    parser.add_argument("--shots", default="1")
    parser.add_argument("--preset")
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--per-relation", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="option=value")
    parser.add_argument("--projection", action="store_true", help="fit one after training")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    warnings.simplefilter("ignore", relpt.TruncationWarning)
    try:
        settings = parse_settings(options.settings)
        if options.representation == REPRESENTATION and options.preset is None:  # as relpt pretrain does
            settings.setdefault("loss_representation", LOSS_REPRESENTATION)
    except UsageError as error:
        parser.error(str(error))
    rows = []
    for seed in map(int, options.seeds.split(",")):
        rows.append(run(options, settings, seed))
        print(", ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), file=sys.stderr)
    scored = [label(inputs, task) for inputs in INPUTS for task in tasks_of(options)]
    medians = {name: statistics.median(row[name] for row in rows) for name in scored}
    if options.json:
        print(
            json.dumps(
                {
                    "benchmark": "heldout",
                    "machine": describe(relpt._core.default_threads()),
                    **vars(options),
                    "rows": rows,
                    **medians,
                }
            )
        )
    else:
        print("median over seeds: " + ", ".join(f"{name} {value:.4f}" for name, value in medians.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
