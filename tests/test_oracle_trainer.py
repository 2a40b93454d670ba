"""Losses, gradients and training against PyTorch: autograd in float64 over transformers' BertForMaskedLM."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert

import relpt
from relpt import _core
from relpt.weights import CONFIG

pytestmark = pytest.mark.oracle

BASE: dict[str, Any] = {
    **tiny_bert.PINNED,
    "temperature": 0.05,
    "p_blank": 0.7,
    "input_mix": None,
    "mlm_probability": 0.15,
    "pairs_per_step": 8,
    "max_length": 32,
    "max_steps": 50,
    "prefetch": False,
}
# Each changes something that the others leave alone.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "defaults": {"preset": None},
    "paper": {"preset": "paper"},
    "released code": {"preset": "released-code"},
    "one side, masked, cosine": {"symmetric": False, "temperature": 0.3},
    "dot, symmetric, masked": {"similarity": "dot", "temperature": 7.0},
    "supervised": {"positives": "relation", "temperature": 0.2},
    "supervised, one side, dot": {"positives": "relation", "symmetric": False, "similarity": "dot", "temperature": 5.0},
    "cls+mean": {"representation": "cls+mean"},
    "all parts": {"representation": "mean+entity_start+cls", "temperature": 0.5},
    "mask": {"representation": "mask", "form": {"prompt": "relation"}},
    "mention_mean": {"representation": "mention_mean"},
    "mask, micro-batches": {"representation": "entity_start+mask", "temperature": 0.3, "micro_batch_pairs": 3},
    "every setting, prompt and typed markers": {
        "input_mix": {"C+M": 1, "C+T": 1, "OnlyC": 1, "OnlyM": 1, "OnlyT": 1},
        "representation": "cls+mask+mean+mention_mean+entity_start",
        "form": {"prompt": "{tail} w3 [MASK] {head}", "markers": "typed", "types": tiny_bert.TYPES},
        "temperature": 0.5,
    },
    "order of the text": {"form": {"marker_order": "text"}},
    "weights of the losses": {"cp_weight": 0.3, "mlm_weight": 2.0},
    "no masked words": {"mlm_weight": 0.0},
    "masked words alone": {"cp_weight": 0.0},
    "every setting": {"input_mix": {"C+M": 1, "C+T": 1, "OnlyC": 1, "OnlyM": 1, "OnlyT": 1}, "max_length": 16},
    "odd sizes": {"hidden_size": 39, "num_attention_heads": 3, "intermediate_size": 53, "num_hidden_layers": 3},
    "micro-batches": {"micro_batch_pairs": 3},
    "mentions, micro-batches": {"representation": "mention_mean+mean", "micro_batch_pairs": 3, "temperature": 0.3},
}
OF_THE_MODEL = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")


@pytest.fixture(scope="module")
def oracle() -> Any:
    for name in ("torch", "transformers"):
        pytest.importorskip(name)
    from oracle import torch_model

    torch_model.torch.set_num_threads(2)
    return torch_model


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Windows are part of the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relpt.TruncationWarning)
        yield


def set_up(folder: Path, options: dict[str, Any]) -> tuple[relpt.Encoder, relpt.CPTrainer, Any, Any]:
    """Encoder, CPTrainer, and the core's sampler and trainer."""
    kept = ("pairs_per_step", "max_length", "max_steps", "prefetch") if "preset" in options else BASE
    options = {**{name: BASE[name] for name in kept}, **options}
    changes = {name: options.pop(name) for name in OF_THE_MODEL if name in options}
    changes |= {name: options.pop(name) for name in ("representation", "form") if name in options}
    encoder = tiny_bert.encoder(folder, **changes)
    trainer = relpt.CPTrainer(encoder, **options)
    corpus = tiny_bert.dataset().tokenize(encoder, max_length=trainer.options["max_length"])
    core = _core.Trainer(**trainer._core_options(trainer._micro_batch_pairs()))
    return encoder, trainer, trainer._sampler(corpus), core


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_gradient(oracle: Any, tmp_path: Path, name: str) -> None:
    encoder, trainer, sampler, core = set_up(tmp_path, COMBINATIONS[name])
    model = oracle.TorchModel(encoder)
    for step in (0, 7):
        stats = core.gradients(sampler, step)
        want = oracle.TorchTrainer(model, trainer.options, trainer._warmup()).gradients(sampler.batch(step))
        one_step = float(np.spacing(np.float32(want["largest_logit"])))  # float32 cannot tell logits apart below it
        for key in ("loss", "loss_cp", "loss_mlm"):
            if key == "loss_cp" and trainer.options["cp_weight"] == 0:
                continue
            assert stats[key] == pytest.approx(want[key], rel=2e-6, abs=one_step), key
        if trainer.options["cp_weight"] > 0:
            assert stats["accuracy"] == want["accuracy"]
        offenders = compare_gradients(core, model)
        assert not offenders, "\n".join(offenders)


def compare_gradients(core: Any, model: Any, tolerance: float = 1e-4) -> list[str]:
    """Lines of the parameters whose gradient is off, norm-wise relative to PyTorch's.

    The key bias has gradient 0 in exact arithmetic (softmax does not see it): rounding is allowed, 1e-7 of the norm of
    all gradients.
    """
    wanted = {}
    for name, parameter in model.parameters().items():
        wanted[name] = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
    total = np.sqrt(sum(float((value**2).sum()) for value in wanted.values()))
    offenders, worst = [], 0.0
    for name, value in wanted.items():
        off, norm = float(np.linalg.norm(core.get(0, name) - value)), float(np.linalg.norm(value))
        if not name.endswith("key.bias"):
            worst = max(worst, off / norm if norm else 0.0)
        if not off <= tolerance * norm + 1e-7 * total * name.endswith("key.bias"):
            offenders.append(f"{name}: off by {off:.3g} of {norm:.3g}")
    print(f"worst relative error of a gradient: {worst:.2e}")
    return offenders


def test_fifty_steps(oracle: Any, tmp_path: Path) -> None:
    options = {"learning_rate": 3e-3, "weight_decay": 0.1, "max_grad_norm": 1.0, "warmup_steps": 5, "temperature": 0.2}
    encoder, trainer, sampler, core = set_up(tmp_path, options)
    model = oracle.TorchModel(encoder)
    oracle_trainer = oracle.TorchTrainer(model, trainer.options, trainer._warmup())
    rows = []
    for step in range(50):
        batch = sampler.batch(step)
        want, got = oracle_trainer.step(batch, step), core.step(sampler, step)
        rows.append((got["loss"], want["loss"], got["grad_norm"], want["grad_norm"], got["lr"], want["lr"]))
    loss, loss_want, norm, norm_want, lr, lr_want = np.array(rows).T
    print(f"loss {loss[0]:.3f} -> {loss[-1]:.3f}, off by at most {np.abs(loss - loss_want).max():.2e}")
    np.testing.assert_allclose(loss, loss_want, atol=1e-3, rtol=0)
    np.testing.assert_allclose(norm, norm_want, rtol=1e-2)
    np.testing.assert_allclose(lr, lr_want, rtol=1e-6)
    assert loss[-5:].mean() < loss[:5].mean() - 1  # there was something to follow
    assert (norm > 1).any()  # and something to clip


@pytest.mark.weights
def test_gradients_at_the_size_of_minilm(oracle: Any) -> None:
    encoder = relpt.Encoder.from_pretrained("minilm", num_threads=2)
    encoder.config["hidden_dropout_prob"] = encoder.config["attention_probs_dropout_prob"] = 0.0
    model = _core.Model(**{name: encoder.config[name] for name in CONFIG})
    for name, _ in model.parameters():
        model.set(name, encoder._model.get(name))
    encoder._model = model
    trainer = relpt.CPTrainer(encoder, pairs_per_step=3, max_length=40, prefetch=False)
    sampler = trainer._sampler(relpt.load_sample().tokenize(encoder, max_length=40))
    core = _core.Trainer(**trainer._core_options(3))
    stats, reference = core.gradients(sampler, 0), oracle.TorchModel(encoder)
    want = oracle.TorchTrainer(reference, trainer.options, 0).gradients(sampler.batch(0))
    assert stats["loss"] == pytest.approx(want["loss"], rel=1e-5)
    offenders = compare_gradients(core, reference)
    assert not offenders, "\n".join(offenders)


def vectors_and_relations(oracle: Any, folder: Path, preset: str) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """The core's figures of one step under a preset, and the relation vectors and relations of its samples."""
    encoder, _, sampler, core = set_up(folder, {"preset": preset, "pairs_per_step": 6, "mlm_weight": 0.0})
    batch = sampler.batch(3)
    model = oracle.TorchModel(encoder)
    with oracle.torch.no_grad():
        vectors = model.represent(model.hidden(batch), batch).numpy()
    assert len(set(batch["relation"].tolist())) < 6  # a relation comes twice: its pairs count as negatives all the same
    return core.gradients(sampler, 3), vectors, batch["relation"]


def test_paper_preset_is_equation_2(oracle: Any, tmp_path: Path) -> None:
    """Peng et al. 2020, equation 2: -log(exp(a·b) / (exp(a·b) + sum_i exp(a·b_i))), b_i of the other pairs."""
    stats, x, _ = vectors_and_relations(oracle, tmp_path, "paper")
    first, second = x[0::2], x[1::2]
    losses = []
    for i, a in enumerate(first):
        shift = max(float(a @ b) for b in second)
        e = [np.exp(float(a @ b) - shift) for b in second]
        negatives = sum(e[j] for j in range(len(e)) if j != i)
        losses.append(-np.log(e[i] / (e[i] + negatives)))
    assert stats["loss_cp"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_released_code_preset_is_nt_xent(oracle: Any, tmp_path: Path) -> None:
    """NT-Xent (Chen et al. 2020, equation 1) of all 2N samples: cosine over 0.05, every other sample a candidate."""
    stats, x, _ = vectors_and_relations(oracle, tmp_path, "released-code")

    def s(i: int, j: int) -> float:
        return float(x[i] @ x[j] / (np.linalg.norm(x[i]) * np.linalg.norm(x[j]))) / 0.05

    def one(i: int, j: int) -> float:
        return -np.log(np.exp(s(i, j)) / sum(np.exp(s(i, k)) for k in range(len(x)) if k != i))

    losses = [one(i, i + 1) + one(i + 1, i) for i in range(0, len(x), 2)]
    assert stats["loss_cp"] == pytest.approx(sum(losses) / len(x), rel=1e-5)
