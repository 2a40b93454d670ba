"""The sample corpus that comes with relpt (see sample/CARD.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from relpt.data.dataset import Dataset
from relpt.data.reading import load

__all__ = ["SAMPLE_FOLDER", "load_sample", "sample_relations"]

SAMPLE_FOLDER: Final = Path(__file__).parent / "sample"
_PARTS: Final = ("train", "unseen")


def load_sample(part: str = "train") -> Dataset:
    """One part of the sample corpus: English sentences about the real world, written for relpt.

    Args:
        part: "train" (16 relations), "unseen" (8 others, for few-shot evaluation) or "all".

    Raises:
        ValueError: there is no such part.
    """
    if part == "all":
        return load([SAMPLE_FOLDER / f"{name}.jsonl" for name in _PARTS], format="opennre", name="sample corpus")
    if part not in _PARTS:
        raise ValueError(f"part is {part!r}; expected 'train', 'unseen' or 'all'")
    return load(SAMPLE_FOLDER / f"{part}.jsonl", format="opennre", name=f"sample corpus, {part}")


def sample_relations() -> dict[str, dict[str, Any]]:
    """Name -> {"description", "head", "tail", "part"} of the sample corpus's relations."""
    relations: dict[str, dict[str, Any]] = json.loads((SAMPLE_FOLDER / "relations.json").read_text(encoding="utf-8"))
    return relations
