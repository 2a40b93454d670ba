"""What each objective teaches: few-shot accuracy on unseen relations, after the same budget of steps.

    python benchmarks/objectives.py --train FILE --test FILE… [--recipes NAME …] [--seeds 42,43,44] [--steps 300]
                                    [--sentences 64] [--inputs C+M,OnlyC,OnlyM] [--dtype D] [--results FOLDER]

Every recipe of RECIPES trains the same encoder on the same file, with the same sentences a step, steps, blanking and
input settings; those of JOINED put the vectors of two encoders side by side. Those of MAIN are trained with every
seed, the others with the first. The graph of "alignment" and "injection" is of that file's own triples; of the
graph injected, the tests know no entity: it can help in training alone.
Tested are 5 and 10 ways, 1 and 5 shots, 10,000 episodes, cosine. Each row is kept in FOLDER/objectives.jsonl as soon as
it is there, and is not computed again; FOLDER/objectives.md has the medians over the seeds with their range, and holds
what the papers expect against them. The encoders of SHARED are kept in FOLDER/models, for finetune.py as well.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from machine import cpu_model

import relpt
from relpt.intervals import mean_interval
from relpt.objectives import CP, EP, MIL, MLM, MTB, RC, SBO, Alignment, Objective, SpanMLM
from relpt.trainer import LOSS_REPRESENTATION, REPRESENTATION

HERE = Path(__file__).parent
INPUTS = ("C+M", "OnlyM", "OnlyC")  # those that are judged
SETTINGS = ((5, 1), (5, 5), (10, 1), (10, 5))  # ways, shots
# As published, by the dot product of vectors behind LayerNorm, MTB begins with a loss of some 40; and without a
# threshold sentences of different entities have to point away from each other, which many cannot all do at once.
MATCH = MTB(similarity="cosine", temperature=0.05, threshold=0.5)
RECIPES: dict[str, Callable[[Callable[[], relpt.GraphEmbeddings]], list[Objective]]] = {
    "before": lambda graph: [],
    "before, [MASK]": lambda graph: [],
    "CP": lambda graph: [CP()],
    "CP, no blanks": lambda graph: [CP()],
    "CP of [MASK]": lambda graph: [CP()],
    "MTB": lambda graph: [MATCH],
    "MTB, no threshold": lambda graph: [MTB(similarity="cosine", temperature=0.1)],
    "MTB, dot": lambda graph: [MTB()],
    "EP": lambda graph: [EP()],
    "RC": lambda graph: [RC()],
    "MIL": lambda graph: [MIL()],
    "MLM": lambda graph: [MLM()],
    "spans": lambda graph: [SpanMLM(), SBO()],
    "alignment": lambda graph: [Alignment(graph=graph())],
    "CP + MLM": lambda graph: [CP(), MLM(weight=0.5)],
    "CP + RC": lambda graph: [CP(), RC(weight=0.5, source="relations")],
    "CP + spans": lambda graph: [CP(), SpanMLM(weight=0.25), SBO(weight=0.25)],
    "CP + alignment": lambda graph: [CP(), Alignment(graph=graph(), weight=0.5, source="relations")],
    "CP + injection": lambda graph: [CP()],
}
INJECTED = ("CP + injection",)
# The hidden state at the [MASK] of a prompt behind the sentence is the vector.
MASKED = ("before, [MASK]", "CP of [MASK]")
OPTIONS = {"CP, no blanks": {"p_blank": 0.0}}  # of the trainer, where it is not the default
SHARED = ("CP", "CP of [MASK]", "MTB")
# Trained as another recipe, and read in another way: as a vector of what stands at the start markers alone.
READ = {"[H,T] of CP": ("CP", "entity_start")}
# Side by side: a recipe, and what is added to the row's seed.
JOINED = {
    "hybrid": (("[H,T] of CP", 0), ("CP of [MASK]", 0)),
    "[H,T] twice": (("[H,T] of CP", 0), ("[H,T] of CP", 1)),
    "CP with [MASK]": (("CP", 0), ("CP of [MASK]", 0)),
    "MTB with CP": (("MTB", 0), ("CP", 0)),
}
NAMES = (*RECIPES, *READ, *JOINED)
MAIN = ("CP", "CP of [MASK]", "MTB", *READ, *JOINED)
# What the papers find: the recipe that is above another (Peng et al. 2020, table 6; arXiv 2312.11062, section 4).
EXPECTED = (
    ("CP", "before"),
    ("MTB", "before"),
    ("CP", "MTB"),
    ("[H,T] of CP", "CP of [MASK]"),
    ("hybrid", "[H,T] of CP"),
)
# Of which the papers say nothing: what two encoders gain that differ in their seed alone, and how the hybrid stands to
# that and to relpt's own vector, which has the whole sentence in it.
CONTROLS = (("[H,T] twice", "[H,T] of CP"), ("hybrid", "[H,T] twice"), ("hybrid", "CP"), ("CP with [MASK]", "CP"))

# Peng et al. 2020, table 6, as printed, at SETTINGS: BERT-base, fine-tuned on FewRel's episodes by prototypes.
PUBLISHED: dict[str, dict[tuple[str, str], tuple[float, float, float, float]]] = {
    "val_wiki.json": {
        ("BERT", "C+M"): (0.911, 0.946, 0.842, 0.908),
        ("BERT", "OnlyC"): (0.866, 0.925, 0.779, 0.876),
        ("BERT", "OnlyM"): (0.701, 0.804, 0.575, 0.715),
        ("MTB", "C+M"): (0.911, 0.954, 0.843, 0.918),
        ("MTB", "OnlyC"): (0.879, 0.939, 0.779, 0.892),
        ("MTB", "OnlyM"): (0.727, 0.835, 0.568, 0.742),
        ("CP", "C+M"): (0.951, 0.971, 0.912, 0.947),
        ("CP", "OnlyC"): (0.926, 0.956, 0.867, 0.924),
        ("CP", "OnlyM"): (0.743, 0.840, 0.620, 0.763),
    },
    "val_pubmed.json": {
        ("BERT", "C+M"): (0.746, 0.827, 0.635, 0.765),
        ("BERT", "OnlyC"): (0.683, 0.782, 0.542, 0.706),
        ("BERT", "OnlyM"): (0.316, 0.406, 0.210, 0.292),
        ("MTB", "C+M"): (0.747, 0.879, 0.625, 0.811),
        ("MTB", "OnlyC"): (0.692, 0.836, 0.528, 0.744),
        ("MTB", "OnlyM"): (0.338, 0.426, 0.216, 0.298),
        ("CP", "C+M"): (0.797, 0.849, 0.681, 0.798),
        ("CP", "OnlyC"): (0.745, 0.840, 0.601, 0.738),
        ("CP", "OnlyM"): (0.335, 0.437, 0.213, 0.297),
    },
}


def settings_of(options: argparse.Namespace, recipe: str, seed: int) -> dict:
    """What a row is a function of."""
    files = [Path(path).name for path in (options.train, *options.test)]
    budget = {name: getattr(options, name) for name in ("steps", "sentences", "dtype", "encoder")}
    return {"recipe": recipe, "seed": seed, **budget, "files": files, "inputs": options.inputs}


def opened(options: argparse.Namespace, recipe: str = "before") -> relpt.Encoder:
    """The encoder that the recipe starts from."""
    representation = "mask" if recipe in MASKED else REPRESENTATION
    return relpt.Encoder.from_pretrained(options.encoder, representation=representation, dtype=options.dtype)


@functools.cache
def graph_of(path: str) -> relpt.GraphEmbeddings:
    """Embeddings of the triples that a file's sentences state."""
    data = relpt.load(path)
    triples = [(item.head_id or item.head_name, item.relation, item.tail_id or item.tail_name) for item in data]
    return relpt.GraphEmbeddings(seed=42).fit(list(dict.fromkeys(triples)), show_progress_bar=False)


def trained(options: argparse.Namespace, recipe: str, seed: int) -> relpt.Encoder:
    """The encoder after the recipe's training; without objectives as it was. One of SHARED is kept in a folder."""
    folder = folder_of(options, recipe, seed)
    if recipe in SHARED and (folder / "config.json").is_file():
        return relpt.Encoder.from_pretrained(folder, dtype=options.dtype)
    encoder = opened(options, recipe)
    graph = functools.partial(graph_of, options.train)  # trained for those recipes that ask for it
    objectives = RECIPES[recipe](graph)
    if recipe in INJECTED:
        encoder.inject(graph(), dropout=0.5)
    if objectives:
        begin = time.monotonic()
        trainer = relpt.Trainer(
            encoder,
            objectives=objectives,
            loss_representation=None if recipe in MASKED else LOSS_REPRESENTATION,
            pairs_per_step=options.sentences // 2,
            max_steps=options.steps,
            seed=seed,
            **OPTIONS.get(recipe, {}),
        )
        trainer.fit(tokenized(options.train, options.encoder), show_progress_bar=False)
        print(f"pre-training: {recipe}, seed {seed}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    if recipe in SHARED:
        encoder.save_pretrained(folder)
    return encoder.inject(None) if recipe in INJECTED else encoder


def folder_of(options: argparse.Namespace, recipe: str, seed: int) -> Path:
    """Where an encoder of SHARED is kept: the name says what it is a function of."""
    words = "-".join("".join(c if c.isalnum() else " " for c in recipe).split())
    budget = f"{options.encoder}-{Path(options.train).stem}-{options.steps}x{options.sentences}-{options.dtype}"
    return options.results / "models" / f"{words}-{budget}-{seed}"


@functools.cache
def tokenized(path: str, encoder: str) -> relpt.Corpus:
    """The file's word pieces: those of all recipes."""
    return relpt.load(path).tokenize(relpt.Encoder.from_pretrained(encoder), show_progress_bar=False)


def scores(encoder: object, tests: list[relpt.Corpus], inputs: list[str]) -> list[dict]:
    """A dict for each file, input setting, way and shot."""
    found = []
    for data in tests:
        for name in inputs:
            vectors = encoder.encode(data, inputs=name, show_progress_bar=False)
            for way, shot in SETTINGS:
                result = relpt.FewShot(n_way=way, k_shot=shot, seed=42).score(vectors, data.relation, inputs=name)
                found.append({"data": data.name, **result.to_dict()})
    return found


def encoder_of(options: argparse.Namespace, recipe: str, seed: int) -> object:
    """The recipe's encoder."""
    if recipe in JOINED:
        return relpt.HybridEncoder(*(encoder_of(options, part, seed + more) for part, more in JOINED[recipe]))
    if recipe in READ:
        recipe, representation = READ[recipe]
        return read_as(options, recipe, seed, representation)
    return trained(options, recipe, seed)


def read_as(options: argparse.Namespace, recipe: str, seed: int, representation: str) -> relpt.Encoder:
    """An encoder of SHARED, read in another way than it was trained."""
    folder = folder_of(options, recipe, seed)
    if not (folder / "config.json").is_file():
        trained(options, recipe, seed)
    return relpt.Encoder.from_pretrained(folder, representation=representation, dtype=options.dtype)


def here() -> str:
    """The machine that a row is computed on: dtypes round as its instructions do."""
    return f"{cpu_model()}, {relpt._core.cpu_info()['level']}"


def machines_of(rows: list[dict]) -> str:
    """The machines that the rows are of, in a sentence."""
    return f"Computed on {'; '.join(sorted({row['machine'] for row in rows}))}; relpt {relpt.__version__}."


def page(rows: list[dict], options: argparse.Namespace) -> str:
    """The medians over seeds, a table for each test file, in Markdown."""
    parts = [
        "# What each objective teaches",
        f"{options.encoder}, trained on {Path(options.train).name}: {options.steps} steps of {options.sentences} "
        f"sentences, {options.dtype}; 10,000 episodes, cosine. Of {', '.join(MAIN)} medians over the "
        f"seeds {', '.join(map(str, options.seeds))} (lowest – highest), of the others seed {options.seeds[0]}. "
        "Nothing is trained on FewRel. The published figures (Peng et al. 2020, table 6) are of BERT-base, pre-trained "
        "on Wikipedia and then trained on FewRel's own episodes, on its hidden test relations.",
        machines_of(rows),
    ]
    for data in dict.fromkeys(score["data"] for row in rows for score in row["scores"]):
        head = ["objective", "inputs", *(f"{way}-way {shot}-shot" for way, shot in SETTINGS)]
        lines = [head, ["---", "---", *["---:"] * len(SETTINGS)]]
        for recipe in dict.fromkeys(row["recipe"] for row in rows):
            for inputs in options.inputs:
                lines.append([recipe, inputs, *(cell(rows, recipe, data, inputs, *setting) for setting in SETTINGS)])
        for (model, inputs), printed in PUBLISHED.get(data, {}).items():
            lines.append([f"*{model}, published*", inputs, *(f"{figure:.3f}" for figure in printed)])
        parts += [f"## {data}", table(lines)]
        verdicts = judgements(rows, data)
        if verdicts:
            said = (
                "What the papers expect, 5-way 1-shot: mean difference of the same seeds' accuracies, with its 95 % "
                "interval over seeds (Student's t); open where that holds 0."
            )
            parts += [said, table(verdicts)]
            said = (
                "Beside the papers, likewise: [H,T] twice, two encoders that differ in their seed alone, and relpt's "
                "own vector, which has the whole sentence in it (CP, CP with [MASK])."
            )
            parts += [said, table(comparisons(rows, data))]
    return "\n\n".join(parts) + "\n"


def measured(options: argparse.Namespace, recipe: str, seed: int, tests: list[relpt.Corpus]) -> dict:
    return {"scores": scores(encoder_of(options, recipe, seed), tests, options.inputs)}


def kept_row(kept: Path, settings: dict, compute: Callable[[], dict]) -> dict:
    """The file's row of these settings; where it has none, computed and added."""
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.is_file() else []
    found = next((row for row in rows if settings.items() <= row.items()), None)
    if found is not None:
        return found
    begin = time.monotonic()
    row = {**settings, "machine": here(), **compute()}
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{row['recipe']}, seed {row['seed']}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return row


def scores_of(rows: list[dict], recipe: str, data: str, inputs: str, way: int = 5, shot: int = 1) -> dict[int, float]:
    """The accuracy by seed."""
    wanted = {"data": data, "inputs": inputs, "way": way, "shot": shot}
    return {
        row["seed"]: score["accuracy"]
        for row in rows
        if row["recipe"] == recipe
        for score in row["scores"]
        if wanted.items() <= score.items()
    }


def table(lines: list[list[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def judgements(rows: list[dict], data: str) -> list[list[str]]:
    """A table, a header first, of EXPECTED in each input setting, of the settings' order, and of what each gains."""
    of = {recipe: {name: scores_of(rows, recipe, data, name) for name in INPUTS} for recipe in ("before", *MAIN)}
    start = {name: next(iter(of["before"][name].values()), None) for name in INPUTS}
    if None in start.values():
        return []
    claims = []
    for above, below in EXPECTED:
        for name in INPUTS:
            found = of[below][name] if below != "before" else dict.fromkeys(of[above][name], start[name])
            claims.append((f"{above} above {below}, {name}", of[above][name], found))
    for above, below in (("C+M", "OnlyM"), ("OnlyM", "OnlyC")):
        claims.append((f"CP: {above} above {below}", of["CP"][above], of["CP"][below]))
    gains = {name: {seed: score / start[name] - 1 for seed, score in of["CP"][name].items()} for name in INPUTS}
    for name in ("C+M", "OnlyM"):
        claims.append((f"CP: OnlyC gains more than {name}, as a share of what it was", gains["OnlyC"], gains[name]))
    return judged(claims, "expected", ("confirmed", "denied"))


def comparisons(rows: list[dict], data: str) -> list[list[str]]:
    """The same of CONTROLS."""
    claims = []
    for recipe, other in CONTROLS:
        for name in INPUTS:
            found = (scores_of(rows, each, data, name) for each in (recipe, other))
            claims.append((f"{recipe} to {other}, {name}", *found))
    return judged(claims, "compared", ("above", "below"))


def judged(claims: list[tuple[str, dict, dict]], head: str, verdicts: tuple[str, str]) -> list[list[str]]:
    """A line for each claim of which there are seeds: the mean difference with its interval, and the verdict."""
    lines = [[head, "difference", ""], ["---", "---:", "---"]]
    for said, one, other in claims:
        differences = [one[seed] - other[seed] for seed in one if seed in other]
        if not differences:
            continue
        mean, half = mean_interval(differences)
        if half is None:
            lines.append([said, f"{mean:+.3f}", "one seed"])
        else:
            lines.append([said, f"{mean:+.3f} ± {half:.3f}", "open" if abs(mean) <= half else verdicts[mean < 0]])
    return lines


def cell(rows: list[dict], recipe: str, data: str, inputs: str, way: int, shot: int) -> str:
    """Median and range over the seeds."""
    found = list(scores_of(rows, recipe, data, inputs, way, shot).values())
    spread = f" ({min(found):.3f} – {max(found):.3f})" if len(found) > 1 else ""
    return f"{statistics.median(found):.3f}{spread}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--recipes", nargs="+", default=NAMES, choices=NAMES, metavar="NAME")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--inputs", type=lambda text: text.split(","), default=["C+M", "OnlyC", "OnlyM"])
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore", relpt.TruncationWarning)
    options.results.mkdir(parents=True, exist_ok=True)
    kept = options.results / "objectives.jsonl"
    tests = [tokenized(path, options.encoder) for path in options.test]
    rows = []
    for seed in options.seeds:
        for recipe in options.recipes:
            if recipe not in MAIN and seed != options.seeds[0]:
                continue
            rows.append(
                kept_row(
                    kept, settings_of(options, recipe, seed), functools.partial(measured, options, recipe, seed, tests)
                )
            )
    text = page(rows, options)
    (options.results / "objectives.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
