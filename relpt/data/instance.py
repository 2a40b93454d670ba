"""One sentence with two marked entities, and the note on a record that could not become one."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

__all__ = ["BadRecord", "Instance", "where"]

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Instance:
    """A sentence with a head and a tail entity.

    Attributes:
        text: the sentence.
        head, tail: half-open ``(start, end)`` of the mentions, in characters (code points) of ``text``.
        relation: the relation's name, None where the data is unlabelled.
        head_name, tail_name: the entities' names as the data gives them, None where it does not.
        head_id, tail_id: knowledge-graph ids, such as Wikidata's ``"Q42"``, or None.
        head_type, tail_type: entity types, such as ``"GPE"``, or None.
        source: where the record stands, such as ``"train.txt:12"``.
        id: the record's own id in its data set, such as TACRED's ``"e7798fb926b9403cfcd2"``, or None.
        pos, ner: the part of speech and the kind of named entity of each word of ``text`` between blanks, or None.

    Raises:
        ValueError: a span is empty or outside the text, the spans overlap, or there is not one tag a word.
    """

    text: str
    head: Span
    tail: Span
    relation: str | None = None
    head_name: str | None = None
    tail_name: str | None = None
    head_id: str | None = None
    tail_id: str | None = None
    head_type: str | None = None
    tail_type: str | None = None
    source: str = ""
    id: str | None = None
    pos: tuple[str, ...] | None = None
    ner: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        (a, b), (c, d), n = self.head, self.tail, len(self.text)
        if not (0 <= a < b <= n and 0 <= c < d <= n and (b <= c or d <= a)):
            raise ValueError(
                f"head {self.head} and tail {self.tail} must be two separate half-open character spans "
                f"within the text's {n} characters"
            )
        for name, tags in (("pos", self.pos), ("ner", self.ner)):
            if tags is not None and len(tags) != len(self.text.split()):
                raise ValueError(f"{name}: {len(tags)} tags for the text's {len(self.text.split())} words")

    @property
    def head_text(self) -> str:
        """The head mention as it stands in the sentence."""
        return self.text[self.head[0] : self.head[1]]

    @property
    def tail_text(self) -> str:
        """The tail mention as it stands in the sentence."""
        return self.text[self.tail[0] : self.tail[1]]

    def to_dict(self) -> dict[str, Any]:
        """The instance as a record that ``relpt.load`` reads; spans in characters."""
        record: dict[str, Any] = {"text": self.text}
        for key, pos, name, id_, type_ in (
            ("h", self.head, self.head_name, self.head_id, self.head_type),
            ("t", self.tail, self.tail_name, self.tail_id, self.tail_type),
        ):
            entity: dict[str, Any] = {"pos": list(pos)}
            entity.update({k: v for k, v in (("name", name), ("id", id_), ("type", type_)) if v is not None})
            record[key] = entity
        if self.relation is not None:
            record["relation"] = self.relation
        if self.id is not None:
            record["id"] = self.id
        record.update({name: list(tags) for name, tags in (("pos", self.pos), ("ner", self.ner)) if tags is not None})
        return record

    def to_html(self) -> str:
        """The sentence in HTML, head and tail coloured, everything else escaped."""
        first, second = sorted(((*self.head, "head", self.head_type), (*self.tail, "tail", self.tail_type)))
        text, out, at = self.text, [], 0
        for start, end, role, type_ in (first, second):
            colour = "#cfe3ff" if role == "head" else "#ffe0b8"
            label = f"{role} · {type_}" if type_ else role
            out.append(html.escape(text[at:start]))
            out.append(
                f'<mark style="background:{colour};color:#111;padding:0 .25em;border-radius:.3em">'
                f'{html.escape(text[start:end])}<small style="opacity:.6"> {html.escape(label)}</small></mark>'
            )
            at = end
        return "".join(out) + html.escape(text[at:])

    def _repr_html_(self) -> str:
        relation = f"<b>{html.escape(self.relation)}</b>: " if self.relation is not None else ""
        return f"<div>{relation}{self.to_html()}</div>"


def where(file: str, line: int | None, record: int | None, relation: str | None) -> str:
    """The place of a record in words: ``train.jsonl:12``, ``val.json: P931[12]`` or ``data: record 12``."""
    if relation is not None:
        return f"{file}: {relation}[{record}]"
    if line is not None:
        return f"{file}:{line}"
    return f"{file}: record {record}" if record is not None else file


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be read.

    Attributes:
        file: path of the file, or the dataset's name for data from memory.
        line: line in the file, from 1; None where lines have no meaning.
        record: number of the record in its file, table or relation, from 0; None for a line that is no record.
        relation: the relation whose list it stands in (FewRel files), else None.
        field: the field at fault, such as ``"h.pos"``; empty when it is the whole record.
        kind: short class for counting, such as ``"span outside"``.
        reason: what was got, and the remedy.
    """

    file: str
    line: int | None
    record: int | None
    relation: str | None
    field: str
    kind: str
    reason: str

    @property
    def where(self) -> str:
        """The place: ``train.jsonl:12``, ``val.json: P931[12]`` or ``data: record 12``."""
        return where(self.file, self.line, self.record, self.relation)

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.reason}" if self.field else f"{self.where}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """The fields and the message as a plain dict."""
        return {
            "file": self.file,
            "line": self.line,
            "record": self.record,
            "relation": self.relation,
            "field": self.field,
            "kind": self.kind,
            "reason": self.reason,
            "message": str(self),
        }
