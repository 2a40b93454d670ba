"""Bags: the instances of one pair of entities, which distantly supervised data label and evaluate together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from relpt.data.report import entity_keys

if TYPE_CHECKING:
    from relpt.data.dataset import Dataset

__all__ = ["Bag", "bags_of", "bags_of_corpus", "cut_bags"]

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


def cut_bags(bags: Sequence[Bag], sentences: int | str, seed: int) -> list[Bag]:
    """Those of more than one sentence, each with so many of its sentences, drawn at random, or with "all".

    A bag's relations stay those of all its sentences; one that has fewer keeps what it has.

    Raises:
        ValueError: sentences is neither 1 or more nor "all"; no bag has more than one.
    """
    if sentences != "all" and (not isinstance(sentences, int) or sentences < 1):
        raise ValueError(f"sentences is {sentences!r}; expected a number of each bag's, from 1 on, or 'all'")
    several = [bag for bag in bags if len(bag.indices) > 1]
    if not several:
        raise ValueError(f"none of {len(bags):,} bags has more than one sentence; leave out sentences={sentences!r}")
    rng, most = np.random.default_rng(seed), None if isinstance(sentences, str) else sentences
    drawn = [rng.permutation(len(bag.indices))[:most] for bag in several]
    return [
        bag._replace(indices=tuple(bag.indices[i] for i in sorted(which)))
        for bag, which in zip(several, drawn, strict=True)
    ]


def bags_of(data: Dataset) -> list[Bag]:
    """The work of ``Dataset.bags``, whose docstring says what is done."""
    relations = [instance.relation for instance in data]
    return _grouped(data.name, entity_keys(data), relations, lambda row: data[row].source or f"instance {row}")


def bags_of_corpus(corpus: Any) -> list[Bag]:
    """The work of ``Corpus.bags``: as for a Dataset, by the entities' numbers."""
    names = corpus.entities

    def key(number: int) -> str | None:
        if number < 0:
            return None  # an entity without id and name
        return f"id:{number}" if names is None else names[number]

    pairs = [(key(head), key(tail)) for head, tail in zip(corpus.head_id, corpus.tail_id, strict=True)]
    relations = [corpus.relations[number] if corpus.labelled else None for number in corpus.relation]
    return _grouped(corpus.name, pairs, relations, lambda row: f"sentence {row}")


def _grouped(
    name: str,
    pairs: Sequence[tuple[str | None, str | None]],
    relations: Sequence[str | None],
    place: Callable[[int], str],
) -> list[Bag]:
    groups: dict[tuple[str, str], list[int]] = {}
    unknown, named = [], 0
    for index, (head, tail) in enumerate(pairs):
        if head is None or tail is None:
            unknown.append(index)
            continue
        named += head.startswith("name:") + tail.startswith("name:")
        groups.setdefault((head, tail), []).append(index)
    if unknown:
        raise ValueError(
            f"{name}: {len(unknown):,} of {len(pairs):,} instances have an entity with neither id nor name, by one "
            f"of which bags are made (first: {place(unknown[0])}); give them ids or names"
        )
    if named:
        _log.warning(
            f"{name}: {named:,} of {2 * len(pairs):,} mentions have no id; their entities are told apart by name"
        )
    return [_bag(*pair, indices, relations) for pair, indices in groups.items()]


def _bag(head: str, tail: str, indices: list[int], relations: Sequence[str | None]) -> Bag:
    found = {relation for i in indices if (relation := relations[i]) is not None}
    return Bag(head.split(":", 1)[1], tail.split(":", 1)[1], tuple(indices), tuple(sorted(found)))
