"""Distantly supervised data: NYT-FB, whose mentions are found by name, and Wiki-WD, sentences with many edges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from relpt.data.instance import Span
from relpt.data.records import relation_of, run_of
from relpt.data.values import Problem, kind_of, plain, show, string

__all__ = ["NYT_LINE", "edges_of", "is_nyt", "is_wiki", "nyt_records", "parse_nyt", "parse_wiki"]

# -- NYT-FB ------------------------------------------------------------------------------------------------------------

_END = "###END###"
_MID = r"/?[mg][./]\S*"  # a Freebase id: m.0ccvx, /m/0ccvx
NYT_LINE = re.compile(rf"{_MID}\t{_MID}\t[^\t]+\t[^\t]+\t[^\t]+\t")


def is_nyt(record: dict[str, Any]) -> bool:
    """Whether the record names its entities as the JSON of NYT-FB does."""
    return "sentence" in record and isinstance(record.get("head"), dict) and isinstance(record.get("tail"), dict)


def nyt_records(lines: Iterable[tuple[int, str | Problem]]) -> Iterator[tuple[int, Any]]:
    """(line, record or Problem) of NYT-FB's text: two ids, two names, the relation and the sentence between tabs."""
    for number, line in lines:
        if isinstance(line, Problem):
            yield number, line
            continue
        line = line.rstrip()
        fields = line.removesuffix(_END).rstrip().split("\t", 5)
        if len(fields) < 6 or not line.endswith(_END):
            wanted = f"two ids, two names, the relation and the sentence between tabs, then {_END}"
            got = f"{len(fields)} fields" if line.endswith(_END) else f"no {_END}, as if it were cut off"
            yield number, Problem("unexpected line", "", f"expected {wanted}; got {got} ({show(line)})")
            continue
        head_id, tail_id, head, tail, relation, sentence = fields
        entities = {"head": {"word": head, "id": head_id}, "tail": {"word": tail, "id": tail_id}}
        yield number, {"sentence": sentence, "relation": relation, **entities}


def parse_nyt(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """Text with the character positions of the names, and the underscores that join a name's words as blanks.

    A name counts where it stands as whole words, in its own case if it does anywhere, at its first place at which the
    other name can stand apart from it.

    Source: Riedel et al. 2010, "Modeling Relations and Their Mentions without Labeled Text"; the files of Lin et al.
    2016 and of OpenNRE.
    """
    sentence = record.get("sentence")
    if not isinstance(sentence, str):
        kind = "missing field" if sentence is None else "wrong type"
        raise Problem(kind, "sentence", f"expected a string, got {kind_of(sentence)}")
    text = sentence.rstrip().removesuffix(_END).rstrip()
    if not text:
        raise Problem("empty text", "sentence", "the sentence is empty; remove the record")
    names = [_name(record, role) for role in ("head", "tail")]
    spans = _apart(text, *names)
    if "_" in text:
        tally["sentences with underscores read as blanks"] += 1
    entities = {
        key: {**record[role], "pos": list(span), "name": _blanks(name)}
        for key, role, span, name in zip("ht", ("head", "tail"), spans, names, strict=True)
    }
    return {"id": record.get("id"), "text": _blanks(text), "relation": relation_of(record), **entities}


def _blanks(text: str) -> str:
    return text.replace("_", " ")


def _name(record: dict[str, Any], role: str) -> str:
    entity = record.get(role)
    if not isinstance(entity, dict):
        raise Problem("wrong type", role, f"expected an object with word and id, got {kind_of(entity)}")
    name = string(entity.get("word"), f"{role}.word")
    if name is None or not name.strip(" _"):
        raise Problem("missing field", f"{role}.word", "missing; give the entity's name as it stands in the sentence")
    return name.strip()


def _apart(text: str, head: str, tail: str) -> tuple[Span, Span]:
    """The first places of both names that share no character.

    The longer name is placed first, and the other outside all places of it where it can be: in "New York … York", York
    is no part of New York.
    """
    places = {}
    for role, name in (("head", head), ("tail", tail)):
        places[role] = _places(text, name)
        if not places[role]:
            reason = f"{show(name)} is not in the sentence as whole words; correct the name or remove the record"
            raise Problem("name not found", f"{role}.word", reason)
    swap = len(tail) > len(head)
    longer, shorter = (places["tail"], places["head"]) if swap else (places["head"], places["tail"])
    free = [b for b in shorter if all(_separate(a, b) for a in longer)] or shorter
    for a in longer:
        for b in free:
            if _separate(a, b):
                return (b, a) if swap else (a, b)
    reason = f"{show(head)} and {show(tail)} stand only within each other; remove the record"
    raise Problem("overlapping entities", "tail.word", reason)


def _separate(a: Span, b: Span) -> bool:
    return a[1] <= b[0] or b[1] <= a[0]


def _places(text: str, name: str) -> list[Span]:
    """Where the name stands as whole words; without regard to case and kinds of blanks where it does so nowhere."""
    found: list[Span] = []
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not (_joins(text, start) or _joins(text, end)):
            found.append((start, end))
        start = text.find(name, start + 1)
    if found:
        return found
    pattern = r"[\s_]+".join(re.escape(word) for word in re.split(r"[\s_]+", name) if word)
    loose = (m.span() for m in re.finditer(pattern, text, re.IGNORECASE))
    return [(start, end) for start, end in loose if not (_joins(text, start) or _joins(text, end))]


def _joins(text: str, at: int) -> bool:
    """Whether a word goes on across this place of the text; an underscore is a part of words."""
    return 0 < at < len(text) and _in_word(text[at - 1]) and _in_word(text[at])


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


# -- Wiki-WD -----------------------------------------------------------------------------------------------------------


def is_wiki(record: dict[str, Any]) -> bool:
    """Whether the record is a sentence with edges."""
    return "edgeSet" in record and "tokens" in record


def edges_of(record: dict[str, Any], tally: Counter[str]) -> list[dict[str, Any]]:
    """A record for each edge of a sentence; raises Problem where it has no list of them."""
    edges = plain(record.get("edgeSet"))
    if not isinstance(edges, list):
        kind = "missing field" if edges is None else "wrong type"
        raise Problem(kind, "edgeSet", f"expected a list of edges, got {kind_of(edges)} ({show(edges)})")
    if not edges:
        tally["sentences without an edge, which give no instance"] += 1
    return [
        {"relation": edge.get("kbID") if isinstance(edge, dict) else None, "sentence": record, "edge": edge}
        for edge in edges
    ]


def parse_wiki(record: dict[str, Any], tally: Counter[str]) -> dict[str, Any]:
    """An edge's left and right as head and tail, with the ids and names of the vertices that stand there.

    A vertex gives its name where the edge covers it whole and it is no date or number, which vertices write in a way of
    their own.

    Source: Sorokin and Gurevych 2017, "Context-Aware Representations for Knowledge Base Relation Extraction".
    """
    sentence, edge = record["sentence"], record["edge"]
    if not isinstance(edge, dict):
        raise Problem("wrong type", "edge", f"expected an object with left, right and kbID, got {kind_of(edge)}")
    entities = {key: _vertex(sentence, edge, side) for key, side in (("h", "left"), ("t", "right"))}
    return {"tokens": sentence.get("tokens"), "relation": record["relation"], **entities}


def _vertex(sentence: dict[str, Any], edge: dict[str, Any], side: str) -> dict[str, Any]:
    """What is known of an edge's side: its positions, and what the first vertex that covers them says."""
    numbers = plain(edge.get(side))
    entity: dict[str, Any] = {"pos": run_of(numbers, side)}
    vertices = plain(sentence.get("vertexSet"))
    for number, vertex in enumerate(vertices if isinstance(vertices, list) else ()):
        covered = plain(vertex.get("tokenpositions")) if isinstance(vertex, dict) else None
        if not isinstance(covered, list):
            field = f"vertexSet[{number}]"
            raise Problem("wrong type", field, f"expected an object with tokenpositions, got {show(vertex)}")
        if all(n in covered for n in numbers):
            lexical = vertex.get("type") in (None, "LEXICAL")
            name = vertex.get("lexicalInput") if lexical and len(covered) == len(numbers) else None
            return {**entity, "id": vertex.get("kbID"), "name": name, "type": None if lexical else vertex["type"]}
    return entity
