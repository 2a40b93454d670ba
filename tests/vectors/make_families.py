"""Writes <model type>.npz: what transformers computes of BERT's relatives, for tests/test_families.py.

Run it in the environment of `make test-oracle`, from the folder tests:

    ../.venv-oracle/bin/python -m vectors.make_families

The weights come from a generator (oracle/tiny_bert.py) and are not stored; their names and shapes, as transformers has
them, are.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from oracle import tiny_bert, tiny_family

import relpt
from relpt import _core

FOLDER = Path(__file__).parent
BATCH = ("ids", "cu_seqlens", "head", "tail", "relation", "mlm_row", "mlm_label")
LOSSES = ("loss", "loss_cp", "loss_mlm")
OPTIONS: dict[str, Any] = {
    **tiny_bert.PINNED,
    "temperature": 0.2,
    "p_blank": 0.5,
    "input_mix": None,
    "mlm_probability": 0.3,
    "pairs_per_step": 3,
    "micro_batch_pairs": 3,
    "max_length": 24,
    "max_steps": 4,
    "seed": 7,
    "prefetch": False,
}


def parts(kind: str, shapes: dict[str, tuple[int, ...]], folder: Path) -> tuple[relpt.Encoder, relpt.CPTrainer, Any]:
    """Encoder, CPTrainer and the core's sampler."""
    encoder = tiny_family.open_encoder(folder, tiny_family.config_of(kind), shapes, representation="entity_start")
    trainer = relpt.CPTrainer(encoder, **OPTIONS)
    sampler = trainer._sampler(tiny_bert.dataset().tokenize(encoder, max_length=OPTIONS["max_length"]))
    return encoder, trainer, sampler


def core_of(trainer: relpt.CPTrainer) -> Any:
    """The core's trainer."""
    return _core.Trainer(**trainer._core_options(OPTIONS["micro_batch_pairs"]))


def made(kind: str, folder: Path) -> dict[str, Any]:
    """The arrays of a model type."""
    from oracle import torch_model

    shapes = torch_model.shapes_of(tiny_family.config_of(kind))
    encoder, trainer, sampler = parts(kind, shapes, folder)
    model = torch_model.TorchModel(encoder)
    batch = sampler.batch(0)
    arrays: dict[str, Any] = {"shapes": np.array(json.dumps(shapes)), **{name: batch[name] for name in BATCH}}
    with torch_model.torch.no_grad():
        arrays["hidden"] = model.hidden(batch).numpy().astype(np.float32)
    stats = torch_model.TorchTrainer(model, trainer.options, trainer._warmup()).gradients(batch)
    arrays["losses"] = np.array([stats[name] for name in LOSSES])
    for name, parameter in model.model.named_parameters():
        arrays[f"gradient {name}"] = parameter.grad.numpy().astype(np.float32)
    return arrays


def main() -> None:
    """Writes the files."""
    for kind in tiny_family.CONFIGS:
        file = FOLDER / f"{kind}.npz"
        with tempfile.TemporaryDirectory() as folder:
            arrays = made(kind, Path(folder))
        np.savez_compressed(file, **arrays)
        print(f"{file}: {len(arrays)} arrays, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
