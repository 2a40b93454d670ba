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
from relpt.classifier import _FineTuning, _numbered

pytestmark = pytest.mark.oracle

OPTIONS: dict[str, Any] = {"learning_rate": 6e-3, "batch_size": 16, "epochs": 5, "max_length": 32, "weight_decay": 0.1}


class TorchClassifier:
    """Encoders side by side and a linear head in PyTorch, with AdamW, warm-up and linear decay, clipping.

    ``parts`` are encoders, or float arrays (rows, dim) of vectors that stay as they are.
    """

    def __init__(self, oracle: Any, parts: list[Any], head: list[np.ndarray], steps: int) -> None:  # noqa: F811
        self.torch, self.steps = oracle.torch, steps
        self.models = [part if isinstance(part, np.ndarray) else oracle.TorchModel(part) for part in parts]
        self.head = [self.torch.tensor(part).double().requires_grad_() for part in head]
        named = {"rc.weight": self.head[0], "rc.bias": self.head[1]}
        for number, model in enumerate(self.models):
            own = {} if isinstance(model, np.ndarray) else model.parameters()
            named |= {f"{number}.{name}": value for name, value in own.items() if not name.startswith("cls.")}
        self.named, self.parameters = named, list(named.values())
        spared = {id(v) for k, v in named.items() if k.endswith("bias") or "LayerNorm" in k}
        groups = [
            {"params": [v for v in self.parameters if id(v) not in spared], "weight_decay": OPTIONS["weight_decay"]},
            {"params": [v for v in self.parameters if id(v) in spared], "weight_decay": 0.0},
        ]
        self.optimizer = self.torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)

    def logits(self, batches: list[Any]) -> Any:
        """Of what each part reads: a batch, or the rows of an array."""
        found = [
            self.torch.tensor(model[batch]).double()
            if isinstance(model, np.ndarray)
            else model.represent(model.hidden(batch), batch)
            for model, batch in zip(self.models, batches, strict=True)
        ]
        return self.torch.cat(found, 1) @ self.head[0].T + self.head[1]

    def step(self, batches: list[Any], relation: np.ndarray, step: int, smoothing: float) -> float:
        warmup = self.steps // 10
        rate = (step + 1) / warmup if step < warmup else 1 - (step - warmup) / (self.steps - warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = OPTIONS["learning_rate"] * rate
        self.optimizer.zero_grad()
        target = self.torch.tensor(relation).long()
        loss = self.torch.nn.functional.cross_entropy(self.logits(batches), target, label_smoothing=smoothing)
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
    options = classifier._trainer_options(inputs, 16, 5)
    run = relpt.Trainer(encoder, objectives=[classifier._objective(classifier.parts, 16)], **options)
    core, sampler = _core.Trainer(**run._core_options(8, corpus.relations)), run._sampler(corpus)
    torch_classifier = TorchClassifier(
        oracle, [encoder], [core.get(3, f"rc.{name}") for name in ("weight", "bias")], 25
    )
    sizes, losses = [], []
    for step in range(25):
        batch = sampler.batch(step)
        sizes.append(len(batch["relation"]))
        losses.append(torch_classifier.step([batch], batch["relation"], step, smoothing))
    assert sizes == [16, 16, 16, 16, 8] * 5
    found = classifier.history["loss"]
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f}, off by at most {np.abs(found - losses).max():.2e}")
    np.testing.assert_allclose(found, losses, atol=1e-3, rtol=0)
    assert found[-5:].mean() < found[:5].mean() - 0.05  # there was something to follow

    rows = np.arange(len(corpus), dtype=np.int64)
    number = ("C+M", "C+T", "OnlyC").index(inputs)
    batch = _core.build_batch(corpus.core(), encoder._tokens, rows, number, 32)
    with oracle.torch.no_grad():
        wanted = oracle.torch.softmax(torch_classifier.logits([batch]), 1).numpy()
    np.testing.assert_allclose(classifier.predict_proba(data), wanted, atol=1e-3)


def hybrid(folder: Path, kind: str, data: relpt.Dataset) -> tuple[relpt.HybridEncoder, list[int]]:
    """A hybrid with parts of different tokens, and the parts that stay."""
    entities = tiny_bert.encoder(folder / "a", representation="entity_start")
    relation = tiny_bert.encoder(
        folder / "b", seed=5, representation="mask", form={"prompt": "relation"}, num_hidden_layers=1
    )
    if kind == "table":
        return relpt.HybridEncoder(relpt.EntityTable.from_corpus(entities, data, max_length=32), relation), [0]
    return relpt.HybridEncoder(entities, relation), [1] if kind == "frozen" else []


def compare_gradients(core: Any, wanted: TorchClassifier, numbers: dict[str, int]) -> None:
    """Each parameter's, where PyTorch has scaled them all down to norm 1; ``numbers`` of the networks by part."""
    pairs = []
    for name, value in wanted.named.items():
        part, _, rest = name.partition(".")
        own = name if part == "rc" else f"{numbers[part]}.{rest}" if len(numbers) > 1 else rest
        if value.grad is not None:
            pairs.append((core.get(0, own), value.grad.numpy()))
    norm = np.sqrt(sum(np.square(found.astype(np.float64)).sum() for found, _ in pairs))
    assert norm > 1
    assert len(pairs) > 18 * len(numbers)
    for found, grad in pairs:
        np.testing.assert_allclose(found / norm, grad, atol=2e-6, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "inputs", "micro"),
    [("both", "C+M", None), ("both", "OnlyM", 6), ("frozen", "OnlyC", None), ("table", "C+M", 4)],
)
def test_the_course_of_fine_tuning_a_hybrid(
    oracle: Any,  # noqa: F811
    tmp_path: Path,
    kind: str,
    inputs: str,
    micro: int | None,
) -> None:
    """Both encoders follow PyTorch's under the one head; what stays is constant there."""
    data = tiny_bert.dataset(72)
    joined, frozen = hybrid(tmp_path, kind, data)
    chosen = {**OPTIONS, "micro_batch_size": micro, "dropout": 0.0}
    classifier = relpt.Classifier(joined, **chosen, frozen=frozen if kind == "frozen" else ())
    classifier.fit(data, inputs=inputs, show_progress_bar=False)

    parts = classifier.parts
    reading = parts.read(data, 32, False)
    reading = reading.map(lambda corpus: _numbered(corpus, classifier.labels))
    fixed = {number: parts.part_vectors(number, reading, inputs, 32, False) for number in frozen}
    options = classifier._trainer_options(inputs, 16, 5)
    run = _FineTuning(parts, reading, fixed, objectives=[classifier._objective(parts, 16)], **options)
    core, samplers = _core.Trainer(**run._core_options(8, classifier.labels)), run._sampler(None)
    head = [core.get(3, f"rc.{name}") for name in ("weight", "bias")]
    sides = [fixed.get(number, part) for number, part in enumerate(joined.encoders)]
    torch_classifier = TorchClassifier(oracle, sides, head, 25)
    losses = []
    for step in range(25):
        read = iter([sampler.batch(step) for sampler in samplers])
        batches = [None if number in frozen else next(read) for number in range(2)]
        first = next(batch for batch in batches if batch is not None)
        batches = [first["row"] if batch is None else batch for batch in batches]
        losses.append(torch_classifier.step(batches, first["relation"], step, 0.0))
        if step == 0:
            core.gradients(samplers, 0)
            compare_gradients(core, torch_classifier, {str(n): k for k, n in enumerate(parts.numbers)})
    found = classifier.history["loss"]
    print(f"loss {found[0]:.3f} -> {found[-1]:.3f}, off by at most {np.abs(found - losses).max():.2e}")
    np.testing.assert_allclose(found, losses, atol=1e-3, rtol=0)
    assert found[-5:].mean() < found[:5].mean() - 0.05

    rows = np.arange(len(reading), dtype=np.int64)
    number = ("C+M", "C+T", "OnlyC", "OnlyM").index(inputs)
    batches = [
        rows if n in frozen else _core.build_batch(corpus.core(), part._tokens, rows, number, 32)
        for n, (corpus, part) in enumerate(zip(reading.corpora, joined.encoders, strict=True))
    ]
    with oracle.torch.no_grad():
        wanted = oracle.torch.softmax(torch_classifier.logits(batches), 1).numpy()
    np.testing.assert_allclose(classifier.predict_proba(data), wanted, atol=1e-3)
