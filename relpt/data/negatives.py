"""Pairs of entities that stand in one sentence without a relation between them: negatives for classification."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from relpt.data.dataset import Dataset
from relpt.data.instance import Instance, Span
from relpt.data.report import entity_keys

__all__ = ["with_negatives"]

_log = logging.getLogger("relpt")


class _Mention(NamedTuple):
    span: Span
    key: str  # of the entity; of the place where it has neither id nor name
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
        head, tail = _mentions(instance, keys)
        sentences.setdefault(instance.text, {}).update({head.span: head, tail.span: tail})
        related.add(frozenset((head.key, tail.key)))
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
    return (
        _Mention(i.head, keys[0] or places[0], i.head_name, i.head_id, i.head_type),
        _Mention(i.tail, keys[1] or places[1], i.tail_name, i.tail_id, i.tail_type),
    )


def _is_free(a: _Mention, b: _Mention, related: set[frozenset[str]]) -> bool:
    """Two entities apart, of which no instance of the data states a relation, in either direction."""
    return a.span[1] <= b.span[0] and a.key != b.key and frozenset((a.key, b.key)) not in related


def _instance(text: str, head: _Mention, tail: _Mention, label: str) -> Instance:
    sides: dict[str, Any] = {}
    for side, mention in (("head", head), ("tail", tail)):
        sides |= {f"{side}_name": mention.name, f"{side}_id": mention.id, f"{side}_type": mention.type}
    return replace(Instance(text, head.span, tail.span, label), **sides)
