"""Pairs of mentions without a relation, as instances of their own."""

from __future__ import annotations

from typing import Any

import pytest

import relpt

TEXT = "Ada met Charles in London near Turin ."


def record(head: str, tail: str, relation: str | None, text: str = TEXT, **ids: str) -> dict[str, Any]:
    made: dict[str, Any] = {"text": text}
    for side, name in (("h", head), ("t", tail)):
        start = text.index(name)
        made[side] = {"name": name, "pos": [start, start + len(name)], **({"id": ids[name]} if name in ids else {})}
    return made | ({"relation": relation} if relation else {})


def pairs(data: relpt.Dataset, label: str = "no_relation") -> set[frozenset[str]]:
    return {frozenset((i.head_text, i.tail_text)) for i in data if i.relation == label}


def test_mentions_that_no_instance_relates() -> None:
    data = relpt.load([record("Ada", "Charles", "knows"), record("London", "Turin", "far from")])
    more = data.with_negatives()
    assert list(more[:2]) == list(data)
    assert pairs(more) == {frozenset(p) for p in [("Ada", "London"), ("Ada", "Turin")]} | {
        frozenset(p) for p in [("Charles", "London"), ("Charles", "Turin")]
    }
    assert len(more) == 6
    assert set(more.labels) == {"far from", "knows", "no_relation"}
    assert {i.head_name for i in more[2:]} | {i.tail_name for i in more[2:]} == {"Ada", "Charles", "London", "Turin"}


def test_a_relation_anywhere_in_the_data_counts_in_either_direction() -> None:
    elsewhere = "Turin was loved by Ada ."
    data = relpt.load(
        [record("Ada", "Charles", "knows"), record("London", "Turin", "far"), record("Turin", "Ada", "by", elsewhere)]
    )
    assert frozenset(("Ada", "Turin")) not in pairs(data.with_negatives())
    ids = {"Turin": "Q495"}  # in the first sentence it is another Turin
    other = relpt.load(
        [
            record("Ada", "Charles", "knows"),
            record("London", "Turin", "far", Turin="Q1"),
            record("Turin", "Ada", "by", elsewhere, **ids),
        ]
    )
    assert frozenset(("Ada", "Turin")) in pairs(other.with_negatives())


def test_how_many_and_which_is_the_head_are_drawn() -> None:
    data = relpt.load([record("Ada", "Charles", "knows"), record("London", "Turin", "far from")])
    drawn = [data.with_negatives("none", per_sentence=1, seed=seed) for seed in range(30)]
    assert all(len(more) == 3 for more in drawn)
    assert len({frozenset((m[2].head_text, m[2].tail_text)) for m in drawn}) == 4
    assert {m[2].head < m[2].tail for m in drawn} == {True, False}
    assert list(drawn[0]) == list(data.with_negatives("none", per_sentence=1, seed=0))


def test_where_there_are_none() -> None:
    data = relpt.load([record("Ada", "Charles", "knows")])
    with pytest.raises(ValueError, match="none of its 1 different sentences has two mentions without a relation"):
        data.with_negatives()
    with pytest.raises(ValueError, match="names no relations"):
        relpt.load([record("Ada", "Charles", None)]).with_negatives()
    with pytest.raises(ValueError, match="per_sentence is 0; expected a whole number from 1 on"):
        data.with_negatives(per_sentence=0)


def test_a_mention_is_the_same_with_an_id_and_without() -> None:
    """One instance says Anna's id and the next does not, of another name at that: what the first relates is related."""
    text = "Anna met Bruno and Clara"
    first = {"text": text, "h": {"pos": [0, 4], "id": "Q1"}, "t": {"pos": [9, 14], "id": "Q2"}, "relation": "r"}
    for head in ({"pos": [0, 4]}, {"pos": [0, 4], "id": "Q9"}):
        second = {"text": text, "h": head, "t": {"pos": [19, 24], "id": "Q3"}, "relation": "s"}
        made = relpt.load([first, second]).with_negatives()[2:]
        assert [{i.head_text, i.tail_text} for i in made] == [{"Bruno", "Clara"}]
