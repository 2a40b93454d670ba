"""Encoders side by side and embeddings of entities looked up: by NumPy, through few-shot episodes, on disk."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import WORDS, tiny_dataset, tiny_encoder_folder

import relpt


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two encoders of other sizes and other tokenizers."""
    root = tmp_path_factory.mktemp("encoders")
    few = tiny_encoder_folder(root / "b", vocab_words=WORDS[:20], hidden=16, layers=1, heads=2, seed=1)
    return tiny_encoder_folder(root / "a"), few


@pytest.fixture(scope="module")
def a(folders: tuple[Path, Path]) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folders[0], representation="entity_start", num_threads=1)


@pytest.fixture(scope="module")
def b(folders: tuple[Path, Path]) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folders[1], representation="mean", num_threads=1)


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


@pytest.fixture(scope="module")
def table(a: relpt.Encoder, data: relpt.Dataset) -> relpt.EntityTable:
    return relpt.EntityTable.from_corpus(a, data)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sentence(head: tuple[str | None, str | None], tail: tuple[str | None, str | None]) -> dict[str, Any]:
    """Two mentions of (name, id); a nameless one stands as "he"."""
    first, second = head[0] or "he", tail[0] or "he"
    start = len(first) + len(" found ")
    h, t = {"pos": [0, len(first)]}, {"pos": [start, start + len(second)]}
    for entity, (name, id_) in ((h, head), (t, tail)):
        entity.update({key: value for key, value in (("name", name), ("id", id_)) if value is not None})
    return {"text": f"{first} found {second} again .", "h": h, "t": t}


# -- side by side -----------------------------------------------------------------------------------------------------


def test_the_parts_stand_side_by_side(a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset) -> None:
    left, right = a.encode(data, inputs="OnlyC"), b.encode(data, inputs="OnlyC")
    hybrid = relpt.HybridEncoder(a, b)
    found = hybrid.encode(data, inputs="OnlyC")
    assert found.dtype == np.float32
    assert found.shape == (len(data), 64 + 16)
    assert hybrid.dim == 80
    np.testing.assert_allclose(found, np.hstack([unit(left), unit(right)]), atol=1e-6)
    turned = relpt.HybridEncoder(b, a).encode(data, inputs="OnlyC")
    np.testing.assert_array_equal(turned, np.hstack([found[:, 64:], found[:, :64]]))
    plain = relpt.HybridEncoder(a, b, scale=False).encode(data, inputs="OnlyC")
    np.testing.assert_array_equal(plain, np.hstack([left, right]))
    assert not np.allclose(np.linalg.norm(right, axis=1), 1, atol=0.1)  # else scaling showed nothing
    assert "80" in repr(hybrid)


def test_weights_multiply_the_parts(a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset) -> None:
    vectors = relpt.HybridEncoder(a, b, weights=(2, 0.5)).encode(data)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :64], axis=1), 2, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 64:], axis=1), 0.5, atol=1e-5)


def test_three_parts_and_hybrids_of_hybrids(a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset) -> None:
    inner = relpt.HybridEncoder(a, b)
    three = relpt.HybridEncoder(a, b, b).encode(data)
    nested = relpt.HybridEncoder(inner, b).encode(data)
    np.testing.assert_allclose(nested[:, :80], three[:, :80] / np.sqrt(2), atol=1e-6)
    np.testing.assert_array_equal(nested[:, 80:], three[:, 80:])


def test_one_sentence_and_normalized(a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset) -> None:
    hybrid = relpt.HybridEncoder(a, b, weights=(3, 1))
    whole = hybrid.encode(data)
    for one in (data[2], tiny_dataset()[2]):
        assert hybrid.encode(one).shape == (80,)
        np.testing.assert_allclose(hybrid.encode(one), whole[2], atol=1e-5)
    np.testing.assert_allclose(hybrid.encode(data, normalize_embeddings=True), unit(whole), atol=1e-6)


def test_options_reach_every_part(a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset) -> None:
    found = relpt.HybridEncoder(a, b).encode(data, max_length=16, dtype="int8", inputs="OnlyM")
    parts = [unit(encoder.encode(data, max_length=16, dtype="int8", inputs="OnlyM")) for encoder in (a, b)]
    np.testing.assert_allclose(found, np.hstack(parts), atol=1e-6)


def test_few_shot_scores_the_joined_vectors(
    a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset, table: relpt.EntityTable
) -> None:
    task = relpt.FewShot(n_way=3, k_shot=2, episodes=200)
    labels = np.array([data.labels.index(str(i.relation)) for i in data])
    for hybrid in (relpt.HybridEncoder(a, b), relpt.HybridEncoder(table, b)):
        expected = task.score(hybrid.encode(data, inputs="OnlyC"), labels)
        found = task.evaluate(hybrid, data, inputs="OnlyC")
        np.testing.assert_array_equal(found.per_episode, expected.per_episode)
        assert found.inputs == "OnlyC"
    np.testing.assert_array_equal(
        task.evaluate(a, tiny_dataset()).per_episode, task.evaluate(a, data.tokenize(a)).per_episode
    )


def test_a_corpus_serves_the_encoders_of_its_tokenizer_alone(
    folders: tuple[Path, Path], a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset
) -> None:
    same = relpt.Encoder.from_pretrained(folders[0], representation="mean", num_threads=1)
    alike = relpt.HybridEncoder(a, same)
    np.testing.assert_array_equal(alike.encode(data.tokenize(a)), alike.encode(data))
    for corpus in (data.tokenize(a, max_length=128), data.tokenize(b, max_length=128)):
        with pytest.raises(ValueError, match=r"cannot serve all parts of the hybrid .* give the data untokenized"):
            relpt.HybridEncoder(a, b).encode(corpus)


def test_what_is_no_hybrid(a: relpt.Encoder, b: relpt.Encoder) -> None:
    with pytest.raises(ValueError, match="two encoders or more, got 1"):
        relpt.HybridEncoder(a)
    with pytest.raises(TypeError, match="cannot join a str; expected Encoder, CNNEncoder, EntityTable, HybridEncoder"):
        relpt.HybridEncoder(a, "minilm")  # type: ignore[arg-type]
    for weights in ((1,), (1, 0), (1, -1), (1, float("nan")), (1, float("inf"))):
        with pytest.raises(ValueError, match="expected 2 numbers above 0"):
            relpt.HybridEncoder(a, b, weights=weights)


def test_saved_and_opened_again(
    folders: tuple[Path, Path], a: relpt.Encoder, data: relpt.Dataset, table: relpt.EntityTable, tmp_path: Path
) -> None:
    """Encoder, table and nested hybrid, with representation, projection and dtype of the parts."""
    fitted = relpt.Encoder.from_pretrained(folders[1], representation="mean", num_threads=1).fit_projection(data)
    rounded = relpt.Encoder.from_pretrained(folders[0], representation="cls", dtype="bfloat16", num_threads=1)
    hybrid = relpt.HybridEncoder(relpt.HybridEncoder(a, table), fitted, rounded, weights=(1, 0.25, 3), scale=False)
    again = relpt.HybridEncoder.from_pretrained(hybrid.save_pretrained(tmp_path / "hybrid"), num_threads=1)
    assert again.encode(data).tobytes() == hybrid.encode(data).tobytes()
    assert again.get_params() == hybrid.get_params() == {"weights": (1, 0.25, 3), "scale": False}
    relpt.HybridEncoder(a, fitted).save_pretrained(tmp_path / "hybrid")  # over the one that is there
    assert sorted(path.name for path in (tmp_path / "hybrid").iterdir()) == ["0", "1", "hybrid.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["hybrid"]


def test_a_failed_save_leaves_what_was_there(
    a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid = relpt.HybridEncoder(a, b)
    folder = hybrid.save_pretrained(tmp_path / "hybrid")
    before = hybrid.encode(data)

    def full(*args: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(b, "save_pretrained", full)
        with pytest.raises(OSError, match="disk full"):
            relpt.HybridEncoder(b, a).save_pretrained(folder)
    np.testing.assert_array_equal(relpt.HybridEncoder.from_pretrained(folder).encode(data), before)
    assert [path.name for path in tmp_path.iterdir()] == ["hybrid"]


def test_folders_that_are_no_hybrid(
    a: relpt.Encoder, b: relpt.Encoder, table: relpt.EntityTable, tmp_path: Path
) -> None:
    hybrid = relpt.HybridEncoder(a, b)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    for save in (hybrid.save_pretrained, table.save):
        with pytest.raises(FileExistsError, match="give another path"):
            save(tmp_path / "notes")
    with pytest.raises(FileNotFoundError, match=r"has no hybrid\.json"):
        relpt.HybridEncoder.from_pretrained(tmp_path / "notes")
    (tmp_path / "notes" / "entities.json").write_text("[]")  # as a corpus has one
    with pytest.raises(FileExistsError, match=r"holds mine\.txt, which would be lost"):
        table.save(tmp_path / "notes")
    (tmp_path / "notes" / "mine.txt").unlink()
    with pytest.raises(FileExistsError, match=r"holds another entities\.json, which would be lost"):
        table.save(tmp_path / "notes")
    folder = hybrid.save_pretrained(tmp_path / "hybrid")
    with pytest.raises(FileExistsError, match=r"holds a hybrid\.json"):
        a.save_pretrained(folder)
    card = json.loads((folder / "hybrid.json").read_text())
    for change, match in (({"weights": None}, "'weights' is missing"), ({"encoders": [{"kind": "X"}]}, "kind is none")):
        (folder / "hybrid.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(relpt.FormatError, match=rf"hybrid\.json: .*{match}"):
            relpt.HybridEncoder.from_pretrained(folder)


# -- a table of entities ----------------------------------------------------------------------------------------------


def test_averages_are_those_of_a_plain_loop(a: relpt.Encoder, data: relpt.Dataset) -> None:
    vectors, sums, counts = a.encode(data, inputs="C+T").astype(float), {}, {}
    for instance, vector in zip(data, vectors, strict=True):
        for name, half in ((instance.head_name, vector[:32]), (instance.tail_name, vector[32:])):
            sums[name], counts[name] = sums.get(name, 0) + half, counts.get(name, 0) + 1
    assert max(counts.values()) > 1
    table = relpt.EntityTable.from_corpus(a, data, inputs="C+T")
    expected = [np.concatenate([sums[n] / counts[n] for n in (i.head_name, i.tail_name)]) for i in data]
    found = table.encode(data)
    assert found.dtype == np.float32
    assert table.dim == 64
    assert len(table) == len(counts)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(table.encode(data, inputs="OnlyC"), found)
    np.testing.assert_array_equal(table.encode(data[3]), found[3])
    np.testing.assert_allclose(table.encode(data, normalize_embeddings=True), unit(found), atol=1e-6)


def test_ids_come_before_names(a: relpt.Encoder) -> None:
    """Two entities of one name are apart; a name alone is found where it is one entity's."""
    records = [
        sentence(("Anna", "Q1"), ("Dover", "Q2")),
        sentence(("Anna", "Q3"), ("DOVER", None)),  # Q2, the only id of that name
        sentence((None, "Q1"), ("Peter", None)),
    ]
    table = relpt.EntityTable.from_corpus(a, records)
    vectors = a.encode(records)
    rows = {key: table.encode(sentence(key, ("Peter", None)))[:32] for key in [("Anna", "Q1"), ("x", "Q3")]}
    np.testing.assert_allclose(rows["Anna", "Q1"], (vectors[0, :32] + vectors[2, :32]) / 2, atol=1e-6)
    np.testing.assert_allclose(rows["x", "Q3"], vectors[1, :32], atol=1e-6)
    found = table.encode([sentence((" dover", None), ("Dover", "Q2")), sentence(("Peter", "Q9"), ("Peter", None))])
    np.testing.assert_array_equal(found[:, :32], found[:, 32:])
    np.testing.assert_allclose(found[0, :32], (vectors[0, 32:] + vectors[1, 32:]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[1, :32], vectors[2, 32:], atol=1e-6)
    with pytest.warns(UserWarning, match="^2 of 2 mentions"):  # Anna is two entities, and Q8 none of the Dovers
        assert not table.encode(sentence(("Anna", None), ("Dover", "Q8"))).any()


def test_missing_entities_are_counted_once(table: relpt.EntityTable, b: relpt.Encoder) -> None:
    known = next(iter(table.names)).capitalize()
    records = [sentence(("Zed", None), (known, None)), sentence(("Zed", None), (None, None))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = table.encode(records)
    assert [str(w.message) for w in caught] == [
        "3 of 4 mentions are of entities that the table lacks, such as 'Zed' (2), 'unnamed' (1): they get zeros"
    ]
    assert caught[0].filename == __file__
    assert [bool(half.any()) for half in vectors.reshape(4, 32)] == [False, True, False, False]
    with pytest.warns(UserWarning, match="3 of 4 mentions"):
        joined = relpt.HybridEncoder(table, b).encode(records)
    assert np.isfinite(joined).all()
    assert not joined[1, :64].any()


def test_nameless_mentions_are_left_out_and_counted(a: relpt.Encoder) -> None:
    records = [sentence(("Anna", None), (None, None)), sentence((None, None), ("Peter", None))]
    with pytest.warns(UserWarning, match="^2 of 4 mentions have neither id nor name and are left out"):
        table = relpt.EntityTable.from_corpus(a, records)
    assert set(table.names) == {"anna", "peter"}
    np.testing.assert_allclose(table.vectors[table.names["peter"]], a.encode(records)[1, 32:], atol=1e-6)


def test_what_a_table_cannot_be_made_of(
    folders: tuple[Path, Path], a: relpt.Encoder, b: relpt.Encoder, data: relpt.Dataset, table: relpt.EntityTable
) -> None:
    both = relpt.Encoder.from_pretrained(folders[0], representation="entity_start+mean")
    for encoder in (b, both):
        with pytest.raises(ValueError, match="open it with representation='entity_start'"):
            relpt.EntityTable.from_corpus(encoder, data)
    fitted = relpt.Encoder.from_pretrained(folders[0]).fit_projection(data)
    with pytest.raises(ValueError, match="has a projection"):
        relpt.EntityTable.from_corpus(fitted, data)
    nameless = [sentence((None, None), (None, None))]
    for refused in (lambda x: relpt.EntityTable.from_corpus(a, x), table.encode):
        with pytest.raises(ValueError, match="no entity has an id or a name"):
            refused(nameless)
        with pytest.raises(ValueError, match="give the Dataset that it was made of"):
            refused(data.tokenize(a))
    with pytest.raises(ValueError, match="holds no sentences"):
        relpt.EntityTable.from_corpus(a, relpt.Dataset([]))
    assert table.encode(relpt.Dataset([])).shape == (0, 64)
    with pytest.raises(ValueError, match="cannot serve all parts"):
        relpt.HybridEncoder(a, table).encode(data.tokenize(a))
    with pytest.raises(ValueError, match="OnlyX"):
        table.encode(data, inputs="OnlyX")


def test_a_table_saved_and_opened_again(a: relpt.Encoder, tmp_path: Path) -> None:
    records = [sentence(("Anna", "Q1"), ("Dover", "Q2")), sentence(("Anna", "Q3"), ("Peter", None))]
    table = relpt.EntityTable.from_corpus(a, records, inputs="CM")
    again = relpt.EntityTable.open(table.save(tmp_path / "table"))
    assert again.encode(records).tobytes() == table.encode(records).tobytes()
    assert (again.ids, again.names, again.card) == (table.ids, table.names, table.card)
    assert again.card["inputs"] == "C+M"
    assert "4 entities (3 by id)" in repr(again)
    assert repr(again) == repr(table)
    with pytest.raises(FileNotFoundError, match=r"has no entities\.json"):
        relpt.EntityTable.open(tmp_path)


def test_damaged_tables_are_named(table: relpt.EntityTable, tmp_path: Path) -> None:
    source = table.save(tmp_path / "table")
    card = json.loads((source / "entities.json").read_text())
    for number, (change, match) in enumerate(
        (
            ({"names": []}, "'names' is missing or no dict"),
            ({"names": {**card["names"], "more": len(table)}}, "does not hold the rows"),
            ({"ids": {"Q1": 1}}, "ids are not the first rows"),
        )
    ):
        copy = Path(shutil.copytree(source, tmp_path / str(number)))
        (copy / "entities.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(relpt.FormatError, match=match):
            relpt.EntityTable.open(copy)
    (source / "entities.safetensors").unlink()
    with pytest.raises(relpt.FormatError, match=r"there is no entities\.safetensors"):
        relpt.EntityTable.open(source)
