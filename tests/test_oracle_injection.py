"""Injection of a graph's entities against PyTorch and transformers: vectors, losses and every gradient."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert, tiny_family
from test_oracle_trainer import compare_gradients, oracle  # noqa: F401 - a fixture

import relpt
from relpt import _core
from relpt.objectives import CP, MLM

pytestmark = pytest.mark.oracle
W = "graph_projection.weight"


def torch_hidden(torch: Any, model: Any, encoder: relpt.Encoder, batch: dict[str, Any], weight: Any) -> Any:
    """Hidden states (T, H) of transformers' model, W g added to the start markers' embeddings before LayerNorm."""
    table = torch.tensor(encoder.injection.graph.entity_embeddings).double()
    added = torch.zeros(len(batch["ids"]), weight.shape[0], dtype=torch.float64)
    for marker, entity in (("head", "head_entity"), ("tail", "tail_entity")):
        for at, row in zip(batch[marker].tolist(), batch[entity].tolist(), strict=True):
            if row >= 0:
                added[at] = table[row] @ weight.T

    ends = torch.tensor(batch["cu_seqlens"], dtype=torch.long)
    mask = torch.arange(int((ends[1:] - ends[:-1]).max()))[None, :] < (ends[1:] - ends[:-1])[:, None]
    padded = torch.zeros(*mask.shape, weight.shape[0], dtype=torch.float64)
    padded = padded.masked_scatter(mask[..., None].expand_as(padded), added)
    norm = model.model.base_model.embeddings.LayerNorm
    hook = norm.register_forward_pre_hook(lambda module, given: (given[0] + padded,))
    try:
        return model.hidden(batch)
    finally:
        hook.remove()


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_every_gradient(oracle: Any, tmp_path: Path, family: str) -> None:  # noqa: F811
    torch = oracle.torch
    records, options = records_with_entities(), {"representation": "mean+entity_start"}
    if family == "bert":
        encoder = tiny_bert.encoder(tmp_path, **options)
    else:
        config = tiny_family.config_of(family)
        encoder = tiny_family.open_encoder(tmp_path, config, oracle.shapes_of(config), **options)
    plain = oracle.TorchModel(encoder)  # transformers has no graph
    encoder.inject(graph_of(records[:40]), dropout=0.2)
    shape = encoder._model.get(W).shape
    encoder._model.set(W, np.random.default_rng(0).normal(0, 0.2, shape).astype(np.float32))
    objectives = [CP(temperature=0.3, symmetric=False), MLM(weight=0.5)]
    trainer = relpt.Trainer(
        encoder, objectives=objectives, p_blank=0.3, dropout=0.0, pairs_per_step=7, max_length=32, micro_batch_pairs=3
    )
    corpus = relpt.load(records).tokenize(encoder, max_length=32)
    sampler = trainer._sampler(corpus)
    core = _core.Trainer(**trainer._core_options(3, corpus.relations))
    for step in (0, 3):
        stats, batch = core.gradients(sampler, step), sampler.batch(step)
        assert (batch["head_entity"] >= 0).any()
        assert (batch["head_entity"] < 0).any()
        for parameter in plain.parameters().values():
            parameter.grad = None
        weight = torch.tensor(core.get(3, W)).double().requires_grad_()
        hidden = torch_hidden(torch, plain, encoder, batch, weight)
        names = ("similarity", "temperature", "symmetric", "mask_same_relation", "positives")
        form = {name: getattr(objectives[0], name) for name in names}
        loss, accuracy, _ = oracle.contrastive(plain.represent(hidden, batch), batch["relation"], **form)
        mlm = plain.mlm(hidden, batch)
        assert stats["loss_cp"] == pytest.approx(float(loss.detach()), rel=2e-6)
        assert stats["loss_mlm"] == pytest.approx(float(mlm.detach()), rel=2e-6)
        assert stats["accuracy"] == pytest.approx(float(accuracy))
        (loss + 0.5 * mlm).backward()
        every = {**plain.parameters(), W: weight}
        assert float(weight.grad.abs().max()) > 1e-4
        offenders = compare_gradients(core, SimpleNamespace(parameters=every.copy))
        assert not offenders, "\n".join(offenders)


def test_transformers_opens_the_folder(tmp_path: Path) -> None:
    """Without the graph, of which it knows nothing: the hidden states are those of relpt's encoder without it."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    encoder = tiny_bert.encoder(tmp_path / "e").inject(graph_of(records_with_entities()))
    folder = encoder.save_pretrained(tmp_path / "saved")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = np.array([12, 30, 31, 40, 13], np.int32)
    with torch.no_grad():
        want = model(input_ids=torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0].numpy()
    np.testing.assert_allclose(encoder.hidden_states(ids, np.array([5])), want, rtol=1e-4, atol=1e-4)
