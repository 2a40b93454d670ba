"""Link prediction by graph embeddings: how well, against published figures, and how long training takes.

    python benchmarks/graph_cpu.py [--data FOLDER] [--models transe distmult] [--epochs N] [--short]

FOLDER holds train.txt, valid.txt and test.txt, a triple a line between tabs; default: ../shared/data/codex, which is
CoDEx-M (Safavi and Koutra 2020). Ranks are of the test triples, heads and tails together, without the other answers
known from any of the three files; options are the defaults. The published figures are those of Safavi and Koutra for
CoDEx-M, with options searched for each model and graph, up to 400 epochs, and a second set of relation vectors for
queries that ask for the head (TransE and ComplEx have 512 numbers); of DistMult they give none.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from report import options_of, publish

HERE = Path(__file__).parent
NAMES = {"transe": "TransE", "distmult": "DistMult"}
CODEX_M = 185_584  # its training triples
PUBLISHED = {  # MRR, Hits@1, Hits@10
    "TransE, published": (0.303, 0.223, 0.454),
    "RESCAL, published": (0.317, 0.244, 0.456),
    "ComplEx, published": (0.337, 0.262, 0.476),
}
HEAD = ("embeddings", "MRR", "Hits@1", "Hits@3", "Hits@10", "mean rank", "MRR head", "MRR tail", "epochs", "minutes")


def run(model: str, data: Path, epochs: int | None, threads: int) -> dict:
    """Trains on train.txt, ranks test.txt."""
    import relpt

    g = relpt.GraphEmbeddings(model=model, num_threads=threads, epochs=epochs)
    begin = time.perf_counter()
    g.fit(data / "train.txt", callbacks=[lambda r: print(f"{model}: {r}", file=sys.stderr)])
    seconds = time.perf_counter() - begin
    result = g.evaluate(data / "test.txt", filter_with=data / "valid.txt")
    print(f"{model}: {result}", file=sys.stderr)
    return {
        "model": model,
        "options": g.get_params(),
        "triples": len(g._triples),
        "seconds": seconds,
        "triples_per_second": len(g._triples) * len(g.history) / seconds,
        **result.to_dict(),
    }


def line(row: dict) -> list[str]:
    """A row of the table."""
    both = row["both"]
    measures = [f"{both[name]:.3f}" for name in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")]
    sides = [f"{row[side]['mrr']:.3f}" for side in ("head", "tail")]
    label = f"relpt {NAMES[row['model']]}, {row['options']['dim']} numbers"
    minutes = f"{row['seconds'] / 60:.1f}"
    return [label, *measures, f"{both['mean_rank']:.0f}", *sides, str(row["options"]["epochs"]), minutes]


def main() -> int:
    parser = options_of(__doc__, rounds=1, short="one epoch")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "codex")
    parser.add_argument("--models", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--epochs", type=int, help="default: each model's own")
    options = parser.parse_args()
    if not (options.data / "train.txt").is_file():
        print(f"{options.data} has no train.txt; give --data a folder of triples", file=sys.stderr)
        return 1
    epochs = 1 if options.short else options.epochs
    rows = [run(model, options.data, epochs, options.threads) for model in options.models]
    lines = [line(row) for row in rows]
    if rows[0]["triples"] == CODEX_M:
        for name, (mrr, first, tenth) in PUBLISHED.items():
            lines.append([name, f"{mrr:.3f}", f"{first:.3f}", "–", f"{tenth:.3f}", "–", "–", "–", "–", "–"])
    publish(options, title=f"Filtered link prediction on {options.data.name}", head=HEAD, lines=lines, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
