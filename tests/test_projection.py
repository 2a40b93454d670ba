"""The projection of relation vectors: its mathematics by NumPy, what it does to relations, its life in an encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core
from relpt.projection import sentences_to_fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


@pytest.fixture
def fitted(folder: Path, data: relpt.Dataset) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, num_threads=2).fit_projection(data)


def labelled(n: int, dim: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    noise = rng.normal(size=(n, dim)) * rng.uniform(0.2, 3, dim)  # some directions vary more than others
    return (rng.normal(size=(classes, dim))[labels] + noise + 1).astype(np.float32), labels


def within(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Covariance about the means of the classes."""
    means = np.array([vectors[labels == k].mean(0) if (labels == k).any() else 0 * vectors[0] for k in range(9)])
    rest = vectors - means[labels]
    return rest.T @ rest / len(rest)


# -- the core ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.01, 1.0, 20.0])
@pytest.mark.parametrize(("n", "dim"), [(200, 24), (40, 65)])
def test_the_map_is_the_inverse_root_of_the_shrunk_covariance(n: int, dim: int, shrinkage: float) -> None:
    vectors, labels = labelled(n, dim, 5)
    weight, bias = _core.fit_projection(vectors, labels, 5, shrinkage)
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    covariance = within(unit, labels)
    spread = np.trace(covariance) / dim
    expected = np.linalg.inv(covariance + shrinkage * spread * np.eye(dim)) * spread * (1 + shrinkage)
    np.testing.assert_allclose(weight.astype(float).T @ weight, expected, rtol=0, atol=2e-6 * abs(expected).max())
    np.testing.assert_allclose(weight @ unit.mean(0), -bias, atol=2e-6 * abs(weight).max())
    assert not np.triu(weight, 1).any()


def test_the_projections_are_those_of_the_directions() -> None:
    vectors, labels = labelled(150, 40, 6)
    weight, bias = _core.fit_projection(vectors, labels, 6, 5.0)
    projected = _core.project(vectors, weight, bias, 1)
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    np.testing.assert_allclose(projected, unit @ weight.astype(float).T + bias, atol=1e-6)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(_core.project(vectors * np.float32(7), weight, bias, 1), projected, atol=1e-6)


def test_little_shrinkage_makes_what_varies_inside_relations_even() -> None:
    vectors, labels = labelled(4000, 12, 4)
    weight, bias = _core.fit_projection(vectors, labels, 4, 1e-6)
    before = np.linalg.eigvalsh(within(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels))
    after = np.linalg.eigvalsh(within(_core.project(vectors, weight, bias, 1), labels))
    assert before[-1] / before[0] > 10
    np.testing.assert_allclose(after / after.mean(), 1, atol=1e-3)


def test_classes_never_seen_are_told_apart_better() -> None:
    """Where some directions are noise in all classes, what was fitted to some helps with others."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(40, dtype=np.int32), 30)
    noise = rng.normal(size=(1200, 30)) * np.where(np.arange(30) < 10, 4.0, 0.5)
    vectors = (rng.normal(size=(40, 30))[labels] + noise + 2).astype(np.float32)
    seen, rest = labels < 20, labels >= 20
    weight, bias = _core.fit_projection(vectors[seen], labels[seen], 20, 0.1)

    def accuracy(found: np.ndarray) -> float:
        return float(_core.fewshot_score(found, labels[rest] - 20, 20, 5, 1, 1, 1000, 1, 42, 1).mean())

    projected = _core.project(vectors[rest], weight, bias, 1)
    assert accuracy(projected) > accuracy(vectors[rest]) + 0.1


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_row_depends_on_nothing_else(threads: int) -> None:
    vectors, labels = labelled(200, 96, 5)
    weight, bias = _core.fit_projection(vectors, labels, 5, 20.0)
    whole = _core.project(vectors, weight, bias, 1)
    for part in (slice(0, 1), slice(3, 70), slice(190, 200)):
        assert _core.project(vectors[part].copy(), weight, bias, threads).tobytes() == whole[part].tobytes()


def test_a_row_of_many_numbers_depends_on_nothing_else() -> None:
    """Also where the sums are cut in two."""
    rng = np.random.default_rng(0)
    weight, bias, vectors = (rng.normal(size=s).astype(np.float32) for s in ((1100, 1100), (1100,), (1200, 1100)))
    whole = _core.project(vectors, weight, bias, 2)
    for part in (slice(0, 1), slice(1000, 1100)):
        assert _core.project(vectors[part].copy(), weight, bias, 1).tobytes() == whole[part].tobytes()


def test_what_cannot_be_fitted() -> None:
    vectors, labels = labelled(20, 6, 3)
    for shrinkage in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="shrinkage"):
            _core.fit_projection(vectors, labels, 3, shrinkage)
    with pytest.raises(ValueError, match="label 0 is"):
        _core.fit_projection(vectors, labels + 3, 3, 1.0)
    with pytest.raises(ValueError, match="do not vary"):
        _core.fit_projection(np.ones((4, 6), np.float32), np.zeros(4, np.int32), 1, 1.0)
    with pytest.raises(ValueError, match="expected some"):
        _core.fit_projection(vectors[:0], labels[:0], 3, 1.0)
    weight, bias = _core.fit_projection(vectors, labels, 3, 1.0)
    with pytest.raises(ValueError, match="weight"):
        _core.project(vectors[:, :5].copy(), weight, bias, 1)


# -- the encoder ------------------------------------------------------------------------------------------------------


def test_sentences_are_spread_over_each_relation() -> None:
    relation = np.array([0] * 10 + [1] + [-1] * 3 + [2] * 3)
    assert sentences_to_fit(relation, 4).tolist() == [0, 2, 5, 7, 14, 15, 16]
    assert sentences_to_fit(relation[10:14], 4).tolist() == []


def test_encode_projects_the_plain_vectors(folder: Path, fitted: relpt.Encoder, data: relpt.Dataset) -> None:
    plain = relpt.Encoder.from_pretrained(folder, num_threads=2).encode(data)
    assert fitted.projection is not None
    expected = _core.project(plain, fitted.projection.weight, fitted.projection.bias, 1)
    np.testing.assert_array_equal(fitted.encode(data), expected)
    assert not np.allclose(expected, plain)
    np.testing.assert_allclose(np.linalg.norm(fitted.encode(data, normalize_embeddings=True), axis=1), 1, atol=1e-6)
    fitted.projection = None
    np.testing.assert_array_equal(fitted.encode(data), plain)


def test_fitting_again_starts_from_the_plain_vectors(fitted: relpt.Encoder, data: relpt.Dataset) -> None:
    first = fitted.projection
    assert first is not None
    again = fitted.fit_projection(data).projection
    assert again is not None
    np.testing.assert_array_equal(first.weight, again.weight)
    np.testing.assert_array_equal(first.bias, again.bias)


def test_saved_and_opened_again(fitted: relpt.Encoder, data: relpt.Dataset, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    again = relpt.Encoder.from_pretrained(tmp_path, num_threads=1)
    np.testing.assert_array_equal(again.encode(data), fitted.encode(data))
    card = {"inputs": ["C+M", "OnlyC"], "sentences": 32, "shrinkage": 20.0}
    assert json.loads((tmp_path / "relpt.json").read_text())["projection"] == card
    named = relpt.Encoder.from_pretrained(tmp_path, representation="entity_start")
    assert named.projection is None
    fitted.projection = None
    fitted.save_pretrained(tmp_path)  # over the files of the one with a projection
    np.testing.assert_array_equal(relpt.Encoder.from_pretrained(tmp_path).encode(data), named.encode(data))


def test_damaged_files_are_named(fitted: relpt.Encoder, tmp_path: Path) -> None:
    source = fitted.save_pretrained(tmp_path / "saved")
    tensors = load_file(source / "projection.safetensors")
    for name, change, word in (
        ("missing", {"weight": tensors["weight"]}, "bias is missing"),
        ("shape", {**tensors, "bias": tensors["bias"][1:]}, "bias has shape"),
    ):
        copy = Path(shutil.copytree(source, tmp_path / name))
        save_file(change, copy / "projection.safetensors")
        with pytest.raises(relpt.FormatError, match=rf"projection.safetensors: tensor {word}"):
            relpt.Encoder.from_pretrained(copy)
    (copy / "projection.safetensors").unlink()
    with pytest.raises(relpt.FormatError, match=r"there is no projection\.safetensors"):
        relpt.Encoder.from_pretrained(copy)


def test_training_drops_it(fitted: relpt.Encoder, data: relpt.Dataset) -> None:
    relpt.CPTrainer(fitted, pairs_per_step=4, max_steps=1, learning_rate=1e-3).fit(data)
    assert fitted.projection is None


def test_options_out_of_range(folder: Path, data: relpt.Dataset) -> None:
    encoder = relpt.Encoder.from_pretrained(folder)
    with pytest.raises(ValueError, match="sentences is 1"):
        encoder.fit_projection(data, sentences=1)
    for inputs in ((), [], "C+M"):
        with pytest.raises(ValueError, match="expected a list of input settings"):
            encoder.fit_projection(data, inputs=inputs)
    with pytest.raises(ValueError, match="shrinkage is 0"):
        encoder.fit_projection(data, shrinkage=0)
    with pytest.raises(ValueError, match="OnlyX"):
        encoder.fit_projection(data, inputs=["OnlyX"])
    with pytest.raises(ValueError, match="no relation has two sentences"):
        encoder.fit_projection(data[:1])
    assert encoder.projection is None
