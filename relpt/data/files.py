"""From a file's bytes to raw records: UTF-8, JSON, JSON Lines, and the guess which format it is."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relpt.data.formats import FORMATS, sniff_line, sniff_record
from relpt.data.values import Problem, show
from relpt.errors import FormatError

__all__ = ["RECORD_KEYS", "Raw", "RawFile", "file_bytes", "read_file", "read_json", "records_of_json"]

RECORD_KEYS = ("text", "token", "tokens", "sentence")  # one of which every record has
_FEWREL = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*[{\]]')  # the start of {relation: [instances]}
_BLANKS = " \t\r\v\f"  # what a line of JSON may have around it
_HEAD = 1 << 16  # bytes from which a file's own text is told from JSON
_TRIED = 5  # lines tried before a file is said to be no JSON Lines
_ZLIB_ERRORS: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)


@dataclass(slots=True)
class Raw:
    """One raw record, or the Problem that kept it from being parsed, and its place; part: its number in its record."""

    value: Any
    line: int | None = None
    record: int | None = None
    relation: str | None = None
    part: int | None = None


@dataclass(slots=True)
class RawFile:
    """The raw records of one source, the name it goes by in messages, its format, and what reading it changed."""

    label: str
    format: str
    records: list[Raw]
    tally: Counter[str] = field(default_factory=Counter)


class _DuplicateKeyError(ValueError):
    """A JSON object has the same key twice, which json would drop in silence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _DuplicateKeyError(key)
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _parse(text: str) -> Any:
    """JSON of a string; raises Problem, whose reason begins with the place in the string."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise Problem("malformed JSON", "", f"malformed JSON at {place}: {error.msg}") from None
    except _DuplicateKeyError as error:
        raise Problem("duplicate key", "", f"an object has the key {show(error.args[0])} twice; keep one") from None
    except (ValueError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
        raise Problem("malformed JSON", "", f"malformed JSON: {text}") from None


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            "bad UTF-8",
            "",
            f"byte 0x{data[error.start]:02x} at place {error.start + 1} of the line is no UTF-8; "
            "save the file as UTF-8",
        ) from None


def _text_lines(data: bytes) -> Iterator[tuple[int, str | Problem]]:
    """(number, text) of the lines that are not blank; a Problem for one that is no UTF-8."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line and not line.isspace():
            try:
                yield number, _decode(line.strip(b"\r"))
            except Problem as problem:
                yield number, problem


def _json_lines(data: bytes) -> list[Raw]:
    """JSON Lines: a raw record, or a Problem, for every line that is not blank."""
    out: list[Raw] = []
    for number, value in _text_lines(data):
        try:
            parsed = value if isinstance(value, Problem) else _parse(value.strip(_BLANKS))
        except Problem as problem:
            if problem.kind == "malformed JSON":
                problem.reason += '; correct the line, or pass on_bad="skip" (--on-bad skip)'
            parsed = problem
        out.append(Raw(parsed, number, len(out)))
    return out


def _whole(data: bytes, label: str) -> Any:
    """The JSON of a whole file; FormatError with line and column."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            f"{label}:{line}: byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
        ) from None
    try:
        return _parse(text)
    except Problem as problem:
        raise FormatError(f"{label}: {problem.reason}; correct the file") from None


def _is_json_lines(data: bytes, label: str) -> bool:
    """Whether the bytes are one JSON object per line rather than one JSON value."""
    lines: list[bytes] = []
    at = 0
    while at < len(data) and len(lines) < _TRIED:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        if data[at:end].strip():
            lines.append(data[at:end].strip())
        at = end + 1
    if len(lines) == 1 and data.strip() == lines[0]:
        return lines[0][:1] == b"{" and not _FEWREL.match(lines[0])
    if any(isinstance(_parses(line), dict) for line in lines):
        return True
    return label.endswith((".jsonl", ".ndjson", ".jsonl.gz")) and _parses(data) is None


def _parses(line: bytes) -> Any:
    try:
        return _parse(_decode(line))
    except Problem:
        return None


def _first_format(records: list[Raw]) -> str:
    return next((sniff_record(r.value) for r in records if isinstance(r.value, dict)), "opennre")


def records_of_json(value: Any, label: str, format: str | None) -> RawFile:
    """Raw records of one JSON value: FewRel's object of lists, a list of records, or a single record."""
    if isinstance(value, dict) and any(key in value for key in RECORD_KEYS) and format != "fewrel":
        value = [value]
    if isinstance(value, dict) and format in (None, "fewrel"):
        if value and all(isinstance(items, list) for items in value.values()):
            raws = [
                Raw({**item, "relation": relation} if isinstance(item, dict) else item, None, i, relation)
                for relation, items in value.items()
                for i, item in enumerate(items)
            ]
            return RawFile(label, "fewrel", raws)
        raise FormatError(
            f"{label}: expected an object {{relation: [instances]}} (FewRel) or records with text or tokens, "
            f"got the keys {show(list(value)[:5])}; see relpt.load for the formats"
        )
    if isinstance(value, list) and format != "fewrel":
        raws = [Raw(item, None, i) for i, item in enumerate(value)]
        first = next((item for item in value if isinstance(item, dict)), {})
        if format is None and isinstance(first.get("h"), list) and "relation" not in first:
            format = "fewrel-unsupervised"
        if format == "fewrel-unsupervised":
            for raw in raws:
                if isinstance(raw.value, dict):
                    raw.value = {k: v for k, v in raw.value.items() if k not in ("relation", "label")}
        return RawFile(label, format or _first_format(raws), raws)
    raise FormatError(
        f"{label}: a {type(value).__name__} is not the JSON that format={format!r} holds; leave format out to "
        "have it guessed"
    )


def read_file(path: str | os.PathLike[str], format: str | None) -> RawFile:
    """Raw records of a file (gzip is unpacked); OSError when it cannot be read, FormatError when it has none."""
    label, data = os.fspath(path), file_bytes(path)
    start = data[:64].lstrip()[:8]
    text = _text_format(data, format)
    if text is not None and (read := FORMATS[text].read):
        return RawFile(label, text, [Raw(record, line, i) for i, (line, record) in enumerate(read(_text_lines(data)))])
    if format not in ("fewrel", "fewrel-unsupervised") and _is_json_lines(data, label):
        raws = _json_lines(data)
        return RawFile(label, format or _first_format(raws), raws)
    if start[:1] not in (b"{", b"["):
        raise FormatError(
            f"{label}: neither JSON nor JSON Lines (it starts with {show(start.decode(errors='replace'))}); "
            "read tables with pandas and pass the DataFrame"
        )
    return records_of_json(_whole(data, label), label, format)


def _text_format(data: bytes, format: str | None) -> str | None:
    """The format whose own text, not JSON, the file is in: the one asked for, or the first line's."""
    first = data[:_HEAD].lstrip().split(b"\n", 1)[0].decode(errors="replace")
    if format is None:
        return sniff_line(first)
    return format if FORMATS[format].read and first[:1] not in ("{", "[") else None


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON of a whole file (gzip is unpacked)."""
    return _whole(file_bytes(path), os.fspath(path))


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """What is in a file, unpacked and without a byte order mark; FormatError where that is nothing, or UTF-16."""
    label = os.fspath(path)
    if os.path.isdir(label):
        hint = "; open it with relpt.Corpus.open" if os.path.exists(os.path.join(label, "corpus.json")) else ""
        raise IsADirectoryError(f"{label} is a folder{hint or '; give the path of a file'}")
    try:
        with open(label, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{label}: no such file (looked in {os.getcwd()}); correct the path") from None
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except _ZLIB_ERRORS as error:
            raise FormatError(f"{label}: damaged gzip file ({error}); copy it again") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise FormatError(f"{label}: the file is empty; give a file with records")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise FormatError(f"{label}:1: the file is UTF-16; save it as UTF-8")
    return data
