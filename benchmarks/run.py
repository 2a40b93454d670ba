"""The short form of every speed and memory benchmark, one after another: a page of tables and a figure.

    python benchmarks/run.py [--threads N] [--out FOLDER] [--benchmarks NAME …]

Writes latest.md and latest.png to benchmarks/results, and the JSON of each benchmark beside them. A benchmark that
fails is named in latest.md and on stderr, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from report import machine_line

HERE = Path(__file__).parent
QUESTIONS = {
    "train_cpu": "How fast does it train?",
    "encode_cpu": "How fast does it encode?",
    "fewshot_eval": "How long does few-shot evaluation take?",
    "corpus_cpu": "How fast does text become batches?",
    "memory": "How much memory does training take?",
    "scaling": "How do the costs grow?",
    "gemm_cpu": "How fast are the matrix products?",
}
BARS = {
    "train_cpu": "training (CP + MLM), MiniLM-L6",
    "encode_cpu": "encoding, MiniLM-L6",
}  # in the figure: sentences a second


def run(name: str, threads: int, folder: Path) -> dict | None:
    """A benchmark's result; None when it fails."""
    path = folder / f"{name}.json"
    command = [sys.executable, str(HERE / f"{name}.py"), "--short", "--json", "--threads", str(threads)]
    print(f"== {name}", file=sys.stderr)
    if subprocess.run([*command, "--out", str(path)], stdout=subprocess.DEVNULL).returncode != 0:
        print(f"== {name} FAILED", file=sys.stderr)
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def page(results: dict[str, dict | None]) -> str:
    """Machine, versions and one table per question, in Markdown."""
    machine = next(result["machine"] for result in results.values() if result is not None)
    parts = ["# Benchmarks, short form", machine_line(machine) + "."]
    for name, result in results.items():
        parts.append(f"## {QUESTIONS[name]}")
        if result is None:
            parts.append(f"benchmarks/{name}.py failed.")
            continue
        table = result["table"]
        rows = [table["head"], ["---"] + ["---:"] * (len(table["head"]) - 1), *table["lines"]]
        rounds = result["options"]["rounds"]
        parts.append(f"{table['title']}. Medians over {rounds} round{'s' if rounds > 1 else ''}.")
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def figure(results: dict[str, dict], path: Path) -> None:
    """Bars of sentences a second, with the range."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = [len(result["rows"]) for result in results.values()]
    picture, panels = plt.subplots(
        len(results), 1, figsize=(8, 1.2 + 0.4 * sum(sizes)), height_ratios=sizes, layout="constrained", squeeze=False
    )
    for panel, (name, result) in zip(panels.flat, results.items(), strict=True):
        rows = result["rows"][::-1]  # the first one on top
        found = [row["sentences_per_second"] for row in rows]
        medians = [f["median"] for f in found]
        ends = [[f["median"] - f["lowest"] for f in found], [f["highest"] - f["median"] for f in found]]
        labels = [row["contestant"] for row in rows]
        colors = ["tab:blue" if label.startswith("relpt") else "tab:gray" for label in labels]
        panel.barh(labels, medians, xerr=ends, color=colors, error_kw={"capsize": 2, "elinewidth": 1})
        panel.set(title=BARS[name], xlabel="sentences/s")
        panel.grid(axis="x", alpha=0.3)
    picture.suptitle(next(iter(results.values()))["machine"]["cpu"], fontsize=9)
    picture.savefig(path, dpi=130)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=HERE / "results", help="default: benchmarks/results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = {name: run(name, options.threads, options.out) for name in options.benchmarks}
    done = {name: result for name, result in results.items() if result is not None}
    if not done:
        return 1
    (options.out / "latest.md").write_text(page(results), encoding="utf-8")
    print(page(results))
    if bars := {name: result for name, result in done.items() if name in BARS}:
        figure(bars, options.out / "latest.png")
    return 0 if len(done) == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
