"""Bags: the instances of one pair of entities, which distantly supervised data label and evaluate together."""

from __future__ import annotations

import logging
from typing import NamedTuple

from relpt.data.dataset import Dataset
from relpt.data.report import entity_keys

__all__ = ["Bag", "bags_of"]

_log = logging.getLogger("relpt")


class Bag(NamedTuple):
    """The instances of one pair of entities.

    Attributes:
        head, tail: the entities' ids; the name, in small letters, of one without.
        indices: where its instances stand in the dataset, in order.
        relations: the relations they have, sorted; none in unlabelled data.
    """

    head: str
    tail: str
    indices: tuple[int, ...]
    relations: tuple[str, ...]


def bags_of(data: Dataset) -> list[Bag]:
    """The work of ``Dataset.bags``, whose docstring says what is done."""
    groups: dict[tuple[str, str], list[int]] = {}
    unknown, named = [], 0
    for index, (head, tail) in enumerate(entity_keys(data)):
        if head is None or tail is None:
            unknown.append(index)
            continue
        named += head.startswith("name:") + tail.startswith("name:")
        groups.setdefault((head, tail), []).append(index)
    if unknown:
        first = data[unknown[0]].source or f"instance {unknown[0]}"
        raise ValueError(
            f"{data.name}: {len(unknown):,} of {len(data):,} instances have an entity with neither id nor name, by one "
            f"of which bags are made (first: {first}); give them ids or names"
        )
    if named:
        _log.warning(
            f"{data.name}: {named:,} of {2 * len(data):,} mentions have no id; their entities are told apart by name"
        )
    return [_bag(data, *pair, indices) for pair, indices in groups.items()]


def _bag(data: Dataset, head: str, tail: str, indices: list[int]) -> Bag:
    relations = {relation for i in indices if (relation := data[i].relation) is not None}
    return Bag(head.split(":", 1)[1], tail.split(":", 1)[1], tuple(indices), tuple(sorted(relations)))
