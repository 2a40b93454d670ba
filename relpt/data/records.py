"""From one common record (a dict with text or tokens, h, t, relation) to an Instance, or a Problem with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from relpt.data.instance import Instance, Span
from relpt.data.values import Problem, encodable, kind_of, plain, show, string, whole

__all__ = ["build_instance", "joined", "relation_of", "run_of", "same_name"]

_WORD = re.compile(r"\S+")


def relation_of(record: dict[str, Any]) -> Any:
    """The record's relation or label, None where it has neither."""
    value = record.get("relation")
    if value is None:
        value = record.get("label")
    return value if type(value) is str else plain(value)


def _relation(record: dict[str, Any], labelled: bool) -> str | None:
    value = relation_of(record)
    if type(value) is str and value:
        return encodable(value, "relation")
    if value is None or value == "":
        if labelled:
            raise Problem(
                "missing relation",
                "relation",
                "missing, though other records have one; give a relation "
                "name, or leave the field out of all records (unlabelled data)",
            )
        return None
    raise Problem(
        "wrong type", "relation", f"expected the relation's name as a string, got {kind_of(value)} ({show(value)})"
    )


class _Sentence:
    """Text, and where its positions stand: tokens joined by single spaces, words of the text, or characters."""

    __slots__ = ("bounds", "text", "tokens", "unit")

    def __init__(self, text: str, tokens: Sequence[str] | None, bounds: list[Span] | None, unit: str) -> None:
        self.text, self.tokens, self.bounds, self.unit = text, tokens, bounds, unit

    @property
    def length(self) -> int:
        if self.unit == "char":
            return len(self.text)
        return len(self.tokens if self.tokens is not None else self.bounds or ())

    def chars(self, start: int, end: int) -> Span:
        """Character span of the positions start..end, which lie inside."""
        if self.unit == "char":
            return start, end
        if self.tokens is not None:
            first = len(" ".join(self.tokens[:start])) + (start > 0)
            return first, first + len(" ".join(self.tokens[start:end]))
        assert self.bounds is not None
        return self.bounds[start][0], self.bounds[end - 1][1]

    def covered(self, start: int, end: int) -> str:
        a, b = self.chars(start, end)
        return self.text[a:b]


def _sentence(record: dict[str, Any], spans: str | None) -> _Sentence:
    field = "tokens" if "tokens" in record else "token"
    tokens = record.get(field)
    if tokens is not None and type(tokens) is not list:
        tokens = plain(tokens)
        tokens = list(tokens) if isinstance(tokens, tuple) else tokens
    text = record.get("text")
    if type(text) is not str:
        text = plain(text)
    if tokens is None and text is None:
        raise Problem(
            "missing field",
            "text",
            f"the record has neither text nor tokens (its fields: {_fields(record)}); give one of them",
        )
    if tokens is not None and text is not None and spans is None:
        raise Problem(
            "ambiguous",
            "text",
            'both text and tokens are given; say what positions count: spans="token" or spans="char" (--spans)',
        )
    unit = spans or ("char" if tokens is None else "token")
    if tokens is not None and (unit == "token" or text is None):
        sentence = _Sentence(joined(tokens, field), tokens, None, unit)
    else:
        if not isinstance(text, str):
            raise Problem("wrong type", "text", f"expected a string, got {kind_of(text)} ({show(text)})")
        field = "text"
        bounds = [m.span() for m in _WORD.finditer(text)] if unit == "token" else None
        sentence = _Sentence(text, None, bounds, unit)
    if not sentence.text or sentence.text.isspace():
        raise Problem("empty text", field, "the sentence is empty; remove the record")
    encodable(sentence.text, field)
    return sentence


def joined(tokens: Any, field: str) -> str:
    """The tokens as one text; Problem where they are no list of strings."""
    if not isinstance(tokens, list):
        raise Problem("wrong type", field, f"expected a list of strings, got {kind_of(tokens)} ({show(tokens)})")
    try:
        return " ".join(tokens)
    except TypeError:
        i, token = next((i, t) for i, t in enumerate(tokens) if not isinstance(t, str))
        raise Problem(
            "wrong type", f"{field}[{i}]", f"expected a string, got {kind_of(token)} ({show(token)})"
        ) from None


def _fields(record: dict[str, Any]) -> str:
    return ", ".join(str(key) for key in list(record)[:8]) or "none"


def _pair(value: Any, field: str) -> tuple[int, int]:
    if type(value) is not list:
        value = plain(value)
    if value is None:
        raise Problem("missing field", field, "missing; give the mention as [start, end), half-open")
    if isinstance(value, (list, tuple)) and len(value) == 2:
        start, end = whole(value[0]), whole(value[1])
        if start is not None and end is not None:
            return start, end
    raise Problem("wrong type", field, f"expected two whole numbers [start, end), got {show(value)}")


def _index_run(value: Any, field: str) -> tuple[int, int]:
    """FewRel's positions: token numbers of every mention; the first mention counts."""
    value = plain(value)
    first = plain(value[0]) if isinstance(value, (list, tuple)) and value else None
    if not isinstance(first, (list, tuple)):
        raise Problem("wrong type", field, f"expected lists of token numbers, one per mention, got {show(value)}")
    return run_of(first, field)


def run_of(value: Any, field: str) -> tuple[int, int]:
    """[start, end), half-open, of a mention whose token numbers are listed; Problem where they are no run."""
    numbers = [whole(i) for i in value] if isinstance(value, (list, tuple)) else [None]
    if None in numbers:
        raise Problem("wrong type", field, f"expected a list of token numbers, got {show(value)}")
    if not numbers:
        raise Problem("span empty", field, "the mention has no tokens; give it at least one")
    first, last = numbers[0], numbers[-1]
    assert first is not None
    assert last is not None
    if numbers != list(range(first, first + len(numbers))):
        raise Problem(
            "mention not contiguous",
            field,
            f"the mention {show(list(value))} is no run of neighbouring tokens; give one unbroken mention",
        )
    return first, last + 1


def _mention(
    record: dict[str, Any], key: str, sentence: _Sentence, spans: str | None, check_names: bool
) -> tuple[Span, str | None, str | None, str | None]:
    """(character span, name, id, type) of the entity under ``h`` or ``t``."""
    value = record.get(key)
    type_: Any = record.get(f"{key}_type")
    if isinstance(value, dict):
        field, name, id_ = f"{key}.pos", value.get("name"), value.get("id")
        type_ = value.get("type", type_)
        start, end = _pair(value.get("pos"), field)
    elif isinstance(value, (list, tuple)):
        field = f"{key}[2]"
        if len(value) < 3:
            raise Problem("wrong type", key, f"expected [name, id, [[token numbers]]], got {show(value)}")
        if spans == "char":
            raise Problem("wrong unit", field, 'FewRel positions are token numbers; leave out spans="char" (--spans)')
        name, id_ = value[0], value[1]
        start, end = _index_run(value[2], field)
    elif value is None:
        raise Problem(
            "missing field", key, f"missing (the record's fields: {_fields(record)}); give an object with pos"
        )
    else:
        raise Problem("wrong type", key, f"expected an object with pos, got {kind_of(value)} ({show(value)})")
    name = string(name, f"{key}.name")
    span = _checked_span(sentence, start, end, field, name, check_names)
    return span, name, string(id_, f"{key}.id", number=True), string(type_, f"{key}.type")


def _checked_span(sentence: _Sentence, start: int, end: int, field: str, name: str | None, check_names: bool) -> Span:
    got, length = (start, end), sentence.length
    if start > end:
        raise Problem("span reversed", field, f"{got} ends before it starts; positions are [start, end), half-open")
    if start == end:
        raise Problem(
            "span empty",
            field,
            f"{got} is empty; the end is half-open, one past the last "
            f"{'token' if sentence.unit == 'token' else 'character'}",
        )
    if start < 0 or end > length:
        what = "tokens" if sentence.unit == "token" else "characters"
        characters = sentence.unit == "token" and 0 <= start < end <= len(sentence.text)
        remedy = 'character positions need spans="char" (--spans char)' if characters else "correct the span"
        hint = _hint(sentence, start, end, name) or remedy
        raise Problem("span outside", field, f"{got} is outside the sentence's {length} {what}; {hint}")
    a, b = sentence.chars(start, end)
    mention = sentence.text[a:b]
    if not any(c.isprintable() and c != " " for c in mention):
        raise Problem(
            "span empty", field, f"{got} covers only blanks or control characters ({show(mention)}); correct the span"
        )
    if check_names and name is not None and not same_name(mention, name):
        remedy = "correct the span, or pass check_names=False if names are not surface text"
        hint = _hint(sentence, start, end, name) or remedy
        raise Problem("name mismatch", field, f"{got} reads {show(mention)}, but the name is {show(name)}; {hint}")
    return a, b


def same_name(mention: str, name: str) -> bool:
    """Equal but for case, blanks and Unicode's composed or decomposed writing.

    Tokenisers put blanks inside names ("Kurushima - Kaikyō Bridge"), so that blanks cannot count.
    """
    if mention == name or _squeezed(mention) == _squeezed(name):
        return True
    if mention.isascii() and name.isascii():
        return False
    import unicodedata

    return _squeezed(unicodedata.normalize("NFKC", mention)) == _squeezed(unicodedata.normalize("NFKC", name))


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


def _hint(sentence: _Sentence, start: int, end: int, name: str | None) -> str:
    """What the positions seem to count, judged by where the name really stands; empty when nothing fits."""
    text, length = sentence.text, sentence.length
    if name is None or start < 0:
        return ""
    if sentence.unit == "token" and same_name(text[start:end], name):
        return 'these are character positions: pass spans="char" (--spans char)'
    if sentence.unit == "char":
        words = sentence.tokens if sentence.tokens is not None else text.split()
        if same_name(" ".join(words[start:end]), name):
            return 'these are token positions: pass spans="token" (--spans token)'
        if not text.isascii() and same_name(text.encode()[start:end].decode(errors="replace"), name):
            return "these are byte positions: count characters (code points)"
        wide = text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le", errors="replace")
        if not text.isascii() and same_name(wide, name):
            return "these are UTF-16 positions: count characters (code points)"
    if end + 1 <= length and same_name(sentence.covered(start, end + 1), name):
        return f"the end seems inclusive: write ({start}, {end + 1}), half-open"
    found = _find(sentence, name)
    return f"the name stands at {found}: correct the span" if found else ""


def _find(sentence: _Sentence, name: str) -> Span | None:
    """The first place where the name stands, in the sentence's unit."""
    if sentence.unit == "char":
        pattern = r"\s*".join(re.escape(word) for word in name.split())
        match = re.search(pattern, sentence.text, re.IGNORECASE)
        return match.span() if match else None
    words, wanted = [_squeezed(sentence.covered(i, i + 1)) for i in range(sentence.length)], _squeezed(name)
    for i, word in enumerate(words):
        j, joined = i + 1, word
        while j < len(words) and len(joined) < len(wanted):
            joined, j = joined + words[j], j + 1
        if word and joined == wanted:
            return i, j
    return None


def _tags(record: dict[str, Any], field: str, sentence: _Sentence) -> tuple[str, ...] | None:
    """One tag for each word of the text between blanks, which are the tokens where these are given.

    Other annotation goes by the same names ("ner" as a list of spans): what is no list of strings is no list of tags.
    """
    tags = record.get(field)
    if tags is None or not isinstance(tags := plain(tags), (list, tuple)) or not tags or not isinstance(tags[0], str):
        return None
    words = sentence.text.split()
    if sentence.tokens is not None and words != sentence.tokens:
        raise Problem("wrong length", field, "a token is empty or holds a blank, so that tags cannot go with words")
    if len(tags) != len(words):
        unit = "tokens" if sentence.tokens is not None else "words between blanks"
        raise Problem("wrong length", field, f"{len(tags)} tags for {len(words)} {unit}; give one for each")
    for i, tag in enumerate(tags):
        if not isinstance(tag, str) or not tag:
            raise Problem("wrong type", f"{field}[{i}]", f"expected a tag, got {kind_of(tag)} ({show(tag)})")
    return tuple(sys.intern(encodable(tag, field)) for tag in tags)


def build_instance(record: Any, *, spans: str | None, check_names: bool, labelled: bool, source: str) -> Instance:
    """One Instance of a raw record; raises Problem.

    ``record``: text or token(s), h, t (dicts with ``pos``, or FewRel's ``[name, id, [[token numbers]]]``), relation or
    label, perhaps an id of its own, and perhaps lists of tags under pos and ner. ``spans``: "token", "char" and None
    (by what is given). ``labelled``: a missing relation is a problem.
    """
    if not isinstance(record, dict):
        raise Problem(
            "not an object",
            "",
            f"expected an object with text or tokens, h and t, got {kind_of(record)} "
            f"({show(record)}); check that the file holds instances",
        )
    sentence = _sentence(record, spans)
    head, head_name, head_id, head_type = _mention(record, "h", sentence, spans, check_names)
    tail, tail_name, tail_id, tail_type = _mention(record, "t", sentence, spans, check_names)
    if head[0] < tail[1] and tail[0] < head[1]:
        raise Problem(
            "overlapping entities",
            "t",
            f"head {show(sentence.text[head[0] : head[1]])} {head} and tail "
            f"{show(sentence.text[tail[0] : tail[1]])} {tail} (characters) overlap; give two separate mentions",
        )
    return Instance(
        sentence.text,
        head,
        tail,
        _relation(record, labelled),
        head_name,
        tail_name,
        head_id,
        tail_id,
        head_type,
        tail_type,
        source,
        string(record.get("id"), "id", number=True),
        _tags(record, "pos", sentence),
        _tags(record, "ner", sentence),
    )
