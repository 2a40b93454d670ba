"""Graph embeddings against PyTorch: the gradient of a step in float64, and the course of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_graph_core import DEFAULTS, LOSSES, MODELS, random_triples

from relpt import _core

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle


class Oracle:
    """The same model by autograd: tables, candidates drawn by the core, torch's own losses."""

    def __init__(self, o: dict[str, Any], graph: Any, triples: np.ndarray, tables: Any, dtype: Any) -> None:
        self.o, self.graph, self.triples = o, graph, triples
        self.entities, self.relations = (torch.tensor(t, dtype=dtype, requires_grad=True) for t in tables)

    def scores(self, epoch: int) -> Any:
        """(triples, 1 + negatives), the right answer's first."""
        draws = [
            self.graph.corrupt(self.o["seed"], self.o["negatives"], self.o["bernoulli"], self.o["filtered"], epoch, i)
            for i in range(len(self.triples))
        ]
        side = torch.tensor([side for side, _ in draws])[:, None]
        candidates = torch.tensor(np.stack([c for _, c in draws]), dtype=torch.long)
        fixed = torch.tensor(self.triples, dtype=torch.long)
        head = self.entities[torch.where(side == 0, candidates, fixed[:, :1])]
        tail = self.entities[torch.where(side == 1, candidates, fixed[:, 2:])]
        relation = self.relations[fixed[:, 1]][:, None]
        if self.o["model"] == 2:
            return torch.einsum("ikd,ijd,ikd->ik", head, relation, tail)
        return -torch.linalg.vector_norm(head + relation - tail, ord=self.o["model"] + 1, dim=-1)

    def loss(self, epoch: int) -> Any:
        s, functional = self.scores(epoch), torch.nn.functional
        if self.o["loss"] == 0:
            right, wrong = s[:, :1].expand(-1, s.shape[1] - 1), s[:, 1:]
            data = functional.margin_ranking_loss(right, wrong, torch.ones_like(wrong), margin=self.o["margin"])
        elif self.o["loss"] == 1:
            z = s + (0 if self.o["model"] == 2 else self.o["margin"])
            of = functional.binary_cross_entropy_with_logits
            data = of(z[:, 0], torch.ones_like(z[:, 0])) + of(z[:, 1:], torch.zeros_like(z[:, 1:]))
        else:
            data = functional.cross_entropy(s, torch.zeros(len(s), dtype=torch.long))
        h, r, t = torch.tensor(self.triples, dtype=torch.long).T
        rows = torch.cat([self.entities[h], self.relations[r], self.entities[t]], dim=1)
        return data + (self.o["l2"] * rows**2 + self.o["n3"] * rows.abs() ** 3).sum(1).mean()


@pytest.mark.parametrize("bernoulli", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_loss_and_gradient_are_torchs(model: str, loss: str, bernoulli: bool) -> None:
    triples = random_triples(150, 40, 6, seed=1)
    o = {**DEFAULTS, "model": MODELS[model], "loss": LOSSES[loss], "l2": 0.02, "n3": 0.03, "dim": 50, "batch": 999}
    o |= {"bernoulli": bernoulli, "negatives": 20}
    graph = _core.Graph(triples, 40, 6)
    trainer = _core.GraphTrainer(graph=graph, **o)
    found = trainer.loss(5, 0)
    oracle = Oracle(o, graph, triples, trainer.values(), torch.float64)
    expected = oracle.loss(5)
    expected.backward()
    assert found == pytest.approx(expected.item(), rel=1e-6)
    for gradient, table in zip(trainer.gradients(), (oracle.entities, oracle.relations), strict=True):
        np.testing.assert_allclose(gradient, table.grad.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
@pytest.mark.parametrize("model", ["transe-2", "distmult"])
def test_a_run_is_torchs(model: str, optimizer: str) -> None:
    """Twenty whole-batch epochs by torch.optim. float64 there, float32 here: they may drift apart by rounding."""
    triples = random_triples(60, 25, 3, seed=2)
    o = {**DEFAULTS, "model": MODELS[model], "optimizer": int(optimizer == "adagrad"), "batch": 999, "l2": 0.01}
    graph = _core.Graph(triples, 25, 3)
    trainer = _core.GraphTrainer(graph=graph, **o)
    oracle = Oracle(o, graph, triples, trainer.values(), torch.float64)
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adagrad
    steps = make([oracle.entities, oracle.relations], lr=o["learning_rate"])
    for epoch in range(20):
        steps.zero_grad()
        loss = oracle.loss(epoch)
        loss.backward()
        steps.step()
        assert trainer.step(epoch, 0) == pytest.approx(loss.item(), rel=1e-4)
    for values, table in zip(trainer.values(), (oracle.entities, oracle.relations), strict=True):
        np.testing.assert_allclose(values, table.detach().numpy(), rtol=0, atol=1e-3)
