"""Reading the field's formats: what comes out, from files and from memory."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import relpt

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"

TOKENS = ["Ada", "Lovelace", "was", "born", "in", "London", "."]
RECORD: dict[str, Any] = {
    "token": TOKENS,
    "h": {"name": "ada lovelace", "id": "Q7259", "pos": [0, 2], "type": "PERSON"},
    "t": {"name": "london", "pos": [5, 6]},
    "relation": "place of birth",
}
FEWREL = {"tokens": TOKENS, "h": ["ada lovelace", "Q7259", [[0, 1]]], "t": ["london", "", [[5]]]}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(path: Path, *records: Any) -> Path:
    return write(path, "".join(json.dumps(r) + "\n" for r in records))


def same_sentence(instance: relpt.Instance) -> None:
    assert instance.text == "Ada Lovelace was born in London ."
    assert (instance.head_text, instance.tail_text) == ("Ada Lovelace", "London")


@pytest.mark.parametrize("indent", [None, 1])
def test_fewrel(tmp_path: Path, indent: int | None) -> None:
    record = {**FEWREL, "h_type": "PERSON", "t_type": "GPE"}
    data = relpt.load(write(tmp_path / "f.json", json.dumps({"P19": [record, FEWREL], "P20": [FEWREL]}, indent=indent)))
    assert len(data) == 3
    assert data.labels == ["P19", "P20"]
    assert data.label_counts() == {"P19": 2, "P20": 1}
    first = data[0]
    same_sentence(first)
    assert (first.head_id, first.tail_id, first.head_type, first.tail_type) == ("Q7259", None, "PERSON", "GPE")
    assert data[1].head_type is None
    assert first.source.endswith("f.json: P19[0]")
    assert data.name == "f.json"


def test_fewrel_takes_the_first_mention(tmp_path: Path) -> None:
    twice = {"tokens": ["A", "b", "A", "c"], "h": ["a", "Q1", [[2], [0]]], "t": ["c", "Q2", [[3], [1]]]}
    data = relpt.load({"P1": [twice]})
    assert data[0].head == (4, 5)


def test_fewrel_unsupervised(tmp_path: Path) -> None:
    data = relpt.load(write(tmp_path / "u.json", json.dumps([FEWREL, FEWREL])))
    assert (len(data), data.labels, data.labelled, data[0].relation) == (2, [], False, None)
    same_sentence(data[0])


def test_opennre_lines_tokens_and_text(tmp_path: Path) -> None:
    text = {
        "text": "Ada Lovelace was born in London .",
        "h": {"pos": [0, 12]},
        "t": {"pos": [25, 31], "name": "London"},
        "relation": "place of birth",
    }
    data = relpt.load(jsonl(tmp_path / "o.txt", RECORD, text))
    for instance in data:
        same_sentence(instance)
    assert data[0].head == data[1].head
    assert [i.source.rsplit(":", 1)[1] for i in data] == ["1", "2"]
    assert data[1].head_name is None


@pytest.mark.parametrize("name", ["one.jsonl", "one.txt", "one.json"])
def test_a_file_of_one_record(tmp_path: Path, name: str) -> None:
    assert relpt.load(jsonl(tmp_path / name, RECORD))[0].source.endswith(f"{name}:1")
    same_sentence(relpt.load(write(tmp_path / name, json.dumps(RECORD, indent=2)))[0])


def test_opennre_list_and_byte_order_mark_and_gzip_and_blank_lines(tmp_path: Path) -> None:
    same_sentence(relpt.load(write(tmp_path / "l.json", json.dumps([RECORD])))[0])
    line = json.dumps(RECORD)
    same_sentence(relpt.load(write(tmp_path / "bom.txt", "\ufeff" + line + "\n" + line))[0])
    (tmp_path / "o.jsonl.gz").write_bytes(gzip.compress((line + "\n").encode()))
    same_sentence(relpt.load(tmp_path / "o.jsonl.gz")[0])
    data = relpt.load(write(tmp_path / "blank.txt", f"\n{line}\r\n\r\n{line}\r\n"))
    assert [i.source.rsplit(":", 1)[1] for i in data] == ["2", "4"]


def test_line_separators_inside_a_string_end_no_line(tmp_path: Path) -> None:
    record = {**RECORD, "token": ["Ada", "Lovelace", "was\u2028born", "\x85", "in", "London"]}
    path = write(tmp_path / "o.jsonl", json.dumps(record, ensure_ascii=False) + "\n")
    assert relpt.load(path)[0].tail_text == "London"


@pytest.mark.parametrize(
    ("text", "plain", "head", "tail"),
    [
        ("<< A b >> blocks [[ c ]].", "A b blocks c.", "A b", "c"),
        ("The [[ c ]] of <<x << A >> >d.", "The c of <<x A >d.", "A", "c"),
        ("N-<< BPs >>[[ MEK ]]/ERK", "N-BPsMEK/ERK", "BPs", "MEK"),
        ("[[ x ]]<< é😀 >> >> y", "xé😀 >> y", "é😀", "x"),
    ],
)
def test_chemprot_marks(tmp_path: Path, text: str, plain: str, head: str, tail: str) -> None:
    data = relpt.load(jsonl(tmp_path / "c.jsonl", {"text": text, "label": "INHIBITOR", "metadata": []}))
    assert (data[0].text, data[0].head_text, data[0].tail_text) == (plain, head, tail)
    assert data.labels == ["INHIBITOR"]


def test_tokens_with_blanks_keep_their_place() -> None:
    tokens = ["a b", "\n ", "", "\u00a0", "É t", "c"]
    record = {"tokens": tokens, "h": {"pos": [4, 5]}, "t": {"pos": [0, 1]}, "relation": "r"}
    instance = relpt.load([record])[0]
    assert instance.text == " ".join(tokens)
    assert (instance.head_text, instance.tail_text) == ("É t", "a b")


@pytest.mark.parametrize("seed", range(20))
def test_token_spans_against_a_plain_count(seed: int) -> None:
    draw = np.random.default_rng(seed)
    words = ["x", "é", "日本", "😀", "a b", "\n", "", "e\u0301", "\u00a0", "word"]
    tokens = [words[i] for i in draw.integers(len(words), size=12)]
    tokens[3], tokens[8] = "H", "T"
    a, b = int(draw.integers(0, 4)), int(draw.integers(4, 6))
    c, d = int(draw.integers(6, 9)), int(draw.integers(9, 12))
    instance = relpt.load([{"tokens": tokens, "h": {"pos": [a, b]}, "t": {"pos": [c, d]}, "relation": "r"}])[0]
    assert instance.head_text == " ".join(tokens[a:b])
    assert instance.tail_text == " ".join(tokens[c:d])
    assert instance.head[0] == sum(len(t) + 1 for t in tokens[:a])


def test_span_units() -> None:
    text = {"text": "Ada  met Bob", "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}, "relation": "r"}
    instance = relpt.load([text], spans="token")[0]
    assert (instance.text, instance.head, instance.tail) == ("Ada  met Bob", (0, 3), (9, 12))
    tokens = {"token": ["Ada", "met", "Bob"], "h": {"pos": [0, 3]}, "t": {"pos": [8, 11]}, "relation": "r"}
    assert relpt.load([tokens], spans="char")[0].tail_text == "Bob"
    both = {**tokens, "text": "Ada met Bob"}
    assert relpt.load([both], spans="char")[0].tail_text == "Bob"
    with pytest.raises(relpt.FormatError, match="spans="):
        relpt.load([both])
    with pytest.raises(ValueError, match="token numbers"):
        relpt.load({"P19": [FEWREL]}, spans="char", format="fewrel")


@pytest.mark.parametrize(
    ("surface", "name"),
    [
        ("Kurushima - Kaikyō Bridge", "kurushima-kaikyō bridge"),
        ("Crohn 's", "crohn's"),
        ("STRASSE", "straße"),
        ("e\u0301te", "éte"),
        ("New\u00a0York", "new york"),
    ],
)
def test_names_match_but_for_case_and_blanks(surface: str, name: str) -> None:
    record = {"text": f"{surface} x", "h": {"pos": [0, len(surface)], "name": name}, "t": {"pos": [-1, 0]}}
    record["t"] = {"pos": [len(surface) + 1, len(surface) + 2]}
    assert relpt.load([record])[0].head_name == name


def test_names_that_are_no_surface_text() -> None:
    record = {"text": "He met Bob", "h": {"pos": [0, 2], "name": "Alan Turing"}, "t": {"pos": [7, 10]}, "relation": "r"}
    with pytest.raises(relpt.FormatError, match="check_names=False"):
        relpt.load([record])
    data = relpt.load([record], check_names=False)
    assert data.check().name_mismatches == 1


def test_a_list_of_paths_and_a_name(tmp_path: Path) -> None:
    a, b = jsonl(tmp_path / "a.txt", RECORD), jsonl(tmp_path / "b.txt", RECORD, RECORD)
    data = relpt.load([a, str(b)])
    assert (len(data), data.name) == (3, "a.txt, b.txt")
    assert relpt.load([a, b], name="both").name == "both"


def test_the_guess_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="relpt"):
        relpt.load(jsonl(tmp_path / "a.txt", RECORD))
    assert "a.txt: read as opennre, token spans, 1 instance, 1 relation" in caplog.text


def test_dataset_is_list_like() -> None:
    records = [{**RECORD, "relation": f"r{i % 3}"} for i in range(7)]
    data = relpt.load(records)
    assert isinstance(data[2:4], relpt.Dataset)
    assert [i.relation for i in data[[5, 0]]] == ["r2", "r0"]
    assert [i.relation for i in data[np.array([6])]] == ["r0"]
    assert len(data[np.arange(7) < 2]) == 2
    assert len(data[[]]) == 0
    assert data[-1].relation == data[np.int64(6)].relation == "r0"
    assert len(data.select(labels=["r0", "r2"])) == 5
    assert len(data.filter(lambda i: i.relation == "r1")) == 2
    with pytest.raises(ValueError, match="no relation 'r9'"):
        data.select(labels=["r9"])
    with pytest.raises(IndexError):
        data[7]
    with pytest.raises(IndexError, match="mask"):
        data[np.array([True])]
    assert relpt.load(data) is data
    assert list(relpt.load(list(data))) == list(data)
    assert repr(data) == "<relpt.Dataset 'data': 7 instances, 3 relations>"


def test_to_dict_is_read_back() -> None:
    data = relpt.load([RECORD])
    again = relpt.load([data[0].to_dict()])
    assert again[0].to_dict() == data[0].to_dict()


def test_instances_by_hand_are_checked() -> None:
    assert relpt.Instance("a b", (0, 1), (2, 3)).tail_text == "b"
    for head, tail in (((0, 0), (2, 3)), ((0, 4), (2, 3)), ((0, 2), (1, 3)), ((-1, 1), (2, 3))):
        with pytest.raises(ValueError, match="separate half-open"):
            relpt.Instance("a b", head, tail)


def test_check() -> None:
    other = {
        "tokens": ["Ada", "saw", "Ada", "Lovelace"],
        "h": {"pos": [2, 4], "name": "Ada Lovelace"},
        "t": {"pos": [0, 1]},
    }
    data = relpt.load([RECORD, RECORD, {**other, "relation": "saw"}])
    report = data.check()
    found = report.to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (report.n, report.repeated_sentences, report.head_first) == (3, 1, 2)
    assert report.single_relations == ["saw"]
    assert report.entities == 2  # a name without an id is the entity of that name's one id
    assert (report.entity_pairs, report.repeated_pairs) == (1, 1)
    assert (report.mentions_with_id, report.mentions_with_name) == (2, 5)
    assert (report.mentions_typed, report.types) == (2, 1)
    assert "2: place of birth 2, saw 1" in str(report)
    assert "bad records" in str(report)
    assert str(relpt.load([]).check())


def test_html_escapes_what_users_wrote() -> None:
    nasty = {
        "tokens": ["<b>", "&", "<script>"],
        "h": {"pos": [0, 1], "type": "<i>"},
        "t": {"pos": [2, 3]},
        "relation": "<u>",
    }
    data = relpt.load([nasty], name="<p>")
    for page in (data._repr_html_(), data[0]._repr_html_(), data.check()._repr_html_()):
        assert not any(tag in page for tag in ("<script>", "<i>", "<u>", "<p>"))
    assert "<mark" in data._repr_html_()
    assert relpt.load([])._repr_html_()


def test_dataframes() -> None:
    pd = pytest.importorskip("pandas")
    flat = pd.DataFrame(
        {
            "text": ["Ada Lovelace was born in London .", "Bob saw Eve"],
            "h_start": [0, 0],
            "h_end": [12, 3],
            "t_start": [25, 8],
            "t_end": [31, 11],
            "h_type": ["PERSON", None],
            "t_name": ["London", float("nan")],
            "h_id": [7259, 1],
            "relation": ["place of birth", "saw"],
        },
        index=[7, 7],
    )
    data = relpt.load(flat)
    same_sentence(data[0])
    assert (data[0].head_type, data[1].head_type, data[1].tail_name, data[0].head_id) == ("PERSON", None, None, "7259")
    assert data[1].source == "data: record 1"
    pos = pd.DataFrame({"token": [TOKENS], "h_pos": [(0, 2)], "t_pos": [np.array([5, 6])], "label": ["r"]})
    same_sentence(relpt.load(pos)[0])
    nested = pd.DataFrame([RECORD])
    same_sentence(relpt.load(nested)[0])
    with pytest.raises(relpt.FormatError, match=r"record 1: h\.pos"):
        relpt.load(flat.assign(h_end=[12, 99]))
    with pytest.raises(relpt.FormatError, match="column twice"):
        relpt.load(pd.concat([flat, flat], axis=1))


def test_arrow_streams() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pylist([RECORD, {**RECORD, "relation": "r"}])
    data = relpt.load(table)
    same_sentence(data[0])
    assert data.labels == ["place of birth", "r"]

    class Stream:
        def __arrow_c_stream__(self, schema: object = None) -> object:
            return table.__arrow_c_stream__(schema)

    assert len(relpt.load(Stream())) == 2


def test_hugging_face_like_datasets() -> None:
    class ClassLabel:
        def int2str(self, number: int) -> str:
            return ["no", "yes"][number]

    class Hub:
        features = {"relation": ClassLabel(), "token": object()}  # noqa: RUF012
        column_names = ("token", "h", "t", "relation")

        def __iter__(self) -> Any:
            return iter([{**RECORD, "relation": 1}, {**RECORD, "relation": 0}])

    assert [i.relation for i in relpt.load(Hub())] == ["yes", "no"]
    with pytest.raises(TypeError, match="split"):
        relpt.load({"train": Hub(), "test": Hub()})


def test_unlabelled_records() -> None:
    data = relpt.load([{k: v for k, v in RECORD.items() if k != "relation"}] * 2)
    assert not data.labelled
    assert "unlabelled" in repr(data)


def test_importing_stays_light() -> None:
    code = (
        "import sys, relpt.data, relpt.corpus; "
        "print([m for m in ('pandas', 'torch', 'transformers', 'tqdm', 'pyarrow', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


COUNTS = {
    "fewrel/train64_partial.json": (20414, 64),
    "fewrel/val_wiki.json": (11200, 16),
    "fewrel/val_pubmed.json": (1000, 10),
    "fewrel/pubmed_unsupervised.json": (2500, 0),
    "wiki80/train_0.1.txt": (3920, 80),
    "wiki80/train_0.01.txt": (400, 80),
    "wiki80/dev.txt": (5600, 80),
    "semeval/train.txt": (6507, 18),
    "semeval/train_0.1.txt": (660, 18),
    "semeval/train_0.01.txt": (73, 18),
    "semeval/dev.txt": (1493, 19),
    "semeval/test.txt": (2717, 19),
    "chemprot/train.jsonl": (4169, 13),
    "chemprot/dev.jsonl": (2427, 12),
    "chemprot/test.jsonl": (3469, 12),
    "chemprot/train_0.1.txt": (423, 13),
    "chemprot/train_0.01.txt": (49, 13),
    "webnlg/train.jsonl": (23604, 245),
    "webnlg/dev.jsonl": (3105, 169),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", COUNTS)
def test_real_files_load_without_a_bad_record(name: str) -> None:
    if not (REAL / name).is_file():
        pytest.skip(f"needs the datasets: {REAL / name} is absent")
    data = relpt.load(REAL / name)
    assert (len(data), len(data.labels)) == COUNTS[name]
    assert not data.bad_counts
    assert data.check().name_mismatches == 0


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["fewrel/pid2name.json", "semeval/rel2id.json", "redocred/dev.json", "codex/test.txt"])
def test_real_files_of_other_kinds_are_refused(name: str) -> None:
    if not (REAL / name).is_file():
        pytest.skip(f"needs the datasets: {REAL / name} is absent")
    with pytest.raises(relpt.FormatError, match=Path(name).name) as caught:
        relpt.load(REAL / name)
    assert "\n" not in str(caught.value)
