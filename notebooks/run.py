"""Runs every notebook of this folder in the current environment; fails at the first error in a cell.

Usage: python notebooks/run.py [NOTEBOOK …] [--keep FOLDER]

Notebooks are kept without outputs, and are run in a temporary folder, so that what they write does not stay. The
environment variable RELPT_NOTEBOOK_STEPS replaces the number in "max_steps=…" in their cells, to shorten a check.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
STEPS = re.compile(r"\bmax_steps=\d+")


def shorten(notebook: Any, steps: str) -> None:
    """Writes another number of training steps into the cells; ValueError where there is none to replace."""
    if not steps.isdecimal() or int(steps) < 1:
        raise ValueError(f"RELPT_NOTEBOOK_STEPS is {steps!r}; expected a whole number from 1 on")
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, count = STEPS.subn(f"max_steps={steps}", cell.source)
            changed += count
    if not changed:
        raise ValueError("no cell says max_steps=…, so RELPT_NOTEBOOK_STEPS has nothing to replace")


def check_clean(notebook: Any) -> None:
    """ValueError where outputs are stored."""
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            raise ValueError(f"cell {number} holds outputs; clear all outputs before saving")


def run(path: Path, keep: Path | None) -> None:
    """Executes one notebook; with ``keep`` the executed copy is written there."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    check_clean(notebook)
    if steps := os.environ.get("RELPT_NOTEBOOK_STEPS"):
        shorten(notebook, steps)
    with tempfile.TemporaryDirectory(prefix="relpt-notebook-") as folder:
        client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}})
        try:
            client.execute()
        finally:
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                nbformat.write(notebook, keep / path.name)


def main() -> int:
    """Runs the notebooks named, or all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all of this folder")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the executed notebooks there")
    args = parser.parse_args()
    paths = args.notebooks or sorted(HERE.glob("*.ipynb"))
    if not paths:
        print(f"{HERE}: there is no notebook", file=sys.stderr)
        return 1
    for path in paths:
        begin = time.monotonic()
        try:
            run(path, args.keep)
        except (CellExecutionError, ValueError, nbformat.ValidationError) as error:
            print(f"{path.name}: FAILED\n{error}", file=sys.stderr)
            return 1
        print(f"{path.name}: ran in {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
