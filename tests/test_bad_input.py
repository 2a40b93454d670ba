"""Bad records: each is named with its place, its field, what was got and the remedy, on one line."""

from __future__ import annotations

import json
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import relpt

GOOD: dict[str, Any] = {
    "token": ["Ada", "Lovelace", "met", "Charles", "Babbage", "."],
    "h": {"name": "ada lovelace", "pos": [0, 2]},
    "t": {"name": "charles babbage", "pos": [3, 5]},
    "relation": "met",
}
TEXT: dict[str, Any] = {
    "text": "Zoë 😀 met Charles Babbage.",
    "h": {"name": "Zoë", "pos": [0, 3]},
    "t": {"name": "Charles Babbage", "pos": [10, 25]},
    "relation": "met",
}


def with_(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy; ``h_pos=…`` changes ``record["h"]["pos"]``, a value of ... removes the field."""
    out = json.loads(json.dumps(record))
    for key, value in changes.items():
        place, field = (out[key[0]], key[2:]) if key[:2] in ("h_", "t_") else (out, key)
        if value is ...:
            del place[field]
        else:
            place[field] = value
    return out


# (record, kind, field, a part of the reason)
BAD: dict[str, tuple[Any, str, str, str]] = {
    "not an object": ([1, 2], "not an object", "", "got a list"),
    "empty tokens": (with_(GOOD, token=[]), "empty text", "token", "the sentence is empty"),
    "blank text": (with_(TEXT, text=" \n"), "empty text", "text", "the sentence is empty"),
    "empty text": (with_(TEXT, text=""), "empty text", "text", "the sentence is empty"),
    "no text": (with_(GOOD, token=...), "missing field", "text", "its fields: h, t, relation"),
    "text no string": (with_(TEXT, text=5), "wrong type", "text", "expected a string, got a whole number (5)"),
    "tokens a string": (with_(GOOD, token="Ada"), "wrong type", "token", "expected a list of strings, got a string"),
    "token no string": (with_(GOOD, token=["Ada", None]), "wrong type", "token[1]", "expected a string, got nothing"),
    "half a surrogate": (with_(TEXT, text="Zo\ud800 met Charles"), "bad character", "text", "character 2"),
    "no head": (with_(GOOD, h=...), "missing field", "h", "give an object with pos"),
    "head a string": (with_(GOOD, h="Ada"), "wrong type", "h", "expected an object with pos, got a string"),
    "no pos": (with_(GOOD, t_pos=...), "missing field", "t.pos", "half-open"),
    "pos of three": (with_(GOOD, h_pos=[0, 1, 2]), "wrong type", "h.pos", "got [0, 1, 2]"),
    "pos of strings": (with_(GOOD, h_pos=["0", "2"]), "wrong type", "h.pos", "two whole numbers"),
    "pos of fractions": (with_(GOOD, h_pos=[0.5, 2]), "wrong type", "h.pos", "two whole numbers"),
    "pos of booleans": (with_(GOOD, h_pos=[False, True]), "wrong type", "h.pos", "two whole numbers"),
    "outside": (with_(GOOD, t_pos=[5, 7]), "span outside", "t.pos", "(5, 7) is outside the sentence's 6 tokens"),
    "negative": (with_(GOOD, t_pos=[-3, 1]), "span outside", "t.pos", "(-3, 1) is outside"),
    "outside text": (with_(TEXT, t_pos=[11, 99]), "span outside", "t.pos", "outside the sentence's 26 characters"),
    "reversed": (with_(GOOD, t_pos=[5, 3]), "span reversed", "t.pos", "(5, 3) ends before it starts"),
    "empty span": (with_(GOOD, t_pos=[3, 3]), "span empty", "t.pos", "half-open, one past the last token"),
    "blank span": (with_(TEXT, h_pos=[3, 4]), "span empty", "h.pos", "only blanks or control characters"),
    "control span": (
        with_(TEXT, text="\u200b\x01 Ada", h_pos=[0, 2], t_pos=[3, 6], t_name="Ada"),
        "span empty",
        "h.pos",
        "",
    ),
    "overlap": (
        with_(GOOD, t_pos=[1, 4], t_name="lovelace met charles"),
        "overlapping entities",
        "t",
        "'Ada Lovelace' (0, 12) and tail 'Lovelace met Charles' (4, 24)",
    ),
    "no relation": (with_(GOOD, relation=...), "missing relation", "relation", "give a relation name"),
    "null relation": (with_(GOOD, relation=None), "missing relation", "relation", "give a relation name"),
    "empty relation": (with_(GOOD, relation=""), "missing relation", "relation", "give a relation name"),
    "relation a number": (with_(GOOD, relation=3), "wrong type", "relation", "got a whole number (3)"),
    "name a number": (with_(GOOD, h_name=3), "wrong type", "h.name", "expected a string"),
    "type a list": (with_(GOOD, h_type=["x"]), "wrong type", "h.type", "expected a string, got a list"),
    "characters for tokens": (with_(GOOD, h_pos=[0, 12]), "span outside", "h.pos", 'pass spans="char"'),
    "characters inside": (with_(GOOD, h_pos=[0, 3], h_name="Ada"), "name mismatch", "h.pos", 'pass spans="char"'),
    "tokens for characters": (
        with_(TEXT, text="Zoë 😀 met Charles Babbage .", t_pos=[3, 5]),
        "name mismatch",
        "t.pos",
        'pass spans="token"',
    ),
    "bytes": (with_(TEXT, t_pos=[14, 29]), "span outside", "t.pos", "byte positions"),
    "UTF-16": (with_(TEXT, t_pos=[11, 26]), "name mismatch", "t.pos", "UTF-16 positions"),
    "inclusive end": (with_(GOOD, t_pos=[3, 4]), "name mismatch", "t.pos", "inclusive: write (3, 5)"),
    "one off": (with_(GOOD, t_pos=[2, 4]), "name mismatch", "t.pos", "the name stands at (3, 5)"),
    "one off in text": (with_(TEXT, t_pos=[11, 25]), "name mismatch", "t.pos", "the name stands at (10, 25)"),
    "another name": (with_(GOOD, t_name="Bob"), "name mismatch", "t.pos", "check_names=False"),
    "gap": (with_(GOOD, h=["ada", "Q1", [[0, 2]]]), "mention not contiguous", "h[2]", "[0, 2]"),
    "no mention": (with_(GOOD, h=["ada", "Q1", [[]]]), "span empty", "h[2]", "no tokens"),
    "short FewRel": (with_(GOOD, h=["ada", "Q1"]), "wrong type", "h", "[name, id, [[token numbers]]]"),
    "flat FewRel": (with_(GOOD, h=["ada", "Q1", [0, 1]]), "wrong type", "h[2]", "one per mention"),
    "FewRel outside": (with_(GOOD, h=["ada", "Q1", [[6]]]), "span outside", "h[2]", "6 tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_in_every_container(tmp_path: Path, case: str) -> None:
    record, kind, field, part = BAD[case]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (GOOD, GOOD, record, GOOD)))
    listed = tmp_path / "d.json"
    listed.write_text(json.dumps([GOOD, GOOD, record, GOOD]))
    for source, place in (
        (path, f"{path}:3: "),
        (listed, f"{listed}: record 2: "),
        ([GOOD, GOOD, record], "data: record 2: "),
    ):
        with pytest.raises(relpt.FormatError) as caught:
            relpt.load(source)
        message = str(caught.value)
        assert message.startswith(place + (f"{field}: " if field else ""))
        assert part in message
        assert "\n" not in message
        assert len(message) < len(place) + 260
    data = relpt.load(path, on_bad="collect")
    assert len(data) == 3
    (bad,) = data.bad
    assert (bad.kind, bad.field, bad.file, bad.line, bad.record) == (kind, field, str(path), 3, 2)


def test_bad_records_in_fewrel_name_relation_and_index(tmp_path: Path) -> None:
    good = {"tokens": ["a", "b"], "h": ["a", "Q1", [[0]]], "t": ["b", "Q2", [[1]]]}
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"P1": [good], "P2": [good, {**good, "t": ["b", "Q2", [[2]]]}, "text"]}))
    with pytest.raises(
        relpt.FormatError, match=r"f\.json: P2\[1\]: t\[2\]: \(2, 3\) is outside the sentence's 2 tokens"
    ):
        relpt.load(path)
    data = relpt.load(path, on_bad="collect")
    assert [(b.relation, b.record, b.kind) for b in data.bad] == [("P2", 1, "span outside"), ("P2", 2, "not an object")]
    assert len(data) == 2


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("no marks", "bad marks", "no mentions marked << >>"),
        ("<< a >> and << b >> [[ c ]]", "bad marks", "2 mentions marked << >>"),
        ("<< a >> [[ b", "bad marks", "no mentions marked [[ ]]"),
        ("<< a [[ b >> c ]]", "overlapping entities", "mark them apart"),
        ("<< a [[ b ]] >>", "overlapping entities", "mark them apart"),
        ("<<  >> [[ b ]]", "span empty", "half-open"),
        ("", "empty text", "empty"),
    ],
)
def test_bad_chemprot_records(tmp_path: Path, text: str, kind: str, part: str) -> None:
    path = tmp_path / "c.jsonl"
    rows = [{"text": "<< a >> [[ b ]]", "label": "X"}, {"text": text, "label": "X"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (bad,) = relpt.load(path, on_bad="collect").bad
    assert (bad.line, bad.kind) == (2, kind)
    assert part in bad.reason


LINE = json.dumps(GOOD).encode()


@pytest.mark.parametrize(
    ("line", "kind", "part"),
    [
        (LINE[:-9], "malformed JSON", "column"),
        (LINE.replace(b'"token": [', b'"token": [,'), "malformed JSON", "at column 12"),
        (b"plain words", "malformed JSON", "at column 1:"),
        (LINE.replace(b"Babbage", b"Babbag\xe9"), "bad UTF-8", "byte 0xe9"),
        (b"\xff\xff", "bad UTF-8", "byte 0xff"),
        (b'{"text": "a b", "text": "c d"}', "duplicate key", "'text' twice"),
        (b"[" * 100_000, "malformed JSON", "nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", "malformed JSON", "digits"),
        (b"null", "not an object", "got nothing"),
    ],
)
@pytest.mark.parametrize("at", [0, 2])
def test_bad_lines(tmp_path: Path, line: bytes, kind: str, part: str, at: int) -> None:
    lines = [LINE] * 4
    lines[at] = line
    path = tmp_path / "d.txt"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(relpt.FormatError, match=rf"d\.txt:{at + 1}: ") as caught:
        relpt.load(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    data = relpt.load(path, on_bad="collect")
    assert (len(data), [(b.line, b.kind) for b in data.bad]) == (3, [(at + 1, kind)])


def test_a_file_broken_as_a_whole_raises_in_every_mode(tmp_path: Path) -> None:
    cases = {
        "cut.json": (b'{"P1": [\n {"tokens": ["a"],\n', r"cut\.json: malformed JSON at line 3, column 1"),
        "utf8.json": (b'{"P1": [\n {"tokens": ["\xff"]}]}', r"utf8\.json:2: byte 0xff"),
        "twice.json": (b'{"P1": [{}], "P1": [{}]}', r"twice\.json: an object has the key 'P1' twice"),
        "empty.json": (b" \n", r"empty\.json: the file is empty"),
        "wide.json": ('{"P1": []}'.encode("utf-16"), r"wide\.json:1: the file is UTF-16"),
        "table.csv": (b"text,h_pos\na,b\n", r"table\.csv: neither JSON nor JSON Lines.*pandas"),
        "damaged.gz": (b"\x1f\x8bxx", r"damaged\.gz: damaged gzip file"),
        "number.json": (b"[1", r"number\.json: malformed JSON at column 3"),
    }
    for name, (content, pattern) in cases.items():
        (tmp_path / name).write_bytes(content)
        for mode in ("raise", "skip", "collect"):
            with pytest.raises(relpt.FormatError, match=pattern):
                relpt.load(tmp_path / name, on_bad=mode)


def test_skip_warns_once_with_counts(tmp_path: Path) -> None:
    records = [GOOD, with_(GOOD, t_pos=[3, 3]), with_(GOOD, t_pos=[9, 9]), with_(GOOD, t_pos=[8, 9]), GOOD]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data = relpt.load(records, on_bad="skip", name="mine")
    (warning,) = seen
    assert warning.category is relpt.BadRecordWarning
    assert str(warning.message).startswith(
        "skipped 3 of 5 records: 2 span empty, 1 span outside (first: mine: record 1: t.pos: "
    )
    assert warning.filename == __file__
    assert (len(data), data.bad, data.bad_counts) == (2, [], {"span empty": 2, "span outside": 1})
    assert "3 bad records left out" in repr(data)


def test_collect_keeps_the_notes_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = relpt.load([GOOD, 5, with_(GOOD, h=...)], on_bad="collect")
    assert [str(b).split(":")[1] for b in data.bad] == [" record 1", " record 2"]
    assert data.bad_counts == Counter({"not an object": 1, "missing field": 1})
    note = data.bad[1].to_dict()
    assert note["field"] == "h"
    assert note["message"] == str(data.bad[1])
    assert pickle.loads(pickle.dumps(data.bad)) == data.bad
    assert "record 2" in str(data.check())
    assert relpt.load([5], on_bad="collect").bad_counts == {"not an object": 1}


def test_a_relation_missing_in_a_later_file(tmp_path: Path) -> None:
    for name, record in (("a.jsonl", GOOD), ("b.jsonl", with_(GOOD, relation=...))):
        (tmp_path / name).write_text(json.dumps(record) + "\n")
    with pytest.raises(relpt.FormatError, match=r"b\.jsonl:1: relation: missing"):
        relpt.load([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


def test_wrong_options_and_sources(tmp_path: Path) -> None:
    for options in ({"format": "conll"}, {"spans": "byte"}, {"on_bad": "ignore"}):
        with pytest.raises(ValueError, match=r"is unknown; use one of"):
            relpt.load([GOOD], **options)  # type: ignore[arg-type]
    for source, pattern in ((GOOD, "put it into a list"), (7, "cannot read records of a int"), (b"x", "of a bytes")):
        with pytest.raises(TypeError, match=pattern):
            relpt.load(source)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such file"):
        relpt.load(tmp_path / "nowhere.json")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        relpt.load(tmp_path)
    with pytest.raises(ValueError, match="is a dict"):
        relpt.load([GOOD], format="fewrel")
