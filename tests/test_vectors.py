"""The encoder, the losses, their gradients and the optimiser against figures of PyTorch's (vectors/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vectors import make_objectives
from vectors.make_vectors import CASES, CHOSEN, FILE, STEPS, parameters_of, parts

pytestmark = pytest.mark.core
BATCH = ("ids", "cu_seqlens", "head", "tail", "relation", "mlm_row", "mlm_label")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Any]:
    """Name of a case, its arrays, and a function that makes its parts anew."""
    name, folder = request.param, tmp_path_factory.mktemp("tiny")
    with np.load(FILE) as file:
        arrays = {key.removeprefix(f"{name}: "): file[key] for key in file if key.startswith(f"{name}: ")}
    return name, arrays, lambda: parts(name, Path(folder))


def test_the_file_is_small() -> None:
    assert FILE.stat().st_size < 300_000


def test_batch(case: tuple[str, dict[str, Any], Any]) -> None:
    """Where this fails alone, the sampler draws other batches: when that is meant, make the vectors again."""
    _, arrays, make = case
    batch = make()[2].batch(0)
    for name in BATCH:
        np.testing.assert_array_equal(batch[name], arrays[name], err_msg=name)


def test_hidden_states(case: tuple[str, dict[str, Any], Any]) -> None:
    _, arrays, make = case
    hidden = make()[0].hidden_states(arrays["ids"], np.diff(arrays["cu_seqlens"]))
    assert np.abs(hidden - arrays["hidden"]).max() <= 5e-6


def test_losses_and_gradients(case: tuple[str, dict[str, Any], Any]) -> None:
    name, arrays, make = case
    encoder, _, sampler, core = make()
    stats = core.gradients(sampler, 0)
    found = [stats[key] for key in ("loss", "loss_cp", "loss_mlm", "accuracy")]
    np.testing.assert_allclose(found, arrays["losses"], rtol=2e-6)
    wanted = {key: arrays[f"gradient {key}"].astype(np.float64) for key in parameters_of(name, encoder)}
    total = np.sqrt(sum(float((value**2).sum()) for value in wanted.values()))
    for key, value in wanted.items():
        off = np.linalg.norm(core.get(0, key) - value)
        rounding = 1e-7 * total if key.endswith("key.bias") else 0  # the key bias has gradient 0 in exact arithmetic
        assert off <= 1e-4 * np.linalg.norm(value) + rounding, key


def test_trajectory(case: tuple[str, dict[str, Any], Any]) -> None:
    _, arrays, make = case
    encoder, _, sampler, core = make()
    steps = [core.step(sampler, step) for step in range(STEPS)]
    found = np.array([[stats[key] for key in ("loss", "grad_norm", "lr")] for stats in steps])
    np.testing.assert_allclose(found[:, 0], arrays["trajectory"][:, 0], atol=1e-4)
    np.testing.assert_allclose(found[:, 1:], arrays["trajectory"][:, 1:], rtol=1e-3)
    assert (found[:, 1] > 2).any()  # something was clipped
    for key in CHOSEN[1:]:
        value = encoder._model.get(key)
        assert np.abs(value - arrays[f"after {key}"]).max() <= 2e-4, key


def test_spans_boundaries_and_mentions(tmp_path: Path) -> None:
    _, trainer, sampler, core = make_objectives.parts(tmp_path)
    with np.load(make_objectives.FILE) as file:
        arrays = dict(file)
    stats, batch = core.gradients(sampler, 0), sampler.batch(0)
    for name in make_objectives.BATCH:
        np.testing.assert_array_equal(batch[name], arrays[name], err_msg=name)
    names = [f"loss_{item.name}" for item in trainer.objectives]
    np.testing.assert_allclose([stats[name] for name in names], arrays["losses"], rtol=2e-6)
    assert [stats["accuracy"], stats["accuracy_sbo"]] == pytest.approx(arrays["accuracies"].tolist())
    for name in [key.removeprefix("gradient ") for key in arrays if key.startswith("gradient ")]:
        value = arrays[f"gradient {name}"].astype(np.float64)
        assert np.linalg.norm(core.get(0, name) - value) <= 1e-4 * np.linalg.norm(value), name
