"""Pairs of entities that stand in one sentence without a relation between them: negatives for classification."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np

from relpt.data.dataset import Dataset
from relpt.data.instance import Instance, Span
from relpt.data.report import entity_keys

__all__ = ["with_negatives"]

_log = logging.getLogger("relpt")


class _Mention(NamedTuple):
    span: Span
    keys: frozenset[str]  # of the entity, which instances may say in several ways; and of the place
    name: str | None
    id: str | None
    type: str | None


def with_negatives(data: Dataset, label: str, most: int | None, seed: int) -> Dataset:
    """The work of ``Dataset.with_negatives``, whose docstring says what is done."""
    if not data.labelled:
        raise ValueError(f"{data.name} names no relations; negatives are the pairs without one")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"per_sentence is {most!r}; expected a whole number from 1 on, or None for all")
    sentences: dict[str, dict[Span, _Mention]] = {}
    related: set[frozenset[str]] = set()
    for instance, keys in zip(data, entity_keys(data), strict=True):
        mentions = sentences.setdefault(instance.text, {})
        head, tail = _mentions(instance, keys)
        for mention in (head, tail):
            mentions[mention.span] = _joined(mention, mentions.get(mention.span))
        related |= {frozenset(pair) for pair in product(head.keys, tail.keys)}
    rng, made = np.random.default_rng(seed), []
    for text, mentions in sentences.items():
        inside = [mentions[span] for span in sorted(mentions)]
        pairs = [(a, b) for a, b in combinations(inside, 2) if _is_free(a, b, related)]
        chosen = rng.permutation(len(pairs))[:most] if most is not None else np.arange(len(pairs))
        for number in sorted(chosen.tolist()):
            first, second = pairs[number]
            head, tail = (first, second) if rng.random() < 0.5 else (second, first)
            made.append(_instance(text, head, tail, label))
    if not made:
        raise ValueError(
            f"{data.name}: none of its {len(sentences):,} different sentences has two mentions without a relation "
            "(each instance marks two; more come from other instances of the same sentence); give data with several "
            f"instances a sentence, or with sentences that are labelled {label!r}"
        )
    _log.info("%s: %d pairs without a relation are added as %r", data.name, len(made), label)
    return Dataset([*data, *made], name=data.name, bad=data.bad, bad_counts=data.bad_counts)


def _mentions(instance: Instance, keys: tuple[str | None, str | None]) -> tuple[_Mention, _Mention]:
    i, places = instance, [f"{instance.text}@{span}" for span in (instance.head, instance.tail)]
    head, tail = (frozenset(filter(None, pair)) for pair in zip(keys, places, strict=True))
    return (
        _Mention(i.head, head, i.head_name, i.head_id, i.head_type),
        _Mention(i.tail, tail, i.tail_name, i.tail_id, i.tail_type),
    )


def _joined(mention: _Mention, other: _Mention | None) -> _Mention:
    """The one that has an id, else the later one, by the keys of both."""
    if other is None:
        return mention
    best = other if mention.id is None and other.id is not None else mention
    return best._replace(keys=mention.keys | other.keys)


def _is_free(a: _Mention, b: _Mention, related: set[frozenset[str]]) -> bool:
    """Two entities apart, of which no instance of the data states a relation, in either direction."""
    if a.span[1] > b.span[0] or a.keys & b.keys:
        return False
    return not any(frozenset(pair) in related for pair in product(a.keys, b.keys))


def _instance(text: str, head: _Mention, tail: _Mention, label: str) -> Instance:
    sides: dict[str, Any] = {}
    for side, mention in (("head", head), ("tail", tail)):
        sides |= {f"{side}_name": mention.name, f"{side}_id": mention.id, f"{side}_type": mention.type}
    return replace(Instance(text, head.span, tail.span, label), **sides)
