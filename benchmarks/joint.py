"""What joint objectives cost: a training step of each alone and of mixes, and how much of it is the encoder's.

    python benchmarks/joint.py [--data FILE…] [--pairs N] [--dtype D] [--mixes NAME …] [--rounds N] [--steps N]
                               [--threads N] [--json] [--out FILE] [--short]

All steps are of MiniLM-L6 with as many sentences; where a mix draws from two sources, each gives half. In each round
all take turns with a few steps; medians over rounds, with the range.

``alone``: the steps of the mix's objectives one after another, each with a forward and a backward pass of its own, in
milliseconds. ``shared``: the mix's step as a part of that.

``update``: what the optimiser takes, a step less the same without its update. ``encoder``: forward and backward pass of
the encoder, a step of RC on the same number of sentences without the update; its head, a product with some dozen
relations, is less than a thousandth of it. ``heads``: what is left, the objectives' own products and what they read of
the last layer beyond the markers.

``GFLOP/s``: operations that the step's products need (see ``train_cpu.needed_operations``) a second. Where it does not
fall from the objectives alone to a mix, the mix costs no more than its products.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings

from report import add_data, dataset, options_of, publish, ranged, spread
from train_cpu import needed_operations

BASE = "RC"  # next to no head: the encoder
MIXES = {
    "RC": ("rc",),
    "CP": ("cp",),
    "MLM": ("mlm",),
    "MTB": ("mtb",),
    "EP": ("ep",),
    "CP + MLM": ("cp", "mlm"),
    "CP + RC": ("cp", "rc"),
    "CP + RC + MLM": ("cp", "rc", "mlm"),
    "MTB + MLM": ("mtb", "mlm"),
    "CP + MTB": ("cp", "mtb"),
    "CP + RC + MTB + EP + MLM": ("cp", "rc", "mtb", "ep", "mlm"),
}
ALONE = {names[0]: title for title, names in MIXES.items() if len(names) == 1}


class Contestant:
    """A mix ready to be timed."""

    def __init__(self, names: tuple[str, ...], options: argparse.Namespace, corpus: object, folder: str) -> None:
        import relpt
        from relpt import _core
        from relpt.objectives import OBJECTIVES

        encoder = relpt.Encoder.from_pretrained(folder, num_threads=options.threads, dtype=options.dtype)
        # RC reads the sentences of the pairs by relation, so that CP and RC share them.
        given = [OBJECTIVES[name](**({"source": "relations"} if name == "rc" else {})) for name in names]
        sources = len({item.source for item in given if item.source is not None})
        owner = relpt.Trainer(
            encoder,
            objectives=given,
            pairs_per_step=options.pairs // max(1, sources),
            input_mix={"C+M": 1.0},
            max_steps=10**6,
        )
        self.config = encoder.config
        self.sampler = owner._sampler(corpus)
        self.trainer = _core.Trainer(**owner._core_options(options.pairs, corpus.relations))
        self.trainer.step(self.sampler, 0)

    def seconds(self, first: int, steps: int, update: bool) -> float:
        """Of one step, on average."""
        step = self.trainer.step if update else self.trainer.gradients
        begin = time.perf_counter()
        for number in range(first, first + steps):
            step(self.sampler, number)
        return (time.perf_counter() - begin) / steps

    def facts(self, first: int, steps: int) -> tuple[float, float, float]:
        """Sentences, tokens and needed operations of a step, on average."""
        batches = [self.sampler.batch(number) for number in range(first, first + steps)]
        counts = [(len(batch["sample"]), len(batch["ids"]), needed_operations(batch, self.config)) for batch in batches]
        sentences, tokens, operations = (statistics.mean(column) for column in zip(*counts, strict=True))
        return sentences, tokens, operations


def opened(options: argparse.Namespace, corpus: object) -> dict[str, Contestant]:
    """The mixes that the data can train; names the others on stderr."""
    found = {}
    for title in dict.fromkeys([BASE, *options.mixes]):
        try:
            found[title] = Contestant(MIXES[title], options, corpus, "minilm")
        except ValueError as error:
            print(f"{title} is left out: {error}", file=sys.stderr)
    return found


def measure(mixes: dict[str, Contestant], options: argparse.Namespace) -> dict[str, dict]:
    """Milliseconds of a step, and of one without its update, for each round."""
    times: dict[str, dict[str, list[float]]] = {title: {"step": [], "gradients": []} for title in mixes}
    for number in range(options.rounds):
        order = list(mixes) if number % 2 == 0 else list(reversed(mixes))
        for title in order:
            for kind, update in (("step", True), ("gradients", False)):
                seconds = mixes[title].seconds(1 + number * options.steps, options.steps, update)
                times[title][kind].append(1000 * seconds)
        print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
    return times


def row_of(title: str, times: dict[str, dict], mix: Contestant, options: argparse.Namespace) -> dict:
    """The figures of a mix."""
    sentences, tokens, operations = mix.facts(1, options.rounds * options.steps)
    step, gradients = (spread(times[title][kind]) for kind in ("step", "gradients"))
    encoder = statistics.median(times[BASE]["gradients"])
    parts = [ALONE[name] for name in MIXES[title]]
    alone = sum(statistics.median(times[part]["step"]) for part in parts) if set(parts) <= times.keys() else None
    return {
        "mix": title,
        "sentences": sentences,
        "tokens": tokens,
        "milliseconds": step,
        "alone": alone,
        "shared": None if alone is None else step["median"] / alone,
        "update": step["median"] - gradients["median"],
        "encoder": encoder,
        "heads": gradients["median"] - encoder,
        "encoder_share": encoder / step["median"],
        "gflop": operations / 1e9,
        "gflops": operations / step["median"] / 1e6,
    }


def line(row: dict) -> list[str]:
    """A row of the table."""
    alone = ["–", "–"] if row["alone"] is None else [f"{row['alone']:.0f}", f"{row['shared']:.2f}"]
    parts = [f"{row[name]:.0f}" for name in ("encoder", "heads", "update")]
    counts = [f"{row['sentences']:.0f}", f"{row['tokens']:.0f}"]
    return [row["mix"], *counts, *ranged(row["milliseconds"], 0), *alone, *parts, f"{row['gflops']:.0f}"]


def main() -> int:
    parser = options_of(__doc__, rounds=7, short="3 rounds of 2 steps")
    add_data(parser)
    parser.add_argument("--pairs", type=int, default=30, help="half of a step's sentences, a multiple of 6")
    parser.add_argument("--steps", type=int, default=4, help="steps a round")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--mixes", nargs="+", choices=list(MIXES), default=list(MIXES), metavar="NAME")
    options = parser.parse_args()
    if options.pairs < 6 or options.pairs % 6:
        parser.error(f"--pairs is {options.pairs}; expected a multiple of 6, which 1, 2 and 3 sources can share")
    if options.short:
        options.rounds, options.steps = 3, 2
    import relpt

    warnings.simplefilter("ignore", relpt.TruncationWarning)
    encoder = relpt.Encoder.from_pretrained("minilm")
    corpus = dataset(options.data).tokenize(encoder, max_length=64, show_progress_bar=False)
    mixes = opened(options, corpus)
    times = measure(mixes, options)
    rows = [row_of(title, times, mix, options) for title, mix in mixes.items()]
    head = ["", "sentences", "tokens", "ms a step", "range", "alone", "shared", "encoder", "heads", "update", "GFLOP/s"]
    title = f"Joint objectives, MiniLM-L6, {options.dtype}: milliseconds of a step and of its parts"
    publish(options, title=title, head=head, lines=[line(row) for row in rows], rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
