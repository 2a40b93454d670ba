"""Whole models on the CUDA back end against the CPU: vectors, steps of training, what is saved."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from gpu import backends, emulated

STEPS = {"cuda": 50, emulated.NAME: 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))  # with dropout of 0.1


@pytest.fixture(params=backends.NAMES)
def backend(request, monkeypatch):
    """The back end's name; device "cuda" means it."""
    return backends.stand_for_cuda(request.param, monkeypatch)


def encoder(folder, device, dtype="float32"):
    return relpt.Encoder.from_pretrained(folder, device=device, dtype=dtype, num_threads=2)


def fit(folder, device, steps, dtype="float32", **options):
    trained = encoder(folder, device, dtype)
    trainer = relpt.CPTrainer(trained, pairs_per_step=8, max_steps=steps, learning_rate=1e-3, max_length=32, **options)
    history = trainer.fit(relpt.load(tiny_dataset(8)).tokenize(trained, max_length=32), show_progress_bar=False)
    return trained, history.records


@pytest.mark.parametrize(
    ("dtype", "most", "representation"),
    [
        ("float32", 1e-5, "entity_start"),
        ("float32", 1e-5, "cls"),
        ("float32", 1e-5, "mention_mean"),
        ("float32", 1e-5, "mean"),
        ("tf32", 5e-3, "entity_start"),
        ("bfloat16", 4e-2, "entity_start"),
    ],
)
def test_vectors(folder, backend, dtype, most, representation):
    """All at once, and one by one: few tokens are filled up to a multiple, and are the same tokens then."""
    data = relpt.load(tiny_dataset())
    want, got = (
        relpt.Encoder.from_pretrained(folder, device=device, dtype=kind, representation=representation)
        for device, kind in (("cpu", "float32"), ("cuda", dtype))
    )
    want = want.encode(data, inputs="C+M", show_progress_bar=False)
    all_at_once = got.encode(data, inputs="C+M", show_progress_bar=False)
    one_by_one = np.concatenate([got.encode(data[[i]], show_progress_bar=False) for i in range(3)])
    assert np.abs(all_at_once - want).max() <= most * np.abs(want).max()
    assert np.abs(one_by_one - want[:3]).max() <= most * np.abs(want).max()


def test_training_follows_the_cpu(folder, backend):
    """The same batches, dropout masks and updates: only rounding differs."""
    steps = STEPS[backend]
    _, want = fit(folder, "cpu", steps)
    _, got = fit(folder, "cuda", steps)
    for name in ("loss", "loss_cp", "loss_mlm", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in got], [r[name] for r in want], rtol=1e-4, err_msg=name)
    assert [r["masked"] for r in got] == [r["masked"] for r in want]


def test_parts_of_a_step_give_the_whole_steps_loss(folder, backend):
    _, whole = fit(folder, "cuda", 2)
    _, parts = fit(folder, "cuda", 2, micro_batch_pairs=3)
    np.testing.assert_allclose([r["loss"] for r in parts], [r["loss"] for r in whole], rtol=1e-4)


def test_two_runs_give_the_same_bytes(folder, backend):
    steps = min(STEPS[backend], 5)
    first, second = (fit(folder, "cuda", steps, "bfloat16")[0] for _ in range(2))
    for name, _ in first._model.parameters():
        assert first._model.get(name).tobytes() == second._model.get(name).tobytes(), name


def test_tf32_follows_float32(folder, backend):
    """And is not the same: the sums of losses differ."""
    losses = {dtype: [r["loss"] for r in fit(folder, "cuda", 3, dtype)[1]] for dtype in ("float32", "tf32")}
    np.testing.assert_allclose(losses["tf32"], losses["float32"], rtol=1e-3)
    assert losses["tf32"] != losses["float32"]


def test_bfloat16_follows_the_cpus(folder, backend):
    steps = STEPS[backend]
    want, got = ([r["loss"] for r in fit(folder, device, steps, "bfloat16")[1]] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(got, want, rtol=2e-3)


def test_what_is_saved_opens_on_the_cpu(folder, backend, tmp_path):
    trained, _ = fit(folder, "cuda", 1)
    trained.save_pretrained(tmp_path / "saved")
    again = relpt.Encoder.from_pretrained(tmp_path / "saved")
    for name, _ in trained._model.parameters():
        assert np.array_equal(trained._model.get(name), again._model.get(name)), name
