"""What the benchmarks share: options, medians with their range, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from machine import describe


def options_of(doc: str, *, rounds: int, short: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; ``short`` says what --short does."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--out", type=Path, help="write the JSON to this file too")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """The option --data, for ``dataset``."""
    parser.add_argument(
        "--data", nargs="*", default=[], help="FewRel or OpenNRE files; default: the shipped sample corpus"
    )


def dataset(paths: Sequence[str]):
    """The files' sentences, or those of the sample corpus."""
    import relpt

    if not paths:
        return relpt.load_sample("all")
    return relpt.load(paths[0] if len(paths) == 1 else list(paths))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ranged(found: dict[str, float], digits: int = 1) -> list[str]:
    """The table cells of a spread: median and range."""
    return [f"{found['median']:.{digits}f}", f"{found['lowest']:.{digits}f}–{found['highest']:.{digits}f}"]


def installed(names: Iterable[str], needs: dict[str, tuple[str, ...]]) -> list[str]:
    """The contestants whose modules (``needs``, by a name's first word) are there; names the others on stderr."""
    kept = []
    for name in names:
        missing = [module for module in needs.get(name.split()[0], ()) if find_spec(module) is None]
        if missing:
            print(f"{name} is left out: {', '.join(missing)} is not installed", file=sys.stderr)
        else:
            kept.append(name)
    return kept


def publish(
    options: argparse.Namespace, *, title: str, head: Sequence[str], lines: Sequence[Sequence[str]], rows: object
) -> None:
    """Prints the table, or with --json the figures behind it; --out gets the JSON in either case."""
    given = {key: value for key, value in vars(options).items() if key not in ("json", "out", "short")}
    result = {
        "benchmark": Path(sys.argv[0]).stem,
        "machine": describe(options.threads),
        "options": given,
        "rows": rows,
        "table": {"title": title, "head": list(head), "lines": [list(line) for line in lines]},
    }
    text = json.dumps(result, indent=1, default=str, ensure_ascii=False) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if options.json:
        print(json.dumps(result, default=str))
        return
    print(f"{title}\n{machine_line(result['machine'])}\n")
    print("\n".join(aligned([head, *lines])))


def machine_line(machine: dict) -> str:
    """Processor, GPU where there is one, level, threads and versions on one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f" with {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['cpu']}{gpu}, {machine['level']}, {machine['threads']} threads; {versions}"


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines with columns of equal width: the first one to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
