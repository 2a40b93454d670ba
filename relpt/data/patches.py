"""Patches: files that correct the relations of a data set whose sentences may not be passed on."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from relpt.data.dataset import Dataset
from relpt.data.files import read_json
from relpt.data.values import Problem, kind_of, show, string
from relpt.errors import BadRecordWarning, FormatError
from relpt.runlog import counted

__all__ = ["relabelled"]

_log = logging.getLogger("relpt")


def relabelled(data: Dataset, patch: Any, drop_missing: bool | None) -> Dataset:
    """The work of ``Dataset.relabel``, whose docstring says what is done."""
    named = isinstance(patch, (str, os.PathLike))
    label = os.fspath(patch) if named else "the patch"
    entries = read_json(patch) if named else patch
    relations = _relations(entries, label)
    _check_ids(data, relations, label)
    held = [i for i in data if i.id in relations]
    missing = len(data) - len(held)
    if missing and drop_missing is None and isinstance(entries, Mapping):
        raise ValueError(
            f"{label} holds {len(held):,} of {len(data):,} instances: pass drop_missing=True (--drop-missing) to leave "
            "out the others, as Re-TACRED does, or drop_missing=False (--keep-missing) to keep their relations"
        )
    if missing and not drop_missing and not data.labelled:
        raise ValueError(f"instances without a relation, in {label} neither: {missing:,}; pass drop_missing=True")
    kept = [
        dataclasses.replace(i, relation=relations[i.id]) if i.id in relations else i
        for i in (held if drop_missing else data)
    ]
    changed = sum(i.relation != relations[i.id or ""] for i in held)
    rest = "is left out" if drop_missing else "stays as it is"
    _log.info(
        f"{data.name}: {label} changes the relation of {counted(changed, 'instance')}, confirms "
        f"{len(held) - changed:,}, does not hold {missing:,}; what it does not hold {rest}"
    )
    counts = {**data.bad_counts, **({"not in the patch": missing} if drop_missing and missing else {})}
    return Dataset(kept, name=data.name, bad=data.bad, bad_counts=counts)


def _relations(entries: Any, label: str) -> dict[str, str]:
    """Id -> relation of a patch's entries; FormatError names the entry that is none."""
    relations: dict[str, str] = {}
    for place, id_, value in _entries(entries, label):
        try:
            key, relation = string(id_, "id", number=True), string(value, "relation")
        except Problem as problem:
            raise FormatError(f"{label}: {place}: {problem.field}: {problem.reason}") from None
        if key is None or relation is None:
            field = "id" if key is None else "relation"
            raise FormatError(f"{label}: {place}: {field}: missing; an entry has an id and the relation's name")
        if relations.setdefault(key, relation) != relation:
            raise FormatError(f"{label}: {place}: {key!r} is {show(relations[key])} before; keep one of the two")
    if not relations:
        raise FormatError(f"{label}: the patch is empty; give it at least one id and relation")
    return relations


def _entries(entries: Any, label: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, id, relation) of each entry, in TACREV's form, a list of objects, or Re-TACRED's, one object."""
    if isinstance(entries, Mapping):
        yield from ((show(id_), id_, relation) for id_, relation in entries.items())
        return
    if not isinstance(entries, Iterable) or isinstance(entries, (str, bytes)):
        raise FormatError(
            f"{label}: expected a list of {{id, relation}} or an object {{id: relation}}, got {kind_of(entries)}"
        )
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise FormatError(f"{label}: record {number}: expected {{id, relation}}, got {show(entry)}")
        yield f"record {number}", entry.get("id"), entry.get("relation")


def _check_ids(data: Dataset, relations: Mapping[str, str], label: str) -> None:
    """Says which ids of the patch the data does not have; ValueError when it has none of them."""
    ids = {i.id for i in data if i.id is not None}
    if not ids:
        raise ValueError(f"the records of {data.name} have no ids, by which a patch names them; load a file that has")
    unknown = [id_ for id_ in relations if id_ not in ids]
    such = ", ".join(map(repr, unknown[:3])) + (", …" if len(unknown) > 3 else "")
    if len(unknown) == len(relations):
        raise ValueError(f"{data.name} has no id of {label} ({such}); is it the patch of another part of the data?")
    if unknown:
        warnings.warn(
            f"{data.name} does not have {len(unknown):,} of the {len(relations):,} ids in {label}: {such}",
            BadRecordWarning,
            stacklevel=4,
        )
