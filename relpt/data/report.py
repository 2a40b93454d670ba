"""What ``Dataset.check()`` finds, and the HTML of datasets."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from relpt.data.instance import Instance
from relpt.data.records import same_name

if TYPE_CHECKING:
    from relpt.data.dataset import Dataset

__all__ = ["Report", "dataset_html", "entity_keys", "plain_name"]

_UNKNOWN_TYPES = {None, "", "UNK", "unk", "none", "None"}
_SHOWN_BAD, _SHOWN_LABELS, _SHOWN_SENTENCES = 5, 8, 3


def entity_keys(data: Iterable[Instance]) -> list[tuple[str | None, str | None]]:
    """What tells the head and tail entities of each instance apart.

    It is the knowledge-graph id; without one, the name without regard to case and blanks, or the id that all mentions
    of that name with an id agree on; None with neither.
    """
    rows = list(data)
    ids: dict[str, set[str]] = {}
    for i in rows:
        for name, id_ in ((i.head_name, i.head_id), (i.tail_name, i.tail_id)):
            if name is not None and id_ is not None:
                ids.setdefault(plain_name(name), set()).add(id_)

    def key(name: str | None, id_: str | None) -> str | None:
        if id_ is None and name is not None:
            known = ids.get(plain_name(name), ())
            if len(known) != 1:
                return f"name:{plain_name(name)}"
            (id_,) = known
        return None if id_ is None else f"id:{id_}"

    return [(key(i.head_name, i.head_id), key(i.tail_name, i.tail_id)) for i in rows]


def plain_name(name: str) -> str:
    """An entity's name without regard to case and blanks."""
    return " ".join(name.split()).casefold()


def _quartiles(values: list[int]) -> dict[str, int]:
    """Minimum, median, 95th percentile and maximum."""
    if not values:
        return {"min": 0, "median": 0, "p95": 0, "max": 0}
    low, median, high, top = np.percentile(values, [0, 50, 95, 100], method="nearest")
    return {"min": int(low), "median": int(median), "p95": int(high), "max": int(top)}


@dataclass(frozen=True, slots=True)
class Report:
    """What a dataset holds.

    Attributes:
        name: the dataset's name.
        n: instances.
        label_counts: instances per relation, the most frequent first.
        single_relations: relations with one sentence alone, from which no pair can be drawn.
        characters, words, mention_words: min, median, p95 and max per sentence, sentence and mention.
        head_first: sentences in which the head stands before the tail.
        repeated_sentences: instances that repeat another's sentence and spans.
        entities: distinct entities (by id, else by name).
        mentions_with_id, mentions_with_name: of the 2 n mentions, those with an id and those with a name.
        mentions_typed: mentions with a type other than unknown; types: how many types.
        name_mismatches: mentions that differ from the name given (0 unless loaded with check_names=False).
        entity_pairs: distinct (head, tail) pairs; repeated_pairs: pairs with several sentences, MTB's positives.
        bad_counts: records left out, by kind; bad: the first of their messages.
    """

    name: str
    n: int
    label_counts: dict[str, int]
    single_relations: list[str]
    characters: dict[str, int]
    words: dict[str, int]
    mention_words: dict[str, int]
    head_first: int
    repeated_sentences: int
    entities: int
    mentions_with_id: int
    mentions_with_name: int
    mentions_typed: int
    types: int
    name_mismatches: int
    entity_pairs: int
    repeated_pairs: int
    bad_counts: dict[str, int]
    bad: list[str]

    @classmethod
    def of(cls, data: Dataset) -> Report:
        """Counts everything once."""
        pairs: Counter[tuple[str, str]] = Counter()
        entities: set[str] = set()
        types: Counter[str | None] = Counter()
        sentences: Counter[object] = Counter()
        mention_words, mismatches, with_id, with_name = [], 0, 0, 0
        for i, (head, tail) in zip(data, entity_keys(data), strict=True):
            entities.update(key for key in (head, tail) if key is not None)
            if head is not None and tail is not None:
                pairs[head, tail] += 1
            sentences[i.text, i.head, i.tail] += 1
            for name, text, id_, type_ in (
                (i.head_name, i.head_text, i.head_id, i.head_type),
                (i.tail_name, i.tail_text, i.tail_id, i.tail_type),
            ):
                mention_words.append(len(text.split()))
                with_id += id_ is not None
                with_name += name is not None
                mismatches += name is not None and not same_name(text, name)
                types[None if type_ in _UNKNOWN_TYPES else type_] += 1
        counts = data.label_counts()
        unknown = types.pop(None, 0)
        return cls(
            data.name,
            len(data),
            counts,
            [name for name, count in counts.items() if count == 1],
            _quartiles([len(i.text) for i in data]),
            _quartiles([len(i.text.split()) for i in data]),
            _quartiles(mention_words),
            sum(i.head < i.tail for i in data),
            len(data) - len(sentences),
            len(entities),
            with_id,
            with_name,
            2 * len(data) - unknown,
            len(types),
            mismatches,
            len(pairs),
            sum(count > 1 for count in pairs.values()),
            dict(data.bad_counts),
            [str(b) for b in data.bad[:_SHOWN_BAD]],
        )

    def to_dict(self) -> dict[str, Any]:
        """All counts as plain numbers, lists and dicts (ready for JSON)."""
        return {name: getattr(self, name) for name in self.__slots__}

    def rows(self) -> list[tuple[str, str]]:
        """(what, finding) line by line, as they are printed."""

        def spread(q: dict[str, int]) -> str:
            return f"{q['min']:,}–{q['max']:,}, median {q['median']:,}, 95 % up to {q['p95']:,}"

        top = list(self.label_counts.items())[:_SHOWN_LABELS]
        rows = [("instances", f"{self.n:,}")]
        if self.label_counts:
            more = f", … ({len(self.label_counts) - len(top):,} more)" if len(self.label_counts) > len(top) else ""
            rows.append(("relations", f"{len(self.label_counts):,}: " + ", ".join(f"{k} {v:,}" for k, v in top) + more))
        else:
            rows.append(("relations", "none (unlabelled)"))
        if self.single_relations:
            rows.append(("with one sentence", _single(self.single_relations)))
        rows += [
            ("characters", spread(self.characters)),
            ("words", spread(self.words)),
            ("words in mentions", spread(self.mention_words)),
            ("head before tail", f"{self.head_first:,}"),
            ("repeated sentences", f"{self.repeated_sentences:,}"),
            (
                "entities",
                f"{self.entities:,} (of {2 * self.n:,} mentions {self.mentions_with_id:,} have an id, "
                f"{self.mentions_with_name:,} a name)",
            ),
            ("entity pairs", f"{self.entity_pairs:,}, of which {self.repeated_pairs:,} in several sentences"),
            ("types", f"{self.types:,}, known for {self.mentions_typed:,} of {2 * self.n:,} mentions"),
        ]
        if self.name_mismatches:
            rows.append(("names", f"{self.name_mismatches:,} mentions differ from the entity's name"))
        total = sum(self.bad_counts.values())
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.bad_counts.items())
        rows.append(("bad records", f"{total:,} left out: {kinds}" if total else "none"))
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(what) for what, _ in rows)
        lines = [self.name, *(f"  {what:<{width}}  {finding}" for what, finding in rows)]
        return "\n".join(lines + [f"    {message}" for message in self.bad])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(message)}</li>" for message in self.bad)
        return f"<b>{html.escape(self.name)}</b>{_table(self.rows())}" + (f"<ul>{notes}</ul>" if notes else "")


def _single(relations: list[str]) -> str:
    if len(relations) == 1:
        return f"1 relation, {relations[0]}: it gives no pairs"
    return f"{len(relations):,} relations, such as {', '.join(relations[:3])}: they give no pairs"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(a)}</th><td style="text-align:left">{html.escape(b)}</td></tr>'
        for a, b in rows
    )
    return f"<table>{cells}</table>"


def dataset_html(data: Dataset) -> str:
    """A table of counts, bars of the most frequent relations, and a few sentences."""
    counts = data.label_counts()
    rows = [("instances", f"{len(data):,}"), ("relations", f"{len(counts):,}" if counts else "unlabelled")]
    if data.bad_counts:
        rows.append(("bad records left out", ", ".join(f"{count:,} {kind}" for kind, count in data.bad_counts.items())))
    top = max(counts.values(), default=1)
    bars = "".join(
        f'<tr><td style="text-align:left">{html.escape(label)}</td><td style="text-align:left">'
        f'<span style="display:inline-block;height:.7em;width:{max(1, round(160 * count / top))}px;background:#7aa6d8">'
        f"</span> {count:,}</td></tr>"
        for label, count in list(counts.items())[:_SHOWN_LABELS]
    )
    more = f"<p>… and {len(counts) - _SHOWN_LABELS:,} more</p>" if len(counts) > _SHOWN_LABELS else ""
    step = max(1, len(data) // _SHOWN_SENTENCES)
    sentences = "".join(f"<li>{i._repr_html_()}</li>" for i in list(data)[::step][:_SHOWN_SENTENCES])
    return (
        f"<b>{html.escape(data.name)}</b>{_table(rows)}"
        + (f"<table>{bars}</table>{more}" if bars else "")
        + (f"<ul>{sentences}</ul>" if sentences else "")
    )
