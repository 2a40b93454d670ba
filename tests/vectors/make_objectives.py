"""Writes objectives.npz: what PyTorch computes of objectives over spans, for tests/test_vectors.py.

Run it in the environment of `make test-oracle`, from the folder tests:

    ../.venv-oracle/bin/python -m vectors.make_objectives
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from objective_data import records_with_entities
from oracle import tiny_bert

import relpt
from relpt import _core
from relpt.objectives import RC, SBO, SpanMLM

FILE: Final = Path(__file__).parent / "objectives.npz"
BATCH: Final = ("ids", "relation", "head_first", "tail_end", "mlm_row", "mlm_label", "span_left", "span_right")
CHOSEN: Final = ("encoder.layer.0.attention.self.query.weight", "encoder.layer.1.output.LayerNorm.bias")


def parts(folder: Path) -> tuple[relpt.Encoder, relpt.Trainer, Any, Any]:
    """Encoder, Trainer, and the core's sampler and trainer with heads of their own values."""
    encoder = tiny_bert.encoder(folder, representation="mention_mean")
    objectives = [RC(dropout=0.0), SpanMLM(weight=0.5), SBO(weight=0.8, position_size=8)]
    options = {"sentences_per_step": 24, "p_blank": 0.2, "max_length": 32, "dropout": 0.0, "prefetch": False}
    trainer = relpt.Trainer(encoder, objectives=objectives, micro_batch_pairs=5, **options)  # type: ignore[arg-type]
    corpus = relpt.load(records_with_entities()).tokenize(encoder, max_length=32)
    core = _core.Trainer(**trainer._core_options(5, corpus.relations))
    for number, (name, shape) in enumerate(core.heads()):
        core.set(3, name, np.random.default_rng(number).normal(0, 0.3, shape).astype(np.float32))
    return encoder, trainer, trainer._sampler(corpus), core


def main() -> None:
    """Writes the file."""
    from oracle.torch_model import TorchModel, torch
    from test_oracle_objectives import torch_loss

    with tempfile.TemporaryDirectory() as folder:
        encoder, trainer, sampler, core = parts(Path(folder))
    model, batch = TorchModel(encoder), sampler.batch(0)
    heads = {name: torch.tensor(core.get(3, name)).double().requires_grad_() for name, _ in core.heads()}
    hidden = model.hidden(batch)
    judged = [
        torch_loss(torch, model, item, slice(0, 24), batch, model.represent(hidden, batch), hidden, heads)
        for item in trainer.objectives
    ]
    sum(item.weight * loss for item, (loss, _) in zip(trainer.objectives, judged, strict=True)).backward()
    arrays = {name: batch[name] for name in BATCH}
    arrays["losses"] = np.array([float(loss.detach()) for loss, _ in judged])
    arrays["accuracies"] = np.array([judged[0][1], judged[2][1]])
    for name, value in {**heads, **{name: model.parameters()[name] for name in CHOSEN}}.items():
        arrays[f"gradient {name}"] = value.grad.numpy().astype(np.float32)
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
