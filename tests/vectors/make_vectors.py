"""Writes vectors.npz: what PyTorch and transformers compute, for tests/test_vectors.py, which needs neither.

Run it in the environment of `make test-oracle`, from the folder tests:

    ../.venv-oracle/bin/python -m vectors.make_vectors

The weights come from a generator (oracle/tiny_bert.py) and are not stored.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from oracle import tiny_bert

import relpt
from relpt import _core

FILE = Path(__file__).parent / "vectors.npz"
STEPS = 5  # of the trajectory

BASE: dict[str, Any] = {
    **tiny_bert.PINNED,
    "temperature": 0.1,
    "p_blank": 0.5,
    "input_mix": {"C+M": 2, "C+T": 1, "OnlyC": 1},
    "cp_weight": 1.0,
    "mlm_probability": 0.2,
    "pairs_per_step": 6,
    "micro_batch_pairs": 6,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "max_grad_norm": 2.0,
    "warmup_steps": 2,
    "schedule": "linear",
    "max_length": 32,
    "max_steps": 8,
    "seed": 7,
    "prefetch": False,
}
CASES: dict[str, dict[str, Any]] = {
    "base": {},
    "equation 2": {"similarity": "dot", "temperature": 1.0, "symmetric": False, "mask_same_relation": False},
    "supervised": {"positives": "relation", "representation": "cls+mean", "micro_batch_pairs": 4},
}
CHOSEN = (
    "embeddings.word_embeddings.weight",
    "embeddings.LayerNorm.weight",
    "encoder.layer.0.attention.self.query.weight",
    "encoder.layer.0.attention.self.value.bias",
    "encoder.layer.1.attention.output.dense.weight",
    "encoder.layer.1.intermediate.dense.bias",
    "encoder.layer.1.output.LayerNorm.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.bias",
)


def parts(case: str, folder: Path) -> tuple[relpt.Encoder, relpt.CPTrainer, Any, Any]:
    """Encoder, CPTrainer, and the core's sampler and trainer of a case."""
    options = {**BASE, **CASES[case]}
    encoder = tiny_bert.encoder(folder, representation=options.pop("representation", "entity_start"))
    trainer = relpt.CPTrainer(encoder, **options)
    sampler = trainer._sampler(tiny_bert.dataset().tokenize(encoder, max_length=options["max_length"]))
    return encoder, trainer, sampler, _core.Trainer(**trainer._core_options(options["micro_batch_pairs"]))


def parameters_of(case: str, encoder: relpt.Encoder) -> list[str]:
    """The parameters whose gradients are stored: all of the first case, some of the others."""
    return [name for name, _ in encoder._model.parameters()] if case == "base" else list(CHOSEN)


def made(case: str, folder: Path) -> dict[str, Any]:
    """The arrays of a case."""
    from oracle import torch_model

    encoder, trainer, sampler, _ = parts(case, folder)
    model = torch_model.TorchModel(encoder)
    torch_trainer = torch_model.TorchTrainer(model, trainer.options, trainer._warmup())
    batch = sampler.batch(0)
    arrays: dict[str, Any] = {name: batch[name] for name in ("ids", "cu_seqlens", "head", "tail", "relation")}
    arrays |= {name: batch[name] for name in ("mlm_row", "mlm_label")}
    with torch_model.torch.no_grad():
        arrays["hidden"] = model.hidden(batch).numpy().astype(np.float32)
    stats = torch_trainer.gradients(batch)
    arrays["losses"] = np.array([stats[name] for name in ("loss", "loss_cp", "loss_mlm", "accuracy")])
    gradients = {name: value.grad for name, value in model.parameters().items() if value.grad is not None}
    for name in parameters_of(case, encoder):
        arrays[f"gradient {name}"] = gradients[name].numpy().astype(np.float32)
    steps = [torch_trainer.step(sampler.batch(step), step) for step in range(STEPS)]
    arrays["trajectory"] = np.array([[s[name] for name in ("loss", "grad_norm", "lr")] for s in steps])
    for name in CHOSEN[1:]:
        arrays[f"after {name}"] = model.parameters()[name].detach().numpy().astype(np.float32)
    return arrays


def main() -> None:
    """Writes the file."""
    arrays = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            arrays.update({f"{case}: {name}": array for name, array in made(case, Path(folder)).items()})
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
