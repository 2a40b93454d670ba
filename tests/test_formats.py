"""Readers of the field's data sets: small files by hand in each format, what comes out and what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

import relpt
from relpt.metrics import bag_curve

TOKENS = ["Ada", "Lovelace", "(", "1815", ")", "was", "born", "in", "London", "."]
TEXT = "Ada Lovelace ( 1815 ) was born in London ."
PLAIN: dict[str, Any] = {
    "token": TOKENS,
    "h": {"pos": [0, 2]},
    "t": {"pos": [8, 9]},
    "relation": "per:city_of_birth",
    "id": "e7",
}
TACRED: dict[str, Any] = {
    "id": "e7",
    "docid": "d1",
    "relation": "per:city_of_birth",
    "token": ["Ada", "Lovelace", "-LRB-", "1815", "-RRB-", "was", "born", "in", "London", "."],
    "subj_start": 0,
    "subj_end": 1,
    "obj_start": 8,
    "obj_end": 8,
    "subj_type": "PERSON",
    "obj_type": "CITY",
    "stanford_ner": ["PERSON"] * 10,
}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def dump(path: Path, value: Any, **options: Any) -> Path:
    return write(path, json.dumps(value, **options))


def bare(instance: relpt.Instance, **changes: Any) -> relpt.Instance:
    """The instance without its source, which differs between files."""
    return dataclasses.replace(instance, source="", **changes)


def message(source: Any, **options: Any) -> str:
    with pytest.raises(relpt.FormatError) as caught:
        relpt.load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- TACRED ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["one line", "indented", "a line each", "JSON lines", "memory"])
def test_tacred(tmp_path: Path, layout: str) -> None:
    other = {**TACRED, "id": "e8", "relation": "no_relation"}
    path = tmp_path / "dev.json"
    source: Any = {
        "one line": lambda: dump(path, [TACRED, other]),
        "indented": lambda: dump(path, [TACRED, other], indent=1),
        "a line each": lambda: write(path, "[" + ",\n".join(json.dumps(r) for r in (TACRED, other)) + "]"),
        "JSON lines": lambda: write(path, "\n".join(json.dumps(r) for r in (TACRED, other))),
        "memory": lambda: [TACRED, other],
    }[layout]()
    data = relpt.load(source)
    first = data[0]
    assert (first.text, first.head_text, first.tail_text) == (TEXT, "Ada Lovelace", "London")
    assert (first.head_type, first.tail_type, first.head_name, first.head_id) == ("PERSON", "CITY", None, None)
    assert [(i.id, i.relation) for i in data] == [("e7", "per:city_of_birth"), ("e8", "no_relation")]


def test_tacred_equals_the_same_sentence_in_opennre() -> None:
    plain = bare(relpt.load([PLAIN])[0], head_type="PERSON", tail_type="CITY", ner=("PERSON",) * 10)
    assert bare(relpt.load([TACRED])[0]) == plain


def test_tacred_brackets_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lower = {**TACRED, "token": ["-lsb-", "a", "-RCB-", "b", "-LRB-x", *"cdefg"], "subj_end": 0}
    with caplog.at_level(logging.INFO, logger="relpt"):
        data = relpt.load(dump(tmp_path / "t.json", [TACRED, lower]))
    assert data[1].text == "[ a } b -LRB-x c d e f g"
    assert "read as tacred, token spans, 2 instances, 1 relation, 4 brackets written as such" in caplog.text


BAD_TACRED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "end beyond": ({"obj_end": 10}, "span outside", "obj_end", "tokens 8 to 10 are outside the sentence's 10"),
    "half-open end": ({"obj_start": 9, "obj_end": 10}, "span outside", "obj_end", "inclusive: write one less"),
    "negative": ({"subj_start": -1}, "span outside", "subj_end", "tokens -1 to 1"),
    "reversed": ({"subj_start": 2}, "span reversed", "subj_end", "1 is before subj_start 2"),
    "no end": ({"subj_end": None}, "missing field", "subj_end", "expected a token's number, got nothing"),
    "text for a number": ({"obj_start": "8"}, "wrong type", "obj_start", "got a string ('8')"),
    "overlap": ({"obj_start": 1}, "overlapping entities", "obj_start", "'Ada Lovelace' (0, 12)"),
    "no tokens": ({"token": None}, "missing field", "token", "list of tokens"),
    "token a string": ({"token": "Ada"}, "wrong type", "token", "expected a list of strings"),
    "token a number": ({"token": ["Ada", 1815]}, "wrong type", "token[1]", "got a whole number (1815)"),
    "empty": ({"token": []}, "span outside", "subj_end", "the sentence's 0"),
    "type a list": ({"subj_type": ["PERSON"]}, "wrong type", "subj_type", "expected a string, got a list"),
    "id a list": ({"id": ["e7"]}, "wrong type", "id", "expected a string, got a list"),
    "no relation": ({"relation": None}, "missing relation", "relation", "give a relation name"),
}


@pytest.mark.parametrize("case", BAD_TACRED)
def test_bad_tacred_records(tmp_path: Path, case: str) -> None:
    changes, kind, field, part = BAD_TACRED[case]
    path = dump(tmp_path / "t.json", [TACRED, {**TACRED, **changes}, TACRED])
    text = message(path)
    assert text.startswith(f"{path}: record 1: {field}: ")
    assert part in text
    data = relpt.load(path, on_bad="collect")
    assert (len(data), data.bad_counts, data.bad[0].field) == (2, {kind: 1}, field)


def test_a_format_that_says_its_unit_takes_no_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t\.json: positions count tokens in the format 'tacred'; leave out spans"):
        relpt.load(dump(tmp_path / "t.json", [TACRED]), spans="char")
    assert len(relpt.load([TACRED], spans="token")) == 1


def test_ids_are_kept_and_written() -> None:
    data = relpt.load([PLAIN, {**PLAIN, "id": 12}, {**PLAIN, "id": 3.0}, {**PLAIN, "id": None}])
    assert [i.id for i in data] == ["e7", "12", "3", None]
    assert [i.id for i in relpt.load([i.to_dict() for i in data])] == ["e7", "12", "3", None]


def test_saved_data_are_what_they_were(tmp_path: Path) -> None:
    unlabelled = relpt.load([{key: value for key, value in PLAIN.items() if key != "relation"}])
    typed = relpt.load([{**TACRED, "relation": "per:née"}])  # types and tags, and a name beyond ASCII
    for data in (relpt.load([PLAIN, {**PLAIN, "id": 12}]), unlabelled, typed):
        data.save(tmp_path / "saved.jsonl")
        again = relpt.load(tmp_path / "saved.jsonl")
        assert [dataclasses.replace(i, source="") for i in again] == [dataclasses.replace(i, source="") for i in data]
    with pytest.raises(FileNotFoundError):
        typed.save(tmp_path / "none" / "saved.jsonl")


# -- TACREV and Re-TACRED ----------------------------------------------------------------------------------------------


def tacred(*relations: str) -> relpt.Dataset:
    """Instances e0, e1, … of the given relations."""
    return relpt.load([{**TACRED, "id": f"e{n}", "relation": relation} for n, relation in enumerate(relations)])


def labels(data: relpt.Dataset) -> list[tuple[str | None, str | None]]:
    return [(i.id, i.relation) for i in data]


@pytest.mark.parametrize("as_file", [True, False])
def test_tacrev_corrects_some_labels(tmp_path: Path, as_file: bool, caplog: pytest.LogCaptureFixture) -> None:
    patch = [{"id": "e2", "relation": "per:age"}, {"id": "e0", "relation": "no_relation", "note": "as before"}]
    data = tacred("no_relation", "per:title", "no_relation")
    with caplog.at_level(logging.INFO, logger="relpt"):
        new = data.relabel(dump(tmp_path / "patch.json", patch) if as_file else patch)
    assert labels(new) == [("e0", "no_relation"), ("e1", "per:title"), ("e2", "per:age")]
    assert labels(data)[2] == ("e2", "no_relation")
    assert "changes the relation of 1 instance, confirms 1, does not hold 1; what it does not hold stays" in caplog.text
    assert new.bad_counts == {}


def test_retacred_leaves_out_what_it_does_not_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patch = dump(tmp_path / "id2label.json", {"e2": "per:age", "e0": "no_relation"})
    data = tacred("no_relation", "per:title", "no_relation")
    with pytest.raises(ValueError, match=r"id2label\.json holds 2 of 3 instances: pass drop_missing=True .*=False"):
        data.relabel(patch)
    with caplog.at_level(logging.INFO, logger="relpt"):
        new = data.relabel(patch, drop_missing=True)
    assert labels(new) == [("e0", "no_relation"), ("e2", "per:age")]
    assert new.bad_counts == {"not in the patch": 1}
    assert "does not hold 1; what it does not hold is left out" in caplog.text
    assert labels(data.relabel(patch, drop_missing=False))[1] == ("e1", "per:title")
    assert len(data[[0, 2]].relabel(patch)) == 2


def test_ids_of_a_patch_that_the_data_does_not_have() -> None:
    data = tacred("a", "b")
    patch = [{"id": id_, "relation": "c"} for id_ in ("e1", "x1", "x2", "x3", "x4")]
    with pytest.warns(
        relpt.BadRecordWarning, match=r"not have 4 of the 5 ids in the patch: 'x1', 'x2', 'x3', …"
    ) as seen:
        assert labels(data.relabel(patch)) == [("e0", "a"), ("e1", "c")]
    assert seen[0].filename == __file__
    with pytest.raises(ValueError, match=r"has no id of the patch \('x1'.*another part"):
        data.relabel(patch[1:])
    with pytest.raises(ValueError, match="have no ids"):
        relpt.load([{**PLAIN, "id": None}]).relabel(patch)


def test_unlabelled_data_gets_all_its_relations_or_none() -> None:
    data = relpt.load([{**TACRED, "id": id_, "relation": None} for id_ in ("e0", "e1")])
    with pytest.raises(ValueError, match="instances without a relation, in the patch neither: 1"):
        data.relabel([{"id": "e1", "relation": "c"}])
    assert labels(data.relabel({"e0": "a", "e1": "c"})) == [("e0", "a"), ("e1", "c")]


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ("e0", "expected a list of {id, relation} or an object {id: relation}, got a string"),
        ([{"id": "e0", "relation": "a"}, "e1"], "record 1: expected {id, relation}, got 'e1'"),
        ([{"id": "e0"}], "record 0: relation: missing"),
        ([{"relation": "a"}], "record 0: id: missing"),
        ([{"id": ["e0"], "relation": "a"}], "record 0: id: expected a string, got a list"),
        ({"e0": 5}, "'e0': relation: expected a string, got a whole number (5)"),
        ({"e0": ""}, "'e0': relation: missing"),
        ([{"id": "e0", "relation": "a"}, {"id": "e0", "relation": "b"}], "record 1: 'e0' is 'a' before; keep one"),
        ([], "the patch is empty"),
    ],
)
def test_bad_patches(tmp_path: Path, patch: Any, part: str) -> None:
    path = dump(tmp_path / "p.json", patch)
    with pytest.raises(relpt.FormatError) as caught:
        tacred("a", "b").relabel(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)


def test_a_patch_with_an_id_twice_or_cut_off(tmp_path: Path) -> None:
    with pytest.raises(relpt.FormatError, match=r"p\.json: an object has the key 'e0' twice"):
        tacred("a").relabel(write(tmp_path / "p.json", '{"e0": "a", "e0": "b"}'))
    with pytest.raises(relpt.FormatError, match=r"p\.json: malformed JSON"):
        tacred("a").relabel(write(tmp_path / "p.json", '[{"id": "e0"'))


# -- SemEval-2010 task 8 and KBP37 -------------------------------------------------------------------------------------

SEMEVAL = (
    '8001\t"The <e1>singer</e1>, who sang "Deep", caused a <e2>commotion</e2>."\r\n'
    "Cause-Effect(e1,e2)\r\nComment: 2 of 3\r\n\r\n"
    '8002\t"A <e2>flood</e2> came of the <e1>rain</e1>."\r\nOther\r\nComment:\r\n\r\n'
)
KBP37 = (
    '15917\t"The <e1> MS ANG </e1> ( <e2> Mississippi </e2> Guard ) is a force ..."\norg:alternate_names(e2,e1)\n\n\n'
    '15918\t" <e1> Ada </e1> was a <e2> mathematician </e2>."\nper:title(e1,e2)\n\n\n'
)


def test_semeval(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="relpt"):
        data = relpt.load(write(tmp_path / "TRAIN_FILE.TXT", SEMEVAL))
    assert "read as semeval, char spans, 2 instances, 2 relations" in caplog.text
    assert data[0].text == 'The singer, who sang "Deep", caused a commotion.'
    assert [(i.id, i.relation, i.head_text, i.tail_text) for i in data] == [
        ("8001", "Cause-Effect(e1,e2)", "singer", "commotion"),
        ("8002", "Other", "rain", "flood"),
    ]
    assert [i.source.rsplit(":", 1)[1] for i in data] == ["1", "5"]


def test_kbp37(tmp_path: Path) -> None:
    data = relpt.load(write(tmp_path / "dev.txt", KBP37))
    assert data[0].text == "The MS ANG ( Mississippi Guard ) is a force ..."
    assert data[1].text == "Ada was a mathematician ."
    assert [(i.id, i.relation, i.head_text, i.tail_text) for i in data] == [
        ("15917", "org:alternate_names(e2,e1)", "MS ANG", "Mississippi"),
        ("15918", "per:title(e1,e2)", "Ada", "mathematician"),
    ]


@pytest.mark.parametrize(
    ("marked", "text", "head", "tail"),
    [
        ("<e1>a</e1><e2>b</e2>", "ab", "a", "b"),
        ("<e1>a </e1><e2> b</e2>c", "a bc", "a", "b"),
        ("x<e1> a </e1>y <e2>\tb\t</e2>", "x a y b", "a", "b"),
        ("<e2>é😀</e2>'s <e1>a\u00a0b</e1>", "é😀's a\u00a0b", "a\u00a0b", "é😀"),
    ],
)
def test_marks_part_words_as_their_blanks_do(marked: str, text: str, head: str, tail: str) -> None:
    instance = relpt.load([{"sentence": marked, "relation": "Other"}])[0]
    assert (instance.text, instance.head_text, instance.tail_text) == (text, head, tail)


def test_semeval_without_labels_and_as_json(tmp_path: Path) -> None:
    lines = [line for line in SEMEVAL.splitlines() if "\t" in line]
    data = relpt.load(write(tmp_path / "TEST_FILE.TXT", "\n".join(lines)))
    assert (len(data), data.labelled) == (2, False)
    labelled = relpt.load(write(tmp_path / "TRAIN_FILE.TXT", SEMEVAL))
    pairs = zip(labelled, lines, strict=True)
    records = [{"id": i.id, "sentence": s.split("\t")[1], "relation": i.relation} for i, s in pairs]
    for source in (records, dump(tmp_path / "a.json", records), dump(tmp_path / "one.json", records[0], indent=1)):
        assert bare(relpt.load(source)[0]) == bare(labelled[0])


def test_semeval_equals_the_same_sentence_in_opennre(tmp_path: Path) -> None:
    line = '7\t"<e1>Ada Lovelace</e1> ( 1815 ) was born in <e2>London</e2> ."\nper:city_of_birth\nComment:\n'
    assert bare(relpt.load(write(tmp_path / "s.txt", line))[0], id="e7") == bare(relpt.load([PLAIN])[0])


@pytest.mark.parametrize(
    ("sentence", "kind", "part"),
    [
        ("The <e1>singer</e1> caused a commotion.", "bad marks", "has no mentions marked <e2> </e2>"),
        ("The singer caused a <e2>commotion</e2>.", "bad marks", "has no mentions marked <e1> </e1>"),
        ("The <e1>singer caused a <e2>commotion</e2>.", "bad marks", "has no mentions marked <e1> </e1>"),
        ("<e1>a</e1> <e1>b</e1> <e2>c</e2>", "bad marks", "has 2 mentions marked <e1> </e1>"),
        ("<e1>a <e2>b</e2></e1>", "overlapping entities", "mark them apart"),
        ("<e1> </e1> <e2>b</e2>", "span empty", "is empty"),
    ],
)
def test_bad_semeval_sentences(tmp_path: Path, sentence: str, kind: str, part: str) -> None:
    path = write(tmp_path / "s.txt", SEMEVAL + f'8003\t"{sentence}"\nOther\nComment:\n')
    text = message(path)
    assert text.startswith(f"{path}:9: ")
    assert part in text
    data = relpt.load(path, on_bad="collect")
    assert (len(data), data.bad_counts, data.bad[0].line) == (2, {kind: 1}, 9)


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        ('"No <e1>number</e1> <e2>here</e2>."\nOther\nComment:\n', [(9, "unexpected line")]),
        ('8003\t"<e1>a</e1> <e2>b</e2>"\nComment:\n', [(9, "missing relation")]),
        ('8003\t"<e1>a</e1> <e2>b</e2>"\nno relation\n', [(9, "missing relation"), (10, "unexpected line")]),
        ("Other\n\nOther\n", [(9, "unexpected line")]),
        ("\xff\nOther\n", [(9, "bad UTF-8")]),
    ],
)
def test_bad_semeval_lines(tmp_path: Path, lines: str, bad: list[tuple[int, str]]) -> None:
    path = tmp_path / "s.txt"
    path.write_bytes(SEMEVAL.encode() + lines.encode("latin-1") + b'8004\t"<e1>c</e1> <e2>d</e2>"\nOther\n')
    data = relpt.load(path, on_bad="collect")
    assert [i.id for i in data] == ["8001", "8002", "8004"]
    assert [(b.line, b.kind) for b in data.bad] == bad
    assert message(path).startswith(f"{path}:9: ")


def test_a_table_is_no_semeval(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "1\tAda\tLondon\n2\tBob\tParis\n")
    assert "neither JSON nor JSON Lines" in message(path)
    assert 'expected 8001<tab>"' not in message(path, format="opennre")
    assert "has no mentions marked <e1> </e1>" in message(path, format="semeval")


# -- NYT-FB ------------------------------------------------------------------------------------------------------------

NYT_SENTENCE = "a crash in belle_harbor , queens , and the queensboro bridge ."
NYT = f"m.0ccvx\tm.05gf08\tqueens\tbelle_harbor\t/location/location/contains\t{NYT_SENTENCE}\t###END###\n"
NYT_RECORD: dict[str, Any] = {
    "sentence": NYT_SENTENCE,
    "head": {"word": "queens", "id": "m.0ccvx"},
    "tail": {"word": "belle_harbor", "id": "m.05gf08", "type": "LOCATION"},
    "relation": "/location/location/contains",
}


def test_nyt_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = NYT.replace("contains", "NA").replace("\t###END###", ".###END###")
    with caplog.at_level(logging.INFO, logger="relpt"):
        data = relpt.load(write(tmp_path / "train.txt", NYT + other + "\n" + NYT.replace("_", "X")))
    assert "read as nyt-fb, char spans, 3 instances, 2 relations, 2 sentences with underscores" in caplog.text
    first = data[0]
    assert first.text == NYT_SENTENCE.replace("_", " ")
    assert (first.head_text, first.head_name, first.head_id) == ("queens", "queens", "m.0ccvx")
    assert (first.tail_text, first.tail_name, first.tail_id) == ("belle harbor", "belle harbor", "m.05gf08")
    assert data[1].text.endswith("bridge ..")
    assert [i.source.rsplit(":", 1)[1] for i in data] == ["1", "2", "4"]


def test_nyt_json_equals_its_text_and_opennre(tmp_path: Path) -> None:
    text = relpt.load(write(tmp_path / "train.txt", NYT))[0]
    opennre = {
        "text": "a crash in belle harbor , queens , and the queensboro bridge .",
        "h": {"id": "m.0ccvx", "name": "queens", "pos": [26, 32]},
        "t": {"id": "m.05gf08", "name": "belle harbor", "pos": [11, 23]},
        "relation": "/location/location/contains",
    }
    assert bare(relpt.load([opennre])[0]) == bare(text)
    for source in ([NYT_RECORD], dump(tmp_path / "a.json", [NYT_RECORD]), dump(tmp_path / "b.json", NYT_RECORD)):
        assert bare(relpt.load(source)[0]) == bare(text, tail_type="LOCATION")


@pytest.mark.parametrize(
    ("sentence", "head", "tail", "spans"),
    [
        ("a b c a b", "a", "b", [(0, 1), (2, 3)]),
        ("york , new york", "york", "new york", [(0, 4), (7, 15)]),
        ("new york , york", "york", "new york", [(11, 15), (0, 8)]),
        ("new york , new york", "york", "new york", [(15, 19), (0, 8)]),
        ("new york , new york and york", "new york", "york", [(0, 8), (24, 28)]),
        ("paris met paris", "paris", "paris", [(0, 5), (10, 15)]),
        ("amery , america , mer", "mer", "america", [(18, 21), (8, 15)]),
        ("new_york , york", "york", "new_york", [(11, 15), (0, 8)]),
        ("US tells us of Rome", "US", "rome", [(0, 2), (15, 19)]),
        ("us of US and Rome", "US", "Rome", [(6, 8), (13, 17)]),
        ("New  York , Rome", "new york", "rome", [(0, 9), (12, 16)]),
        ("new york , rome", "New_York", "rome", [(0, 8), (11, 15)]),
        ("U.S. of (Rome)", "U.S.", "(Rome)", [(0, 4), (8, 14)]),
        ("é, a😀 b", "é", "a😀", [(0, 1), (3, 5)]),
        ("aa aaa aa", "aa", "aaa", [(0, 2), (3, 6)]),
    ],
)
def test_where_names_are_found(sentence: str, head: str, tail: str, spans: list[tuple[int, int]]) -> None:
    record = {"sentence": sentence, "head": {"word": head}, "tail": {"word": tail}, "relation": "r"}
    instance = relpt.load([record])[0]
    assert [instance.head, instance.tail] == spans


BAD_NYT: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no such name": ({"head": {"word": "bronx"}}, "name not found", "head.word", "'bronx' is not in the sentence"),
    "a part of a word": ({"tail": {"word": "harbor"}}, "name not found", "tail.word", "as whole words"),
    "one name twice": ({"tail": {"word": "queens"}}, "overlapping entities", "tail.word", "only within each other"),
    "within the other": ({"tail": {"word": "queens , and"}}, "overlapping entities", "tail.word", "'queens , and'"),
    "no name": ({"head": {"id": "m.1"}}, "missing field", "head.word", "missing; give the entity's name"),
    "underscores": ({"head": {"word": " _"}}, "missing field", "head.word", "missing"),
    "name a number": ({"head": {"word": 5}}, "wrong type", "head.word", "expected a string"),
    "head a string": ({"head": "queens"}, "wrong type", "head", "expected an object with word and id, got a string"),
    "id a list": ({"tail": {"word": "queens", "id": [1]}, "head": {"word": "and"}}, "wrong type", "tail.id", "a list"),
    "no sentence": ({"sentence": None}, "missing field", "sentence", "expected a string, got nothing"),
    "empty": ({"sentence": " ###END###"}, "empty text", "sentence", "the sentence is empty"),
    "no relation": ({"relation": ""}, "missing relation", "relation", "give a relation name"),
}


@pytest.mark.parametrize("case", BAD_NYT)
def test_bad_nyt_records(tmp_path: Path, case: str) -> None:
    changes, kind, field, part = BAD_NYT[case]
    path = dump(tmp_path / "n.json", [NYT_RECORD, {**NYT_RECORD, **changes}, NYT_RECORD])
    text = message(path)
    assert text.startswith(f"{path}: record 1: {field}: ")
    assert part in text
    data = relpt.load(path, on_bad="collect")
    assert (len(data), data.bad_counts, data.bad[0].field) == (2, {kind: 1}, field)


@pytest.mark.parametrize(
    ("line", "kind", "part"),
    [
        (NYT[:90], "unexpected line", "got no ###END###, as if it were cut off"),
        (NYT.replace("\tqueens\t", "\t"), "unexpected line", "got 5 fields"),
        ("m.1\tm.2\ta b ###END###", "unexpected line", "got 3 fields ('m.1"),
        (NYT.replace("\tqueens\t", "\tbronx\t"), "name not found", "'bronx'"),
        (NYT.replace("/location/location/contains", ""), "missing relation", "give a relation name"),
    ],
)
def test_bad_nyt_lines(tmp_path: Path, line: str, kind: str, part: str) -> None:
    path = write(tmp_path / "train.txt", NYT + line.rstrip("\n") + "\n" + NYT)
    text = message(path)
    assert text.startswith(f"{path}:2: ")
    assert part in text
    data = relpt.load(path, on_bad="collect")
    assert (len(data), data.bad_counts, data.bad[0].line) == (2, {kind: 1}, 2)


# -- Wiki-WD -----------------------------------------------------------------------------------------------------------

WIKI: dict[str, Any] = {
    "tokens": ["The", "Shadow", "Riders", "stars", "Tom", "Selleck", "since", "1982-01-01", "."],
    "vertexSet": [
        {"kbID": "Q7763552", "lexicalInput": "The Shadow Riders", "type": "LEXICAL", "tokenpositions": [0, 1, 2]},
        {"kbID": "Q213706", "lexicalInput": "Tom Selleck", "tokenpositions": [4, 5]},
        {"kbID": "1982-01-01", "lexicalInput": "January 1, 1982", "type": "DATE", "tokenpositions": [7]},
    ],
    "edgeSet": [
        {"kbID": "P161", "left": [0, 1, 2], "right": [4, 5]},
        {"kbID": "P577", "left": [1, 2], "right": [7]},
        {"kbID": "P0", "left": [6], "right": [4]},
    ],
}


def test_wiki_wd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = dump(tmp_path / "wd.json", [WIKI, {**WIKI, "edgeSet": []}, {**WIKI, "vertexSet": None}])
    with caplog.at_level(logging.INFO, logger="relpt"):
        data = relpt.load(path)
    assert "read as wiki-wd, token spans, 6 instances, 3 relations, 1 sentences without an edge" in caplog.text
    assert [(i.relation, i.head_text, i.tail_text) for i in data[:3]] == [
        ("P161", "The Shadow Riders", "Tom Selleck"),
        ("P577", "Shadow Riders", "1982-01-01"),
        ("P0", "since", "Tom"),
    ]
    assert [(i.head_id, i.head_name, i.tail_id, i.tail_name, i.tail_type) for i in data[:4]] == [
        ("Q7763552", "The Shadow Riders", "Q213706", "Tom Selleck", None),
        ("Q7763552", None, "1982-01-01", None, "DATE"),
        (None, None, "Q213706", None, None),
        (None, None, None, None, None),
    ]
    assert [i.source.rsplit(": ", 1)[1] for i in data[2:4]] == ["record 0, 2", "record 2, 0"]


def test_wiki_wd_equals_the_same_sentence_in_fewrel() -> None:
    fewrel = {
        "tokens": WIKI["tokens"],
        "h": ["The Shadow Riders", "Q7763552", [[0, 1, 2]]],
        "t": ["Tom Selleck", "Q213706", [[4, 5]]],
    }
    wiki = relpt.load([{**WIKI, "edgeSet": WIKI["edgeSet"][:1]}])
    assert bare(wiki[0]) == bare(relpt.load({"P161": [fewrel]})[0])


def test_a_vertex_counts_where_it_covers_the_whole_mention() -> None:
    across = {"kbID": "P1", "left": [5, 6], "right": [0, 1, 2]}
    instance = relpt.load([{**WIKI, "edgeSet": [across]}])[0]
    assert (instance.head_text, instance.head_id, instance.tail_id) == ("Selleck since", None, "Q7763552")


def edge(**changes: Any) -> dict[str, Any]:
    """WIKI with a second edge of which something is changed."""
    return {**WIKI, "edgeSet": [WIKI["edgeSet"][0], {**WIKI["edgeSet"][0], **changes}]}


BAD_WIKI: dict[str, tuple[Any, str, str, str]] = {
    "name": (
        {**edge(), "vertexSet": [{**WIKI["vertexSet"][1], "lexicalInput": "Tom"}]},
        "name mismatch",
        "edgeSet[#].right",
        "(4, 6) reads 'Tom Selleck', but the name is 'Tom'",
    ),
    "outside": (edge(right=[8, 9]), "span outside", "edgeSet[1].right", "(8, 10) is outside the sentence's 9 tokens"),
    "gap": (edge(left=[0, 2]), "mention not contiguous", "edgeSet[1].left", "[0, 2] is no run"),
    "no tokens of a side": (edge(left=[]), "span empty", "edgeSet[1].left", "no tokens"),
    "no side": (edge(right=None), "wrong type", "edgeSet[1].right", "expected a list of token numbers, got None"),
    "a number": (edge(left=3), "wrong type", "edgeSet[1].left", "got 3"),
    "words": (edge(left=["Tom"]), "wrong type", "edgeSet[1].left", "got ['Tom']"),
    "overlap": (edge(right=[2]), "overlapping entities", "edgeSet[1].right", "two separate mentions"),
    "no kbID": (edge(kbID=None), "missing relation", "edgeSet[1].kbID", "give a relation name"),
    "edge a list": ({**WIKI, "edgeSet": [WIKI["edgeSet"][0], [0, 1]]}, "wrong type", "edgeSet[1]", "got a list"),
    "edges an object": ({**WIKI, "edgeSet": {}}, "wrong type", "edgeSet", "expected a list of edges, got an object"),
    "no edges": ({"tokens": WIKI["tokens"]}, "missing field", "edgeSet", "got nothing"),
    "vertex a number": ({**edge(), "vertexSet": [5]}, "wrong type", "vertexSet[0]", "got 5"),
    "vertex nowhere": ({**edge(), "vertexSet": [{"kbID": "Q1"}]}, "wrong type", "vertexSet[0]", "tokenpositions"),
    "no words": ({**edge(), "tokens": None}, "missing field", "text", "neither text nor tokens"),
    "no record": ([1], "not an object", "", "got a list"),
}


@pytest.mark.parametrize("case", BAD_WIKI)
def test_bad_wiki_records(tmp_path: Path, case: str) -> None:
    record, kind, field, part = BAD_WIKI[case]
    good = {**WIKI, "edgeSet": WIKI["edgeSet"][:1]}
    path = dump(tmp_path / "w.json", [good, record, good])
    text = message(path)
    places = [field.replace("#", number) for number in ("0", "1")][: field.count("#") + 1]
    assert text.startswith(f"{path}: record 1: {places[0]}" + ": " * bool(field))
    assert part in text
    data = relpt.load(path, on_bad="collect")
    assert [(b.kind, b.field) for b in data.bad[: len(places)]] == [(kind, place) for place in places]
    assert len(data) == (3 if field.startswith("edgeSet[1]") else 2)


# -- bags --------------------------------------------------------------------------------------------------------------


def pair(head: dict[str, str], tail: dict[str, str], relation: str | None = "r") -> dict[str, Any]:
    record: dict[str, Any] = {"text": "Ada met Bob", "h": {"pos": [0, 3], **head}, "t": {"pos": [8, 11], **tail}}
    return record if relation is None else {**record, "relation": relation}


def test_bags_group_by_ids(caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = {"id": "Q1", "name": "Ada"}, {"id": "Q2"}, {"id": "Q3"}
    data = relpt.load([pair(a, b, "s"), pair(a, c), pair(a, b), pair(b, c), pair({"id": "Q1"}, b, "s")])
    bags = data.bags()
    assert bags == [
        ("Q1", "Q2", (0, 2, 4), ("r", "s")),
        ("Q1", "Q3", (1,), ("r",)),
        ("Q2", "Q3", (3,), ("r",)),
    ]
    assert [i.relation for i in data[bags[0].indices]] == ["s", "r", "s"]
    assert not caplog.records
    gold = [[r in bag.relations for r in data.labels] for bag in bags]
    curve = bag_curve([[0.9, 0.8], [0.7, 0.1], [0.6, 0.0]], gold)
    assert (curve.precision_at(4), curve.auc) == (1.0, 1.0)


def test_bags_without_ids_go_by_name_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    ada, bob = {"name": "ADA"}, {"id": "Q2", "name": "Bob"}
    data = relpt.load([pair(ada, bob), pair({"name": "ada"}, {"name": "bob"})], name="mine")
    assert data.bags() == [("ada", "Q2", (0, 1), ("r",))]
    assert "mine: 2 of 4 mentions have no id; their entities are told apart by name" in caplog.text
    assert relpt.load([pair(ada, bob, None)]).bags() == [("ada", "Q2", (0,), ())]
    assert relpt.load([]).bags() == []


def test_a_name_is_no_id() -> None:
    same = relpt.load([pair({"name": "Ada"}, {"id": "Q2"}), pair({"id": "ada"}, {"id": "Q2"})])
    assert [bag.indices for bag in same.bags()] == [(0,), (1,)]


def test_bags_need_ids_or_names() -> None:
    data = relpt.load([pair({"id": "Q1"}, {"id": "Q2"}), pair({"id": "Q1"}, {}), pair({}, {})])
    with pytest.raises(ValueError, match=r"2 of 3 instances .* neither id nor name.*first: data: record 1.*give them"):
        data.bags()


# -- real sentences, written in other formats --------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"


def real(name: str) -> relpt.Dataset:
    if not (REAL / name).is_file():
        pytest.skip(f"needs the datasets: {REAL / name} is absent")
    return relpt.load(REAL / name)


def marked(instance: relpt.Instance) -> str:
    text = instance.text
    for (start, end), tag in sorted(((instance.head, "e1"), (instance.tail, "e2")), reverse=True):
        text = f"{text[:start]}<{tag}>{text[start:end]}</{tag}>{text[end:]}"
    return text


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["semeval/test.txt", "chemprot/dev.jsonl"])
def test_real_sentences_in_semevals_text(tmp_path: Path, name: str) -> None:
    data = real(name)
    blocks = (f'{n}\t"{marked(i)}"\n{i.relation}\nComment:\n\n' for n, i in enumerate(data))
    again = relpt.load(write(tmp_path / "TEST_FILE_FULL.TXT", "".join(blocks)))
    assert [(i.text, i.head, i.tail, i.relation) for i in again] == [(i.text, i.head, i.tail, i.relation) for i in data]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["semeval/test.txt", "wiki80/train_0.1.txt"])
def test_real_sentences_in_tacreds_json(tmp_path: Path, name: str) -> None:
    data = real(name)
    records = []
    for number, line in enumerate((REAL / name).read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        ends = {
            f"{role}_{end}": record[key]["pos"][i] - i
            for key, role in (("h", "subj"), ("t", "obj"))
            for i, end in enumerate(("start", "end"))
        }
        names = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
        tokens = [names.get(token, token) for token in record["token"]]
        records.append({"id": number, "token": tokens, "relation": record["relation"], **ends})
    again = relpt.load(dump(tmp_path / "test.json", records))
    wanted = [dataclasses.replace(i, head_type=None, tail_type=None, head_name=None, tail_name=None) for i in data]
    for n, (a, b) in enumerate(zip(again, wanted, strict=True)):
        assert bare(a) == bare(b, id=str(n), head_id=None, tail_id=None)


@pytest.mark.real_data
def test_real_names_are_found(tmp_path: Path) -> None:
    data = real("wiki80/dev.txt")
    records = [
        {"sentence": i.text, "head": {"word": i.head_text}, "tail": {"word": i.tail_text}, "relation": i.relation}
        for i in data
    ]
    again = relpt.load(dump(tmp_path / "nyt.json", records))
    for a, b in zip(again, data, strict=True):
        assert (a.text, a.head, a.tail) == (b.text.replace("_", " "), b.head, b.tail)
