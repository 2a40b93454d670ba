"""What pre-training for relations gives fine-tuning: supervised data sets at 1, 10 and 100 %, by input setting.

    python benchmarks/finetune.py [--data FOLDER] [--train FILE] [--seeds 42,43,44] [--steps 300] [--sentences 64]
                                  [--stages 1,2,3,4,5,6] [--dtype D] [--results FOLDER]

FOLDER has semeval/, chemprot/ and wiki80/ as Peng et al. 2020 published them. Every model of MODELS is the same
encoder, pre-trained on FILE with the same budget once for each seed (as objectives.py does and keeps it), and
fine-tuned with the same options. Each run is a row of RESULTS/finetuning.jsonl as soon as it is there, and is not
computed again; RESULTS/finetuning.md has the medians over the seeds of all rows that are there, beside the published
figures, and paired differences.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from objectives import MASKED, here, machines_of, read_as

import relpt
from relpt import metrics
from relpt.intervals import mean_interval

HERE = Path(__file__).parent
INPUTS = ("C+M", "OnlyC", "OnlyM")
SHARES = ("1 %", "10 %", "100 %")
EPOCHS = {"1 %": 30, "10 %": 10, "100 %": 3}
EPOCHS_OF = {("Wiki80", "10 %"): 4}  # some 3,900 sentences: twice the steps of the others' 10 epochs all the same
TUNING: dict[str, Any] = {"learning_rate": 1e-4, "batch_size": 32, "max_length": 100, "unknown_labels": "wrong"}

# The recipes of objectives.py whose encoders are fine-tuned, from [H,T] or [MASK].
MODELS = {
    "none": ["before"],
    "MTB": ["MTB"],
    "CP": ["CP"],
    "hybrid": ["CP", "CP of [MASK]"],
    "[MASK]": ["CP of [MASK]"],
}
COMPARED = (("CP", "none"), ("MTB", "none"), ("CP", "MTB"), ("hybrid", "CP"), ("CP", "[MASK]"))


class DataSet(NamedTuple):
    """Files of the training shares and of the test; measure and the class that it leaves out."""

    train: dict[str, str]
    test: str
    metric: str
    negative: str | None
    official: str | None


SETS = {
    "SemEval": DataSet(
        {"1 %": "semeval/train_0.01.txt", "10 %": "semeval/train_0.1.txt", "100 %": "semeval/train.txt"},
        "semeval/test.txt",
        "micro_f1",
        "Other",
        "semeval",
    ),
    "ChemProt": DataSet(
        {"1 %": "chemprot/train_0.01.txt", "10 %": "chemprot/train_0.1.txt", "100 %": "chemprot/train.jsonl"},
        "chemprot/test.jsonl",
        "micro_f1",
        None,
        None,
    ),
    "Wiki80": DataSet(
        {"1 %": "wiki80/train_0.01.txt", "10 %": "wiki80/train_0.1.txt"}, "wiki80/dev.txt", "accuracy", None, None
    ),
}
_FOUR = ("none", "MTB", "CP", "hybrid")
# Data sets, share, models, input settings: the cheap ones first.
STAGES = (
    (("SemEval", "ChemProt", "Wiki80"), "1 %", _FOUR, INPUTS),
    (("SemEval", "ChemProt"), "10 %", _FOUR, INPUTS),
    (("SemEval", "ChemProt"), "100 %", ("none", "CP"), ("C+M",)),
    (("Wiki80",), "10 %", _FOUR, INPUTS),
    (("SemEval", "ChemProt", "Wiki80"), "1 %", ("[MASK]",), INPUTS),
    (("SemEval", "ChemProt"), "10 %", ("[MASK]",), INPUTS),
)

# Peng et al. 2020, table 5, as printed: C+M, OnlyC, OnlyM.
PUBLISHED: dict[tuple[str, str, str], tuple[float, float, float]] = {
    ("SemEval", "1 %", "BERT"): (0.367, 0.294, 0.245),
    ("SemEval", "1 %", "MTB"): (0.362, 0.330, 0.249),
    ("SemEval", "1 %", "CP"): (0.482, 0.470, 0.221),
    ("SemEval", "10 %", "BERT"): (0.772, 0.688, 0.527),
    ("SemEval", "10 %", "MTB"): (0.806, 0.744, 0.543),
    ("SemEval", "10 %", "CP"): (0.822, 0.766, 0.543),
    ("SemEval", "100 %", "BERT"): (0.871, 0.798, 0.677),
    ("SemEval", "100 %", "MTB"): (0.873, 0.807, 0.682),
    ("SemEval", "100 %", "CP"): (0.876, 0.811, 0.679),
    ("Wiki80", "1 %", "BERT"): (0.559, 0.413, 0.463),
    ("Wiki80", "1 %", "MTB"): (0.585, 0.509, 0.542),
    ("Wiki80", "1 %", "CP"): (0.827, 0.734, 0.653),
    ("Wiki80", "10 %", "BERT"): (0.829, 0.413, 0.655),
    ("Wiki80", "10 %", "MTB"): (0.859, 0.509, 0.719),
    ("Wiki80", "10 %", "CP"): (0.893, 0.734, 0.745),
    ("ChemProt", "1 %", "BERT"): (0.362, 0.362, 0.362),
    ("ChemProt", "1 %", "MTB"): (0.362, 0.362, 0.362),
    ("ChemProt", "1 %", "CP"): (0.361, 0.362, 0.360),
    ("ChemProt", "10 %", "BERT"): (0.634, 0.584, 0.385),
    ("ChemProt", "10 %", "MTB"): (0.682, 0.685, 0.403),
    ("ChemProt", "10 %", "CP"): (0.708, 0.697, 0.404),
    ("ChemProt", "100 %", "BERT"): (0.792, 0.777, 0.463),
    ("ChemProt", "100 %", "MTB"): (0.796, 0.798, 0.463),
    ("ChemProt", "100 %", "CP"): (0.806, 0.803, 0.467),
}


# -- runs -------------------------------------------------------------------------------------------------------------


def epochs_of(data: str, share: str) -> int:
    return EPOCHS_OF.get((data, share), EPOCHS[share])


def settings_of(options: argparse.Namespace, place: dict[str, Any]) -> dict[str, Any]:
    """What a row is a function of."""
    given = {name: getattr(options, name) for name in ("steps", "sentences", "dtype", "encoder")}
    epochs = epochs_of(place["data"], place["share"])
    return {**place, **given, "pretrain": options.train.name, "tuning": TUNING, "epochs": epochs}


def part_of(options: argparse.Namespace, recipe: str, seed: int) -> relpt.Encoder:
    """The recipe's encoder, whose vector is [H,T] or [MASK], whatever its pre-training compared."""
    representation = "mask" if recipe in MASKED else "entity_start"
    if recipe == "before":
        return relpt.Encoder.from_pretrained(options.encoder, representation=representation, dtype=options.dtype)
    return read_as(options, recipe, seed, representation)


class Runs:
    """One run after another: encoders and corpora are opened once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.parts: dict[tuple[str, int], relpt.Encoder] = {}
        self.corpora: dict[str, relpt.Corpus] = {}

    def encoder(self, model: str, seed: int) -> Any:
        """The model's encoder; those of other seeds are let go."""
        self.parts = {key: part for key, part in self.parts.items() if key[1] == seed}
        for name in MODELS[model]:
            if (name, seed) not in self.parts:
                self.parts[name, seed] = part_of(self.options, name, seed)
        parts = [self.parts[name, seed] for name in MODELS[model]]
        return parts[0] if len(parts) == 1 else relpt.HybridEncoder(*parts)

    def corpus(self, file: str) -> relpt.Corpus:
        """The tokenized file: all parts have one tokenizer."""
        if file not in self.corpora:
            part = next(iter(self.parts.values()))
            data = relpt.load(self.options.data / file)
            self.corpora[file] = data.tokenize(part, max_length=TUNING["max_length"], show_progress_bar=False)
        return self.corpora[file]

    def run(self, data: str, share: str, model: str, inputs: str, seed: int) -> dict[str, Any]:
        """Fine-tunes and tests; which test sentences are right goes along as the bits of a hexadecimal number."""
        begin, chosen = time.monotonic(), SETS[data]
        classifier = relpt.Classifier(self.encoder(model, seed), epochs=epochs_of(data, share), seed=seed, **TUNING)
        train, test = self.corpus(chosen.train[share]), self.corpus(chosen.test)
        classifier.fit(train, inputs=inputs, show_progress_bar=False)
        gold = [test.relations[number] for number in test.relation]
        predicted = classifier.predict(test, show_progress_bar=False)
        right = np.array([a == b for a, b in zip(gold, predicted, strict=True)])
        official = chosen.official and metrics.score(chosen.official, gold, predicted)
        return {
            "metric": chosen.metric,
            "score": metrics.score(chosen.metric, gold, predicted, chosen.negative),
            "accuracy": float(right.mean()),
            "official": official,
            "trained": len(train),
            "classes": len(classifier.labels),
            "unknown": sum(name not in classifier.labels for name in gold),
            "tested": len(test),
            "loss": round(float(classifier.history["loss"][-1]), 4),
            "seconds": round(time.monotonic() - begin, 1),
            "right": np.packbits(right).tobytes().hex(),
        }


# -- the page ---------------------------------------------------------------------------------------------------------


class Table:
    """The rows by place: data set, share, model, input setting; a row for each seed."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows: dict[tuple[str, str, str, str], dict[int, dict[str, Any]]] = {}
        for row in rows:
            place = row["data"], row["share"], row["model"], row["inputs"]
            self.rows.setdefault(place, {})[row["seed"]] = row

    def cell(self, place: tuple[str, str, str, str], figure: str = "score") -> str:
        """Median and range over the seeds."""
        found = [row[figure] for row in self.rows.get(place, {}).values()]
        if not found:
            return "–"
        spread = f" ({min(found):.3f} – {max(found):.3f})" if len(found) > 1 else ""
        return f"{statistics.median(found):.3f}{spread}"

    def difference(self, data: str, share: str, a: str, b: str, inputs: str) -> str:
        """How far model a is above b: in the measure with its interval over seeds, and in the share of right answers
        with its interval over test sentences, bold where that leaves out 0."""
        pair = [self.rows.get((data, share, model, inputs), {}) for model in (a, b)]
        seeds = [seed for seed in pair[0] if seed in pair[1]]
        if not seeds:
            return "–"
        mean, half = mean_interval([pair[0][seed]["score"] - pair[1][seed]["score"] for seed in seeds])
        each = np.mean([bits(pair[0][seed]) - bits(pair[1][seed]) for seed in seeds], axis=0)
        right, error = 100 * each.mean(), 100 * 1.96 * each.std(ddof=1) / np.sqrt(len(each))
        over_seeds = "" if half is None else f" ± {half:.3f}"
        over_sentences = f"{right:+.1f} ± {error:.1f}"
        mark = "**" if abs(right) > error else ""
        return f"{mean:+.3f}{over_seeds}; {mark}{over_sentences}{mark}"


def bits(row: dict[str, Any]) -> np.ndarray:
    """1 for each test sentence that is right, else 0."""
    packed = np.frombuffer(bytes.fromhex(row["right"]), np.uint8)
    return np.unpackbits(packed)[: row["tested"]].astype(float)


def markdown(lines: list[list[str]]) -> str:
    """A table, a header first."""
    width = len(lines[0])
    marked = [lines[0], ["---"] * 2 + ["---:"] * (width - 2), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in marked)


def scores_of(table: Table, data: str) -> str:
    """Our medians of a data set, and the published ones."""
    official = SETS[data].official
    lines = [["training", "model", *INPUTS, *([f"C+M, {official} F1"] if official else [])]]
    for share in SETS[data].train:
        for model in MODELS:
            cells = [table.cell((data, share, model, inputs)) for inputs in INPUTS]
            if official:
                cells.append(table.cell((data, share, model, "C+M"), "official"))
            if any(cell != "–" for cell in cells):
                lines.append([share, model, *cells])
        for name in ("BERT", "MTB", "CP"):
            printed = [f"{figure:.3f}" for figure in PUBLISHED[data, share, name]]
            lines.append([share, f"*{name}, published*", *printed, *(["–"] if official else [])])
    return markdown(lines)


def differences_of(table: Table, data: str) -> str:
    """Paired differences of a data set."""
    lines = [["training", "models", *INPUTS]]
    for share in SETS[data].train:
        for a, b in COMPARED:
            cells = [table.difference(data, share, a, b, inputs) for inputs in INPUTS]
            if any(cell != "–" for cell in cells):
                lines.append([share, f"{a} − {b}", *cells])
    return markdown(lines)


def page(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The report in Markdown."""
    table = Table(rows)
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    epochs = [f"{count} epochs at {share}" for share, count in EPOCHS.items()]
    epochs += [f"{count} of {data} at {share}" for (data, share), count in EPOCHS_OF.items()]
    measures = {
        name: chosen.metric + (f" without {chosen.negative}" if chosen.negative else "")
        for name, chosen in SETS.items()
    }
    parts = [
        "# What pre-training for relations gives fine-tuning",
        f"Made by `python benchmarks/finetune.py`. {options.encoder}, pre-trained on WebNLG's {options.train.name} "
        f"for {options.steps} steps of {options.sentences} sentences, once for each seed; then fine-tuned by AdamW at "
        f"{TUNING['learning_rate']:g}, batches of {TUNING['batch_size']}, at most {TUNING['max_length']} word pieces, "
        f"{', '.join(epochs)}, {options.dtype}. The published files of each share, the same for all seeds. Medians "
        f"over the seeds {seeds} (lowest – highest) on the test set, which nothing was chosen by.",
        "- none: the encoder as it comes, fine-tuned from [H,T], the hidden states at the two start markers;\n"
        "- MTB: matching the blanks by the cosine, with a threshold of 0.5, over 0.05; CP: contrast of sentences with "
        "the same relation; both pre-trained as in objectives.md, where the loss compares [H,T] with the mean over "
        "all tokens beside it, and fine-tuned from [H,T];\n"
        "- [MASK]: CP of the hidden state at the [MASK] of a prompt behind the sentence, and fine-tuned from it;\n"
        "- hybrid: the encoders of CP and [MASK] side by side, fine-tuned together under one head (arXiv 2312.11062, "
        "section 3.3): twice the weights, and twice the pre-training.",
        "Relations of a test set that a share of the training data lacks count as wrong. The published figures (Peng "
        "et al. 2020, table 5) are of BERT-base, pre-trained on Wikipedia for 3,500 steps of 2,048 pairs, and tuned "
        "at 3e-5 in batches of 64 for 6 epochs; of Wiki80, OnlyC at 10 % is printed as at 1 %. Wiki80 has sentences "
        "of FewRel's relations; all models here are pre-trained on another corpus, WebNLG (DBpedia's triples).",
        machines_of(rows),
    ]
    for data, chosen in SETS.items():
        sizes = sorted({row["trained"] for row in rows if row["data"] == data})
        tested = {row["tested"] for row in rows if row["data"] == data}
        if not tested:
            continue
        parts.append(
            f"## {data}: {measures[data]}\n\nTrained on {', '.join(f'{size:,}' for size in sizes)} sentences, tested "
            f"on {max(tested):,} (`{chosen.test}`)."
        )
        parts.append(scores_of(table, data))
        parts.append(
            "Paired differences: of the measure, with the 95 % interval over seeds (Student's t); then of right "
            "answers in percent, with the 95 % interval over test sentences, bold where it leaves out 0."
        )
        parts.append(differences_of(table, data))
    return "\n\n".join(parts) + "\n"


# -- command ----------------------------------------------------------------------------------------------------------


def cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The places of the table in the order of their computing."""
    found = []
    for number in options.stages:
        sets, share, models, inputs = STAGES[number - 1]
        for seed in options.seeds:
            for data in sets:
                for model in models:
                    for name in inputs:
                        found.append({"data": data, "share": share, "model": model, "inputs": name, "seed": seed})
    return found


def rows_of(options: argparse.Namespace, kept: Path) -> list[dict[str, Any]]:
    """The rows that the file has of these options, of any stage and seed; anew each time: other runs may add some."""
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.is_file() else []
    places = [{name: row[name] for name in ("data", "share", "model", "inputs", "seed")} for row in rows]
    return [row for row, place in zip(rows, places, strict=True) if settings_of(options, place).items() <= row.items()]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = HERE.parent.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=shared, help="folder of the data sets (default: ../shared/data)")
    parser.add_argument("--train", type=Path, default=shared / "webnlg" / "train.jsonl")
    parser.add_argument("--seeds", type=numbers, default=[42, 43, 44])
    parser.add_argument("--stages", type=numbers, default=list(range(1, len(STAGES) + 1)))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", relpt.TruncationWarning)
    options.results.mkdir(parents=True, exist_ok=True)
    kept, report = options.results / "finetuning.jsonl", options.results / "finetuning.md"
    runs = Runs(options)
    for place in cells(options):
        if any(place.items() <= row.items() for row in rows_of(options, kept)):
            continue
        row = {**settings_of(options, place), "machine": here(), **runs.run(**place)}
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        said = f"{', '.join(str(value) for value in place.values())}: {row['score']:.3f}"
        print(f"{said} ({row['seconds']:.0f} s)", file=sys.stderr)
        report.write_text(page(rows_of(options, kept), options), encoding="utf-8")
    text = page(rows_of(options, kept), options)
    report.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
