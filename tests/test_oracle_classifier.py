"""Fine-tuning against PyTorch: AdamW in float64 on the same batches, and the probabilities that come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert
from test_oracle_trainer import oracle  # noqa: F401 - a fixture

import relpt
from relpt import _core

pytestmark = pytest.mark.oracle

OPTIONS: dict[str, Any] = {"learning_rate": 6e-3, "batch_size": 16, "epochs": 5, "max_length": 32, "weight_decay": 0.1}


class TorchClassifier:
    """The encoder and a linear head in PyTorch, with AdamW, warm-up and linear decay, clipping."""

    def __init__(self, oracle: Any, encoder: relpt.Encoder, head: list[np.ndarray], steps: int) -> None:  # noqa: F811
        self.torch, self.model, self.steps = oracle.torch, oracle.TorchModel(encoder), steps
        self.head = [self.torch.tensor(part).double().requires_grad_() for part in head]
        named = {**self.model.parameters(), "rc.weight": self.head[0], "rc.bias": self.head[1]}
        self.parameters = [value for name, value in named.items() if not name.startswith("cls.")]
        spared = {id(v) for k, v in named.items() if k.endswith("bias") or "LayerNorm" in k}
        groups = [
            {"params": [v for v in self.parameters if id(v) not in spared], "weight_decay": OPTIONS["weight_decay"]},
            {"params": [v for v in self.parameters if id(v) in spared], "weight_decay": 0.0},
        ]
        self.optimizer = self.torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)

    def logits(self, batch: Any) -> Any:
        return self.model.represent(self.model.hidden(batch), batch) @ self.head[0].T + self.head[1]

    def step(self, batch: Any, step: int, smoothing: float) -> float:
        warmup = self.steps // 10
        rate = (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (self.steps - warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = OPTIONS["learning_rate"] * rate
        self.optimizer.zero_grad()
        target = self.torch.tensor(batch["relation"]).long()
        loss = self.torch.nn.functional.cross_entropy(self.logits(batch), target, label_smoothing=smoothing)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], 1.0)
        self.optimizer.step()
        return float(loss.detach())


@pytest.mark.parametrize(
    ("representation", "inputs", "smoothing", "micro"),
    [("entity_start", "C+M", 0.0, None), ("cls+mean", "OnlyC", 0.2, None), ("entity_start", "C+T", 0.1, 4)],
)
def test_the_course_of_fine_tuning(
    oracle: Any,  # noqa: F811
    tmp_path: Path,
    representation: str,
    inputs: str,
    smoothing: float,
    micro: int | None,
) -> None:
    encoder = tiny_bert.encoder(tmp_path, representation=representation)
    data = tiny_bert.dataset(72)  # 16, 16, 16, 16 and 8 sentences an epoch
    classifier = relpt.Classifier(encoder, **OPTIONS, label_smoothing=smoothing, micro_batch_size=micro, dropout=0.0)
    classifier.fit(data, inputs=inputs, show_progress_bar=False)

    corpus = data.tokenize(encoder, max_length=32)
    options = classifier._trainer_options(inputs, corpus, 5)
    run = relpt.Trainer(encoder, objectives=[classifier._objective(encoder)], **options)
    core, sampler = _core.Trainer(**run._core_options(8, corpus.relations)), run._sampler(corpus)
    torch_classifier = TorchClassifier(oracle, encoder, [core.get(3, f"rc.{name}") for name in ("weight", "bias")], 25)
    sizes, losses = [], []
    for step in range(25):
        batch = sampler.batch(step)
        sizes.append(len(batch["relation"]))
        losses.append(torch_classifier.step(batch, step, smoothing))
    assert sizes == [16, 16, 16, 16, 8] * 5
    found = classifier.history["loss"]
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f}, off by at most {np.abs(found - losses).max():.2e}")
    np.testing.assert_allclose(found, losses, atol=1e-3, rtol=0)
    assert found[-5:].mean() < found[:5].mean() - 0.05  # there was something to follow

    rows = np.arange(len(corpus), dtype=np.int64)
    number = ("C+M", "C+T", "OnlyC").index(inputs)
    batch = _core.build_batch(corpus.core(), encoder._tokens, rows, number, 32)
    with oracle.torch.no_grad():
        wanted = oracle.torch.softmax(torch_classifier.logits(batch), 1).numpy()
    np.testing.assert_allclose(classifier.predict_proba(data), wanted, atol=1e-3)
