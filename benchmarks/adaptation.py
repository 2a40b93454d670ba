"""What unlabelled text of another domain gives: FewShot.fit on Wikipedia with and without a target, tested on PubMed.

    python benchmarks/adaptation.py [--data FOLDER] [--seeds 42,43,44] [--steps 300] [--dtype D] [--results FOLDER]

FOLDER is FewRel's: train64_partial.json, val_wiki.json, val_pubmed.json and pubmed_unsupervised.json. Every recipe
trains the same encoder on the same episodes (5 ways, 1 shot, 5 queries, 4 a step, cosine); the adversarial ones do so
against a discriminator of the two domains, whose gradient is reversed by a lambda. Tested as in objectives.py: 10,000
episodes. Each row is kept in RESULTS/adaptation.jsonl as soon as it is there, and is not computed again;
RESULTS/adaptation.md has the medians.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from objectives import HERE, INPUTS, SETTINGS, cell, judged, kept_row, machines_of, scores, scores_of, table, tokenized

import relpt

# lambda of the reversed gradient; None: no target.
REVERSALS = {"prototypes": None, "adversarial": 0.1, "adversarial, 0.01": 0.01, "adversarial, 1": 1.0}
ONCE = ("before", "adversarial, 0.01", "adversarial, 1")  # with the first seed alone
EPISODES: dict[str, Any] = {"n_way": 5, "k_shot": 1, "n_query": 5, "similarity": "cosine"}
SOURCE = "train64_partial.json"
TARGET = "pubmed_unsupervised.json"
TESTS = ("val_wiki.json", "val_pubmed.json")


def settings_of(options: argparse.Namespace, recipe: str, seed: int) -> dict[str, Any]:
    """What a row is a function of."""
    given = {"steps": options.steps, "dtype": options.dtype, "encoder": "minilm", "episodes": EPISODES}
    return {"recipe": recipe, "reversal": REVERSALS.get(recipe), "seed": seed, **given}


def measured(options: argparse.Namespace, recipe: str, seed: int, tests: list[relpt.Corpus]) -> dict[str, Any]:
    """The scores; of a discriminator also the share of sentences that it tells, in the last two thirds of the steps."""
    encoder, reversal, told = relpt.Encoder.from_pretrained("minilm", dtype=options.dtype), REVERSALS.get(recipe), {}
    if recipe != "before":
        target = {} if reversal is None else {"target": options.data / TARGET, "reversal": reversal}
        source = tokenized(str(options.data / SOURCE), "minilm")
        history = relpt.FewShot(**EPISODES, seed=seed).fit(
            encoder, source, max_steps=options.steps, show_progress_bar=False, **target
        )
        if target:
            told = {"told": round(float(history["accuracy_domain"][options.steps // 3 :].mean()), 4)}
    return {**told, "scores": scores(encoder, tests, list(INPUTS))}


def page(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    episodes = ", ".join(f"{name} {value}" for name, value in EPISODES.items())
    parts = [
        "# What unlabelled text of another domain gives",
        f"MiniLM-L6, its vector [H,T], trained on episodes of {SOURCE}: {options.steps} steps, {options.dtype}, "
        f"{episodes}; adversarial: with {TARGET}, lambda {REVERSALS['adversarial']} or as said. 10,000 test episodes. "
        f"Medians over the seeds {', '.join(map(str, options.seeds))} (lowest – highest), of other lambdas the first.",
        machines_of(rows),
    ]
    for data in dict.fromkeys(score["data"] for row in rows for score in row["scores"]):
        head = ["recipe", "inputs", *(f"{way}-way {shot}-shot" for way, shot in SETTINGS)]
        lines = [head, ["---", "---", *["---:"] * len(SETTINGS)]]
        for recipe in dict.fromkeys(row["recipe"] for row in rows):
            lines += [[recipe, name, *(cell(rows, recipe, data, name, *each) for each in SETTINGS)] for name in INPUTS]
        claims = []
        for recipe, reversal in REVERSALS.items():
            if reversal is not None:
                for name in INPUTS:
                    pair = (scores_of(rows, each, data, name) for each in (recipe, "prototypes"))
                    claims.append((f"{recipe} to prototypes, {name}", *pair))
        said = "5-way 1-shot: mean difference of the same seeds' accuracies, with its 95 % interval (Student's t)."
        parts += [f"## {data}", table(lines), said, table(judged(claims, "compared", ("above", "below")))]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "fewrel")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", relpt.TruncationWarning)
    kept = options.results / "adaptation.jsonl"
    tests = [tokenized(str(options.data / name), "minilm") for name in TESTS]
    rows = []
    for seed in options.seeds:
        for recipe in ("before", *REVERSALS):
            if recipe not in ONCE or seed == options.seeds[0]:
                settings = settings_of(options, recipe, seed)
                rows.append(kept_row(kept, settings, partial(measured, options, recipe, seed, tests)))
    text = page(rows, options)
    (options.results / "adaptation.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
