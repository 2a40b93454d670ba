"""The corpus on disk: what is saved comes back, damage is named, nothing is ever half-written."""

from __future__ import annotations

import json
import os
import pickle
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import relpt


def tokenizer() -> Tokenizer:
    words = "[UNK] ada met bob in london person x y"
    out = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words.split())}, unk_token="[UNK]"))
    out.pre_tokenizer = pre_tokenizers.Whitespace()
    return out


def record(tail: str = "bob", relation: str | None = "met", **more: Any) -> dict[str, Any]:
    out = {"tokens": ["ada", "met", tail], "h": {"pos": [0, 1], "id": "Q1", "type": "person"}, "t": {"pos": [2, 3]}}
    return {**out, "relation": relation, **more} if relation else {**out, **more}


def corpus(*records: dict[str, Any]) -> relpt.Corpus:
    return relpt.load(list(records or (record(), record("london", "in"), record("x")))).tokenize(tokenizer())


def assert_equal(a: relpt.Corpus, b: relpt.Corpus) -> None:
    for name, array in a.arrays().items():
        np.testing.assert_array_equal(array, b.arrays()[name])
        assert array.dtype == b.arrays()[name].dtype
    assert a.tables() == b.tables()
    assert (a.name, a.max_length, a.n_longer) == (b.name, b.max_length, b.n_longer)
    assert a.data_hash == b.data_hash


def test_round_trip_is_mapped_and_read_only(tmp_path: Path) -> None:
    made = corpus()
    made.save(tmp_path / "deep" / "c")
    opened = relpt.Corpus.open(tmp_path / "deep" / "c", verify=True)
    assert_equal(made, opened)
    assert isinstance(opened.ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.ids[0] = 1
    files = {*(f"{key}.npy" for key in made.arrays()), "corpus.json", "entities.json"}
    assert set(os.listdir(tmp_path / "deep" / "c")) == files
    assert opened.entities == made.entities
    assert os.listdir(tmp_path / "deep") == ["c"]
    assert {"ids": "int32", "offsets": "int64", "spans": "int32", "type_offsets": "int64"}.items() <= {
        k: str(v.dtype) for k, v in opened.arrays().items()
    }.items()
    assert_equal(pickle.loads(pickle.dumps(opened)), made)


@pytest.mark.parametrize("records", [[], [record(relation=None)], [{k: v for k, v in record().items()}]])
def test_round_trip_of_empty_unlabelled_and_untyped(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    for r in records:
        r["h"] = {"pos": [0, 1]}
    made = relpt.load(records).tokenize(tokenizer())
    made.save(tmp_path / "c")
    opened = relpt.Corpus.open(tmp_path / "c")
    assert_equal(made, opened)
    assert opened.types == []
    assert opened._repr_html_()
    assert repr(opened)


def test_saving_over_a_corpus_replaces_it_and_nothing_else(tmp_path: Path) -> None:
    first, second = corpus(), corpus(record("y"))
    first.save(tmp_path / "c")
    opened = relpt.Corpus.open(tmp_path / "c")
    second.save(tmp_path / "c")
    assert_equal(relpt.Corpus.open(tmp_path / "c"), second)
    assert_equal(opened, first)  # what was mapped stays readable
    opened.save(tmp_path / "c")
    relpt.Corpus.open(tmp_path / "c").save(tmp_path / "c")
    assert_equal(relpt.Corpus.open(tmp_path / "c"), first)
    (tmp_path / "empty").mkdir()
    first.save(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "c")
    second.save(tmp_path / "link")
    assert_equal(relpt.Corpus.open(tmp_path / "c"), second)
    for other in ("file", "folder"):
        path = tmp_path / other
        if other == "file":
            path.write_text("mine")
        else:
            path.mkdir()
            (path / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="is no corpus"):
            first.save(path)
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["c", "empty", "file", "folder", "link"]


@pytest.mark.parametrize("fails_at", ["np.save", "os.fsync", "os.rename", "second rename"])
def test_a_failed_save_leaves_the_old_corpus_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    old = corpus()
    old.save(tmp_path / "c")
    calls = 0
    module, name = (np, "save") if fails_at == "np.save" else (os, fails_at.split(".")[-1].split(" ")[-1])
    real = getattr(module, name)

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == {"np.save": 3, "os.fsync": 5, "os.rename": 1, "second rename": 2}[fails_at]:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, broken)
    with pytest.raises(OSError, match="No space"):
        corpus(record("y")).save(tmp_path / "c")
    if "rename" not in fails_at:
        calls = 0
        with pytest.raises(OSError, match="No space"):
            corpus(record("y")).save(tmp_path / "new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c"]
    assert_equal(relpt.Corpus.open(tmp_path / "c", verify=True), old)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        corpus().save(tmp_path / "c")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "c" / "ids.npy").stat().st_mode) == 0o640


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"xx")


def blank(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': !!!}  \n")


def wider(path: Path) -> None:
    np.save(path, np.load(path).astype(np.int64))


def shorter(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


def objects(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize("damage", [cut, grow, blank, noise, wider, shorter, objects, os.remove])
@pytest.mark.parametrize("name", ["ids", "spans", "head_type"])
def test_damaged_arrays_are_named(tmp_path: Path, damage: Any, name: str) -> None:
    corpus().save(tmp_path / "c")
    damage(tmp_path / "c" / f"{name}.npy")
    with pytest.raises(relpt.FormatError, match=rf"{name}\.npy: ") as caught:
        relpt.Corpus.open(tmp_path / "c")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # NumPy's, of old headers and types
def test_a_flipped_bit_in_the_header_of_an_array(tmp_path: Path) -> None:
    corpus().save(tmp_path / "c")
    path = tmp_path / "c" / "spans.npy"
    content = path.read_bytes()
    messages = []
    for place in range(10, 128):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                relpt.Corpus.open(tmp_path / "c")
            except relpt.FormatError as error:
                messages.append(str(error))
    assert len(messages) > 900  # of 944: a few flips give the same header in other letters
    assert all("spans.npy: " in message for message in messages)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("relation", -1),
        ("relation", 2),
        ("head_id", -2),
        ("head_id", 2**31 - 1),
        ("tail_id", 99),
        ("head_type", -2),
        ("tail_type", 1),
    ],
)
def test_numbers_beyond_their_table(tmp_path: Path, key: str, value: int) -> None:
    folder = corpus().save(tmp_path / "c")
    array = np.load(folder / f"{key}.npy")
    array[1] = value
    np.save(folder / f"{key}.npy", array)
    with pytest.raises(relpt.FormatError, match=rf"{re.escape(str(folder))}: {key} holds numbers out of -?[01] \.\. "):
        relpt.Corpus.open(folder)


@pytest.mark.parametrize(("key", "place", "value"), [("spans", (1, 3), 99), ("ids", 2, 500), ("ids", 0, -1)])
def test_the_core_names_the_folder(tmp_path: Path, key: str, place: Any, value: int) -> None:
    folder = corpus().save(tmp_path / "c")
    array = np.load(folder / f"{key}.npy")
    array[place] = value
    np.save(folder / f"{key}.npy", array)
    with pytest.raises(relpt.FormatError, match=rf"{re.escape(str(folder))}: row [01].*: {key}"):
        relpt.Corpus.open(folder).core()


def change(meta: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**meta, **changes}


@pytest.mark.parametrize(
    ("edit", "pattern"),
    [
        (lambda m: change(m, format="other"), "is no relpt corpus"),
        (lambda m: change(m, version=2), "version 2, this relpt reads 1"),
        (lambda m: {k: v for k, v in m.items() if k != "relations"}, "relations is missing"),
        (lambda m: change(m, vocab_size="8"), "vocab_size is missing or no int"),
        (lambda m: change(m, vocab_size=2**31), "vocab_size is 2147483648; expected 1 to 2147483647"),
        (lambda m: change(m, n_entities=-1), "n_entities is -1; expected 0 to"),
        (lambda m: change(m, name="\ud800"), r"corpus\.json: damaged \(holds half of a surrogate pair"),
        (lambda m: change(m, relations=["a", "a"]), "relations must be distinct names"),
        (lambda m: change(m, types=[1]), "types must be distinct names"),
        (lambda m: change(m, types=["a", "b"]), r"type_offsets is int64 \(2,\), expected int64 \(3,\)"),
        (lambda m: change(m, arrays={}), r"ids\.npy: "),
        (lambda m: [m], "is no relpt corpus"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, edit: Any, pattern: str) -> None:
    corpus().save(tmp_path / "c")
    path = tmp_path / "c" / "corpus.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(relpt.FormatError, match=pattern):
        relpt.Corpus.open(tmp_path / "c")


def test_damaged_json_and_no_corpus_at_all(tmp_path: Path) -> None:
    corpus().save(tmp_path / "c")
    for content in (b"", b"{", b"\xff\xff"):
        (tmp_path / "c" / "corpus.json").write_bytes(content)
        with pytest.raises(relpt.FormatError, match=r"corpus\.json: damaged"):
            relpt.Corpus.open(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        relpt.Corpus.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no corpus\.json"):
        relpt.Corpus.open(tmp_path)


def test_offsets_that_do_not_fit(tmp_path: Path) -> None:
    made = corpus()
    made.save(tmp_path / "c")
    for offsets in ([1, 3, 6, 9], [0, 6, 3, 9], [0, 3, 6, 8]):
        np.save(tmp_path / "c" / "offsets.npy", np.array(offsets, np.int64))
        with pytest.raises(relpt.FormatError, match="offsets must rise from 0 to the 9 ids"):
            relpt.Corpus.open(tmp_path / "c")


def test_verify_finds_a_changed_value(tmp_path: Path) -> None:
    made = corpus()
    made.save(tmp_path / "c")
    ids = np.load(tmp_path / "c" / "ids.npy")
    ids[0] ^= 1
    np.save(tmp_path / "c" / "ids.npy", ids)
    assert relpt.Corpus.open(tmp_path / "c").data_hash != made.data_hash
    with pytest.raises(relpt.FormatError, match="hash"):
        relpt.Corpus.open(tmp_path / "c", verify=True)


def test_the_hash_follows_content_alone(tmp_path: Path) -> None:
    made = corpus()
    assert made.data_hash == corpus().data_hash
    for path in ("a", "b"):
        (tmp_path / path).mkdir()
        (tmp_path / path / f"{path}.json").write_text(json.dumps([record(), record("london", "in"), record("x")]))
        data = relpt.load(tmp_path / path / f"{path}.json", name=path)
        assert data.tokenize(tokenizer(), max_length=99).data_hash == made.data_hash
    assert made.data_hash == "03f8a5c52b751c968383f35172e390018651e3e11c8c5ac7662421017fbe0dae"
    others = [corpus(record()), corpus(record("x"), record("london", "in"), record()), corpus(record(relation="at"))]
    assert len({c.data_hash for c in [made, *others]}) == 4


def test_counts_and_pictures() -> None:
    made = corpus()
    assert len(made) == 3
    assert made.labels == ["in", "met"]
    assert made.label_counts() == {"met": 2, "in": 1}
    assert repr(made) == "<relpt.Corpus 'data': 3 sentences, 9 word pieces, 2 relations>"
    assert "3" in made._repr_html_()
    nasty = relpt.load([record(relation="<script>")], name="<b>").tokenize(tokenizer())
    assert "<script>" not in nasty._repr_html_()
    assert "<b><b>" not in nasty._repr_html_()


def test_the_core_gets_every_array_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import relpt._core

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(relpt._core, "Corpus", lambda **given: seen.append(given) or len(seen))
    made = corpus()
    made.save(tmp_path / "c")
    opened = relpt.Corpus.open(tmp_path / "c")
    assert opened.core() == opened.core() == 1
    (given,) = seen
    assert set(given) == {*made.arrays(), "n_relations", "vocab_size"}
    assert (given["n_relations"], given["vocab_size"]) == (2, 9)
    assert all(type(given[k]) is np.ndarray and given[k].flags.c_contiguous for k in made.arrays())
