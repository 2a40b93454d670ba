"""The same share of every relation's sentences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_dataset

import relpt

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def test_a_fraction_has_the_same_share_of_every_relation() -> None:
    records = [record for n, size in enumerate((100, 37, 7, 1)) for record in tiny_dataset(n + 1, size)[n * size :]]
    data = relpt.load(records)
    assert data.fraction(0.1).label_counts() == {"r0": 10, "r1": 4, "r2": 1, "r3": 1}
    assert data.fraction(0.01).label_counts() == {"r0": 1, "r1": 1, "r2": 1, "r3": 1}
    assert data.fraction(0.07).label_counts()["r0"] == 7  # 0.07 * 100 is above 7 in floating point
    assert data.fraction(1) is data
    rows = {id(i): row for row, i in enumerate(data)}
    drawn = {seed: [rows[id(i)] for i in data.fraction(0.1, seed=seed)] for seed in range(40)}
    assert all(found == sorted(found) for found in drawn.values())
    assert drawn[3] == [rows[id(i)] for i in data.fraction(0.1, seed=3)]
    assert len({tuple(found) for found in drawn.values()}) == 40
    small, large = ({rows[id(i)] for i in data.fraction(share, seed=3)} for share in (0.05, 0.3))
    assert small < large
    counts = Counter(row for found in drawn.values() for row in found if row < 100)
    assert len(counts) > 90  # 400 draws of 100 sentences: 2 are expected not to come
    assert max(counts.values()) < 14  # 4 expected; above that 1 in 10^4


def test_what_is_drawn_of_a_relation_does_not_depend_on_the_others() -> None:
    data = relpt.load(tiny_dataset(4, 20))
    alone = data.select(labels=["r2"]).fraction(0.2, seed=7)
    assert list(alone) == list(data.fraction(0.2, seed=7).select(labels=["r2"]))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "0.1"])
def test_fractions_out_of_range(share: Any) -> None:
    train = relpt.load(tiny_dataset(2, 3))
    with pytest.raises(ValueError, match=r"the fraction is .*; expected a number above 0, at most 1"):
        train.fraction(share)


@pytest.mark.real_data
@pytest.mark.parametrize(("file", "sizes"), [("semeval/train.txt", (73, 660)), ("chemprot/train.jsonl", (49, 423))])
def test_fractions_have_the_published_sizes(file: str, sizes: tuple[int, int]) -> None:
    """Peng et al. 2020, table 9."""
    if not (DATA / file).is_file():
        pytest.skip(f"{DATA / file} is not there")
    data = relpt.load(DATA / file)
    assert (len(data.fraction(0.01)), len(data.fraction(0.1))) == sizes


def test_a_fraction_of_unlabelled_data() -> None:
    bare = [{k: v for k, v in record.items() if k != "relation"} for record in tiny_dataset(2, 3)]
    with pytest.raises(ValueError, match="data: record 0 has no relation; a fraction is taken of each relation's"):
        relpt.load(bare).fraction(0.5)
