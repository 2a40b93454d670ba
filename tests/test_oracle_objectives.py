"""Objectives of relpt.Trainer against PyTorch: losses, accuracies and every gradient by name, float64 autograd."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert
from test_oracle_families import made
from test_oracle_trainer import compare_gradients, oracle  # noqa: F401 - a fixture

import relpt
from relpt import _core
from relpt.objectives import CP, EP, MIL, MLM, MTB, RC, SBO, Alignment, Domain, Prototypes, SpanMLM

pytestmark = pytest.mark.oracle

OPTIONS: dict[str, Any] = {
    "p_blank": 0.5,
    "input_mix": {"C+M": 3, "OnlyC": 1},
    "blank_as": "blank",
    "dropout": 0.0,
    "pairs_per_step": 7,
    "max_length": 32,
    "max_steps": 50,
    "prefetch": False,
}
GRAPH = graph_of(records_with_entities())
PARTIAL = graph_of(records_with_entities(), leave_out="part of", model="distmult")
SPANS: dict[str, Any] = {"mention_probability": 0.8, "relation_probability": 0.9, "length_p": 0.4, "longest": 3}
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "mtb as published": ([MTB(temperature=30.0)], {}),
    "mtb, cosine": ([MTB(similarity="cosine", temperature=0.3, hard_share=1.0)], {"representation": "cls+mean"}),
    "mtb, micro-batches": ([MTB(similarity="cosine", temperature=0.3, weight=0.7)], {"micro_batch_pairs": 2}),
    "mtb, threshold": ([MTB(similarity="cosine", temperature=0.2, threshold=0.4)], {}),
    "ep": ([EP(temperature=0.3)], {}),
    "ep, supervised, one side": ([EP(similarity="dot", temperature=20.0, positives="entities", symmetric=False)], {}),
    "rc": ([RC(dropout=0.0)], {"sentences_per_step": 9}),
    "rc, smoothed": ([RC(dropout=0.0, label_smoothing=0.2, weight=3.0)], {"representation": "mean+entity_start"}),
    "prototypes as published": ([Prototypes(n_way=3, k_shot=2, n_query=2)], {}),
    "prototypes, temperature": ([Prototypes(temperature=20.0, n_way=4, n_query=3, episodes=3)], {}),
    "prototypes, cosine, micro-batches": (
        [
            Prototypes(similarity="cosine", temperature=0.2, n_way=5, k_shot=3, n_query=2, episodes=2, weight=0.6),
            RC(source="episodes", dropout=0.0, weight=0.2),
            CP(temperature=0.3),
        ],
        {"micro_batch_pairs": 4, "representation": "cls+mean"},
    ),
    "alignment": ([Alignment(graph=GRAPH, temperature=0.2)], {"sentences_per_step": 9}),
    "alignment, relations unknown, micro-batches": (
        [Alignment(graph=PARTIAL, weight=0.7, source="relations"), CP(temperature=0.3), RC(dropout=0.0)],
        {"micro_batch_pairs": 2, "representation": "cls+mean"},
    ),
    "mil, attention": ([MIL(dropout=0.0, bags=12, bag_size=4)], {}),
    "mil, at least one": ([MIL(pooling="one", dropout=0.0, weight=0.6)], {"representation": "cls+mean"}),
    "mil, mean, smoothed": ([MIL(pooling="mean", dropout=0.0, label_smoothing=0.2, bags=7)], {"micro_batch_pairs": 2}),
    "mil on the bags of others": (
        [
            MIL(dropout=0.0, bags=9, bag_size=3, weight=0.7),
            CP(temperature=0.3),
            MIL(dropout=0.0, bags=9, bag_size=3, name="one", pooling="one", label_smoothing=0.1),
            RC(dropout=0.0, source="bags", weight=0.2),
        ],
        {"micro_batch_pairs": 3, "representation": "mean+entity_start"},
    ),
    "domain": ([Domain(dropout=0.0, reversal=0.7, weight=1.3), RC(dropout=0.0, weight=0.5)], {}),
    "domain, linear, ramp": (
        [CP(temperature=0.3), Domain(dropout=0.0, hidden=0, ramp_steps=7), MLM(weight=0.2), MIL(dropout=0.0, bags=5)],
        {"micro_batch_pairs": 4, "representation": "cls+mean"},
    ),
    "domain without reversal": ([Domain(dropout=0.0, hidden=5, reversal=0.0), MTB(temperature=20.0)], {}),
    "spans": ([SpanMLM(weight=0.7)], {}),
    "span boundaries": ([SBO(position_size=11)], {"input_mix": {"C+M": 2, "C+T": 1, "OnlyM": 1}}),
    "spans, their boundaries and the relation": (
        [RC(dropout=0.0), SpanMLM(weight=0.4, **SPANS), SBO(position_size=24, weight=1.3, **SPANS)],
        {"micro_batch_pairs": 2, "representation": "mention_mean", "p_blank": 0.2},
    ),
    "spans of ALBERT": ([SBO(weight=0.8, position_size=24), SpanMLM(), CP(temperature=0.3)], {"kind": "albert"}),
    "cp and rc share their sentences": ([CP(temperature=0.2), RC(dropout=0.0, source="relations", weight=0.4)], {}),
    "all": (
        [
            CP(symmetric=False, temperature=0.4, weight=0.5),
            MLM(weight=0.3, probability=0.2),
            MTB(similarity="cosine", temperature=0.2, weight=0.8),
            RC(dropout=0.0, weight=1.3),
            RC(dropout=0.0, name="again", source="entities", label_smoothing=0.1),
        ],
        {"sentences_per_step": 5, "micro_batch_pairs": 3},
    ),
}


def torch_loss(
    torch: Any, model: Any, item: Any, part: slice, batch: Any, vectors: Any, hidden: Any, heads: Any, step: int
) -> Any:
    """Loss and accuracy of one objective, as its docstring prints it."""
    from oracle.torch_model import contrastive

    x, relation = vectors[part], batch["relation"][part]
    if isinstance(item, (MLM, SpanMLM)):
        return model.mlm(hidden, batch), 0.0
    if isinstance(item, Domain):
        return domain_loss(torch, item, x, torch.tensor(relation < 0).long(), heads, step)
    if isinstance(item, SBO):
        return boundary_loss(torch, model, item, batch, hidden, heads)
    if isinstance(item, CP):
        names = ("similarity", "temperature", "symmetric", "mask_same_relation", "positives")
        loss, accuracy, _ = contrastive(x, relation, **{name: getattr(item, name) for name in names})
        return loss, float(accuracy)
    if isinstance(item, EP):
        assert (batch["pair"][part][0::2] == batch["pair"][part][1::2]).all()
        form = {"similarity": item.similarity, "temperature": item.temperature, "symmetric": item.symmetric}
        form |= {"mask_same_relation": True, "positives": "relation" if item.positives == "entities" else "pair"}
        loss, accuracy, _ = contrastive(x, batch["pair"][part], **form)
        return loss, float(accuracy)
    if isinstance(item, Prototypes):
        return prototypes_loss(torch, item, x, torch.tensor(relation).long())
    if isinstance(item, Alignment):
        return alignment_loss(torch, item, x, relation, heads[f"{item.name}.weight"])
    if isinstance(item, MTB):
        x = torch.nn.functional.normalize(x, dim=1) if item.similarity == "cosine" else x
        z = ((x[0::2] * x[1::2]).sum(1) - item.threshold) / item.temperature
        same = torch.tensor(batch["pair"][part][0::2] == batch["pair"][part][1::2]).double()
        loss = torch.nn.functional.binary_cross_entropy(torch.sigmoid(z), same)
        return loss, float(((z >= 0) == (same == 1)).double().mean())
    target = torch.tensor(relation).long()
    if isinstance(item, MIL):
        x, target = bag_vectors(torch, item, x, target, batch["pair"][part], heads)
    logits = x @ heads[f"{item.name}.weight"].T + heads[f"{item.name}.bias"]
    loss = torch.nn.functional.cross_entropy(logits, target, label_smoothing=item.label_smoothing)
    return loss, float((logits.argmax(1) == target).double().mean())


def domain_loss(torch: Any, item: Domain, x: Any, target: Any, heads: Any, step: int) -> tuple[Any, float]:
    """The discriminator's loss, with a function of its own for the gradient that is reversed."""
    ramp = 2 / (1 + np.exp(-10 * step / item.ramp_steps)) - 1 if item.ramp_steps else 1.0

    class Reversal(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, given: Any) -> Any:
            return given.view_as(given)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return -item.reversal * ramp * gradient

    assert 0 < int(target.sum()) < len(target)
    x = Reversal.apply(x)
    if item.hidden != 0:
        x = torch.relu(x @ heads[f"{item.name}.hidden.weight"].T + heads[f"{item.name}.hidden.bias"])
    logits = x @ heads[f"{item.name}.weight"].T + heads[f"{item.name}.bias"]
    loss = torch.nn.functional.cross_entropy(logits, target)
    return loss, float((logits.argmax(1) == target).double().mean())


def boundary_loss(torch: Any, model: Any, item: SBO, batch: Any, hidden: Any, heads: Any) -> tuple[Any, float]:
    """Every masked token from the states just outside of its span."""
    rows = {name: torch.tensor(batch[name]).long() for name in ("span_left", "span_right", "span_place", "mlm_label")}
    own = {name.partition(".")[2]: value for name, value in heads.items() if name.startswith(f"{item.name}.")}
    places = own["position_embeddings.weight"][rows["span_place"]]
    x = torch.cat([hidden[rows["span_left"]], hidden[rows["span_right"]], places], 1)
    for layer in ("layer.0", "layer.1"):
        x = torch.nn.functional.gelu(x @ own[f"{layer}.dense.weight"].T + own[f"{layer}.dense.bias"])
        gamma, beta = own[f"{layer}.LayerNorm.weight"], own[f"{layer}.LayerNorm.bias"]
        x = torch.nn.functional.layer_norm(x, gamma.shape, gamma, beta, model.model.config.layer_norm_eps)
    logits = x @ model.parameters()["embeddings.word_embeddings.weight"].T + own["bias"]
    loss = torch.nn.functional.cross_entropy(logits, rows["mlm_label"])
    return loss, float((logits.argmax(1) == rows["mlm_label"]).double().mean())


def prototypes_loss(torch: Any, item: Prototypes, x: Any, relation: Any) -> tuple[Any, float]:
    """All episodes at once; a query's way is the one whose supports have its relation."""
    ways, shots = item.n_way, item.k_shot
    episodes, classes = x.view(item.episodes, -1, x.shape[1]), relation.view(item.episodes, -1)
    supports, queries = episodes[:, : ways * shots], episodes[:, ways * shots :]
    prototypes = supports.reshape(item.episodes, ways, shots, -1).mean(2)
    if item.similarity == "cosine":
        prototypes, queries = (torch.nn.functional.normalize(side, dim=2) for side in (prototypes, queries))
    logits = (queries @ prototypes.transpose(1, 2)).flatten(0, 1) / item.temperature
    same = classes[:, ways * shots :, None] == classes[:, None, : ways * shots : shots]
    assert (same.sum(2) == 1).all()
    target = same.int().argmax(2).flatten()
    loss = torch.nn.functional.cross_entropy(logits, target)
    return loss, float((logits.argmax(1) == target).double().mean())


def alignment_loss(torch: Any, item: Alignment, x: Any, relation: Any, weight: Any) -> tuple[Any, float]:
    """Over the sentences whose relation the graph knows."""
    names = sorted({record["relation"] for record in records_with_entities()})
    wanted = [item.graph.relations.index(names[r]) if names[r] in item.graph.relations else -1 for r in relation]
    target = torch.tensor(wanted)
    unit = torch.nn.functional.normalize
    candidates = unit(torch.tensor(item.graph.relation_embeddings).double(), dim=1)
    logits = (unit(x @ weight.T, dim=1) @ candidates.T / item.temperature)[target >= 0]
    loss = torch.nn.functional.cross_entropy(logits, target[target >= 0])
    return loss, float((logits.argmax(1) == target[target >= 0]).double().mean())


def bag_vectors(torch: Any, item: MIL, x: Any, relation: Any, bag: Any, heads: Any) -> tuple[Any, Any]:
    """A bag's vector and relation, bag by bag."""
    pooled, relations = [], []
    weight, bias = heads[f"{item.name}.weight"], heads[f"{item.name}.bias"]
    for number in np.unique(bag):
        rows = np.flatnonzero(bag == number)
        (label,) = set(relation[rows].tolist())
        own = x[rows]
        if item.pooling == "attention":
            own = torch.softmax((own * heads[f"{item.name}.attention"]) @ weight[label], 0) @ own
        elif item.pooling == "one":
            own = own[torch.softmax(own @ weight.T + bias, 1)[:, label].argmax()]
        else:
            own = own.mean(0)
        pooled.append(own)
        relations.append(label)
    assert len(pooled) == item.bags < len(bag)
    return torch.stack(pooled), torch.tensor(relations)


@pytest.mark.parametrize("name", CASES)
def test_every_gradient(oracle: Any, tmp_path: Path, name: str) -> None:  # noqa: F811
    torch = oracle.torch
    objectives, changes = CASES[name]
    options = {**OPTIONS, **changes}
    form = {"representation": options.pop("representation", "entity_start")}
    if "kind" in options:
        encoder = made(oracle, tmp_path, options.pop("kind"), {}, **form)
    else:
        encoder = tiny_bert.encoder(tmp_path, **form)
    trainer = relpt.Trainer(encoder, objectives=objectives, **options)
    corpus = relpt.load(records_with_entities()).tokenize(encoder, max_length=32)
    target = relpt.load(tiny_bert.records(23, seed=5)).tokenize(encoder, max_length=32)
    sampler = trainer._sampler(corpus, target if any(isinstance(item, Domain) for item in objectives) else None)
    core = _core.Trainer(**trainer._core_options(trainer._micro_batch_pairs(corpus.relations), corpus.relations))
    rng = np.random.default_rng(0)
    for head, shape in core.heads():
        core.set(3, head, rng.normal(0, 0.3, shape).astype(np.float32))
    model = oracle.TorchModel(encoder)
    for step in (0, 3):
        stats, batch = core.gradients(sampler, step), sampler.batch(step)
        for parameter in model.parameters().values():
            parameter.grad = None
        heads = {k: torch.tensor(core.get(3, k)).double().requires_grad_() for k, _ in core.heads()}
        hidden = model.hidden(batch)
        vectors, total, accuracies = model.represent(hidden, batch), 0.0, {}
        for item, laid in zip(objectives, trainer._core_objectives(corpus.relations), strict=True):
            part = slice(laid["first"], laid["first"] + laid["samples"])
            loss, accuracies[item.name] = torch_loss(torch, model, item, part, batch, vectors, hidden, heads, step)
            total = total + item.weight * loss
            assert stats[f"loss_{item.name}"] == pytest.approx(float(loss.detach()), rel=2e-6, abs=2e-6), item.name
        total.backward()
        assert stats["loss"] == pytest.approx(float(total.detach()), rel=2e-6)
        judged = [item.name for item in objectives if not isinstance(item, (MLM, SpanMLM))]
        got = [stats["accuracy"], *(stats[f"accuracy_{other}"] for other in judged[1:])][: len(judged)]
        assert got == pytest.approx([accuracies[other] for other in judged])
        every = {**model.parameters(), **heads}
        offenders = compare_gradients(core, SimpleNamespace(parameters=every.copy))
        assert not offenders, "\n".join(offenders)
        squares = sum(float((p.grad**2).sum()) for p in every.values() if p.grad is not None)
        assert stats["grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)
