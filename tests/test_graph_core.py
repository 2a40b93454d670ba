"""The core of graph embeddings: index, draws, losses and gradients, updates, ranks, each against NumPy in float64."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest

from relpt import _core
from relpt.metrics import filtered_ranks

pytestmark = pytest.mark.core

MODELS = {"transe-1": 0, "transe-2": 1, "distmult": 2}
LOSSES = {"margin": 0, "logistic": 1, "softmax": 2}
DEFAULTS: dict[str, Any] = {
    "model": 1,
    "loss": 2,
    "optimizer": 1,
    "normalize": False,
    "bernoulli": False,
    "filtered": True,
    "margin": 0.7,
    "l2": 0.0,
    "n3": 0.0,
    "dim": 20,
    "num_threads": 2,
    "negatives": 5,
    "learning_rate": 0.1,
    "batch": 16,
    "seed": 3,
}


def random_triples(n: int, entities: int, relations: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sizes = (entities, relations, entities)
    return np.stack([rng.integers(0, size, n) for size in sizes], axis=1).astype(np.int32)


def trainer(triples: np.ndarray, entities: int, relations: int, **options: Any) -> _core.GraphTrainer:
    return _core.GraphTrainer(graph=_core.Graph(triples, entities, relations), **{**DEFAULTS, **options})


def epochs(t: _core.GraphTrainer, count: int) -> list[float]:
    return [t.step(epoch, step) for epoch in range(count) for step in range(t.steps)]


# -- the index and the draws -------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_triples() -> None:
    triples = random_triples(300, 12, 3)  # many repeated ones
    graph = _core.Graph(triples, 12, 3)
    for entity, relation in itertools.product(range(12), range(3)):
        tails = sorted({t for h, r, t in triples.tolist() if (h, r) == (entity, relation)})
        heads = sorted({h for h, r, t in triples.tolist() if (t, r) == (entity, relation)})
        assert graph.answers(1, entity, relation).tolist() == tails
        assert graph.answers(0, entity, relation).tolist() == heads


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [-1, 7])
def test_a_number_out_of_range_is_named(place: int, value: int) -> None:
    triples = random_triples(9, 7, 7)
    triples[4, place] = value
    with pytest.raises(
        ValueError, match=f"triple 4: {('head', 'relation', 'tail')[place]} is {value}; expected 0 .. 6"
    ):
        _core.Graph(triples, 7, 7)


def test_filtered_draws_are_uniform_over_the_entities_that_are_no_answer() -> None:
    triples = np.array([[0, 0, 3], [0, 0, 4], [0, 0, 9], [1, 0, 5], [7, 0, 3]], np.int32)
    graph = _core.Graph(triples, 11, 1)
    tails, heads = np.zeros(11), np.zeros(11)
    for epoch in range(400):
        side, candidates = graph.corrupt(1, 50, False, True, epoch, 0)
        assert candidates[0] == (0, 3)[side]
        np.add.at((heads, tails)[side], candidates[1:], 1)
    for counts, known in ((heads, [0, 7]), (tails, [3, 4, 9])):
        assert not counts[known].any()
        share = np.delete(counts, known) / counts.sum()
        expected = 1 / (11 - len(known))
        assert abs(share - expected).max() < 5 * np.sqrt(expected / counts.sum())


def test_unfiltered_draws_leave_out_the_right_answer_alone() -> None:
    graph = _core.Graph(np.array([[0, 0, 1], [0, 0, 2]], np.int32), 4, 1)
    drawn: dict[int, set[int]] = {0: set(), 1: set()}
    for epoch in range(50):
        side, candidates = graph.corrupt(1, 20, False, False, epoch, 0)
        drawn[side] |= set(candidates[1:].tolist())
    assert drawn == {0: {1, 2, 3}, 1: {0, 2, 3}}


def test_a_draw_is_a_function_of_seed_epoch_and_triple() -> None:
    graph = _core.Graph(random_triples(20, 500, 2), 500, 2)

    def draw(seed: int, epoch: int, i: int) -> list[int]:
        return graph.corrupt(seed, 30, False, True, epoch, i)[1][1:].tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(*site)) for site in itertools.product(range(3), range(3), range(3))}) == 27


def test_bernoulli_seldom_asks_for_the_side_with_many_answers() -> None:
    one_to_many = [[0, 0, tail] for tail in range(1, 10)]  # 9 tails per head, 1 head per tail
    even = [[i, 1, 9 - i] for i in range(10)]
    graph = _core.Graph(np.array(one_to_many + even, np.int32), 11, 2)

    def head_share(triple: int, bernoulli: bool) -> float:
        return float(np.mean([graph.corrupt(5, 1, bernoulli, True, e, triple)[0] == 0 for e in range(4000)]))

    assert head_share(0, True) == pytest.approx(0.9, abs=0.03)
    assert head_share(0, False) == pytest.approx(0.5, abs=0.04)
    assert head_share(12, True) == pytest.approx(0.5, abs=0.04)


def test_a_query_that_all_entities_answer_is_refused() -> None:
    triples = np.array([[2, 1, tail] for tail in range(4)], np.int32)
    with pytest.raises(ValueError, match="no wrong tail can be drawn: all 4 entities answer entity 2 with relation 1"):
        trainer(triples, 4, 2)
    trainer(triples, 4, 2, filtered=False)
    trainer(triples, 5, 2)


# -- losses and gradients ----------------------------------------------------------------------------------------------


def score(model: int, entities: np.ndarray, relations: np.ndarray, h: Any, r: Any, t: Any) -> np.ndarray:
    """Scores of a query's candidates, from the papers' formulas."""
    if model == 2:
        return (entities[h] * relations[r] * entities[t]).sum(-1)
    return -np.linalg.norm(entities[h] + relations[r] - entities[t], ord=model + 1, axis=-1)


def loss_of(o: dict[str, Any], graph: Any, triples: np.ndarray, entities: np.ndarray, relations: np.ndarray) -> float:
    """The mean loss over all triples in epoch 0."""
    total = 0.0
    for i, (h, r, t) in enumerate(triples.tolist()):
        side, c = graph.corrupt(o["seed"], o["negatives"], o["bernoulli"], o["filtered"], 0, i)
        h_, t_ = (c, np.full_like(c, t)) if side == 0 else (np.full_like(c, h), c)
        s = score(o["model"], entities, relations, h_, np.full_like(c, r), t_)
        if o["loss"] == 0:
            total += np.maximum(0, o["margin"] - s[0] + s[1:]).mean()
        elif o["loss"] == 1:
            z = s + (0 if o["model"] == 2 else o["margin"])
            total += np.log1p(np.exp(-z[0])) + np.log1p(np.exp(z[1:])).mean()
        else:
            total += np.log(np.exp(s).sum()) - s[0]
        for row in (entities[h], relations[r], entities[t]):
            total += o["l2"] * (row**2).sum() + o["n3"] * (abs(row) ** 3).sum()
    return total / len(triples)


def differences(function: Any, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    out = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        before = x[place]
        x[place] = before + step
        up = function()
        x[place] = before - step
        out[place] = (up - function()) / (2 * step)
        x[place] = before
    return out


@pytest.mark.parametrize(("l2", "n3"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2)])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_loss_and_gradient_are_those_of_the_formulas(model: str, loss: str, l2: float, n3: float) -> None:
    o = {**DEFAULTS, "model": MODELS[model], "loss": LOSSES[loss], "l2": l2, "n3": n3, "dim": 5, "batch": 99}
    triples = random_triples(14, 7, 3, seed=4)  # rows are met as head, tail and wrong answer at once
    graph = _core.Graph(triples, 7, 3)
    t = _core.GraphTrainer(graph=graph, **o)
    entities, relations = (table.astype(float) for table in t.values())
    expected = loss_of(o, graph, triples, entities, relations)
    assert t.loss(0, 0) == pytest.approx(expected, rel=1e-6)
    gradients = t.gradients()
    for table, gradient in zip((entities, relations), gradients, strict=True):
        wanted = differences(lambda: loss_of(o, graph, triples, entities, relations), table)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=2e-6)


def test_a_distance_of_zero_has_no_gradient() -> None:
    triples = np.array([[0, 0, 1]], np.int32)
    t = trainer(triples, 4, 1, dim=3, loss=0, margin=5.0)
    entities, relations = t.values()
    entities[1] = entities[0] + relations[0]
    t.set(entities, relations)
    assert np.isfinite(t.loss(0, 0))
    assert all(np.isfinite(gradient).all() for gradient in t.gradients())


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", [{}, {"optimizer": 0, "normalize": True, "loss": 0, "bernoulli": True}])
def test_values_do_not_depend_on_the_number_of_threads(model: str, options: dict[str, Any]) -> None:
    triples = random_triples(200, 30, 4)
    runs = []
    for threads in (1, 2, 3, 7):
        t = trainer(triples, 30, 4, model=MODELS[model], num_threads=threads, l2=0.01, **options)
        runs.append((epochs(t, 3), *(table.tobytes() for table in t.values())))
    assert all(run == runs[0] for run in runs)


def test_an_epoch_takes_every_triple_once_in_an_order_of_its_own() -> None:
    n = 40
    triples = random_triples(n, 100, 1)
    triples[:, 1] = np.arange(n)  # the relation tells which triple a step took

    def order(epoch: int, seed: int = 3) -> list[int]:
        t = trainer(triples, 100, n, batch=1, l2=0.1, seed=seed)
        out = []
        for step in range(t.steps):
            t.loss(epoch, step)
            out += np.flatnonzero(t.gradients()[1].any(axis=1)).tolist()
        return out

    assert sorted(order(0)) == list(range(n))
    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=4)


def test_the_last_step_takes_what_is_left() -> None:
    t = trainer(random_triples(35, 9, 2), 9, 2, batch=16)
    assert t.steps == 3
    with pytest.raises(ValueError, match=r"step 3 of epoch 0; expected 0 \.\. 2"):
        t.step(0, 3)


@pytest.mark.parametrize("optimizer", [0, 1])
def test_a_step_updates_the_rows_that_occur_by_its_gradient(optimizer: int) -> None:
    t = trainer(random_triples(60, 200, 8), 200, 8, batch=4, optimizer=optimizer, learning_rate=0.25)
    squares = [np.zeros((200, 20)), np.zeros((8, 20))]
    for step in range(4):
        before = t.values()
        t.step(0, step)
        for old, new, gradient, square in zip(before, t.values(), t.gradients(), squares, strict=True):
            square += gradient.astype(float) ** 2
            change = 0.25 * (gradient if optimizer == 0 else gradient / (np.sqrt(square) + 1e-10))
            np.testing.assert_allclose(new, old - change, rtol=0, atol=1e-6)
            still = ~gradient.any(axis=1)
            assert still.any()
            assert (new[still] == old[still]).all()


@pytest.mark.parametrize("model", MODELS)
def test_rows_start_with_length_1_and_entities_keep_it_by_option(model: str) -> None:
    t = trainer(random_triples(80, 10, 3), 10, 3, normalize=True, model=MODELS[model])
    entities, relations = (np.linalg.norm(table, axis=1) for table in t.values())
    np.testing.assert_allclose(np.concatenate([entities, relations]), 1, atol=1e-6)
    epochs(t, 2)
    entities, relations = (np.linalg.norm(table, axis=1) for table in t.values())
    np.testing.assert_allclose(entities, 1, atol=1e-6)
    assert abs(relations - 1).max() > 0.01


@pytest.mark.parametrize(
    ("model", "size"),
    [("transe-2", 1e25), ("distmult", 1e25), *itertools.product(MODELS, [np.inf, np.nan])],
)
def test_a_step_that_is_not_finite_is_refused_and_changes_nothing(model: str, size: float) -> None:
    t = trainer(random_triples(80, 10, 3), 10, 3, model=MODELS[model])
    entities, relations = t.values()
    entities *= np.float32(size)
    t.set(entities, relations)
    with pytest.raises(FloatingPointError, match="this step is refused and the embeddings are unchanged"):
        t.step(0, 0)
    assert t.values()[0].tobytes() == entities.tobytes()
    assert t.values()[1].tobytes() == relations.tobytes()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((name, 0) for name in ("dim", "batch", "negatives", "num_threads", "learning_rate")),
        *(("learning_rate", 1e7), ("margin", -1.0), ("n3", -0.5), ("l2", float("nan")), ("model", 3), ("loss", -1)),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option}.* {re.escape(f'{value:g}')}"):
        trainer(random_triples(5, 4, 2), 4, 2, **{option: value})


# -- link prediction ---------------------------------------------------------------------------------------------------


def quantised(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Values whose sums and products are exact, so that equal scores are equal however they are computed."""
    return (np.random.default_rng(seed).integers(-2, 3, shape) / 2).astype(np.float32)


@pytest.mark.parametrize("dim", [3, 37])
@pytest.mark.parametrize("model", MODELS)
def test_ranks_are_those_of_the_measures(model: str, dim: int) -> None:
    number, n = MODELS[model], 40
    entities, relations = quantised((n, dim), 1), quantised((4, dim), 2)
    known, test = random_triples(500, n, 4, seed=5), random_triples(60, n, 4, seed=6)
    everything = np.concatenate([known, test])
    graph = _core.Graph(everything, n, 4)
    raw, filtered = _core.graph_ranks(number, entities, relations, test, graph, 2)
    wide, every = entities.astype(float), np.arange(n)
    for side, answer in ((0, test[:, 0]), (1, test[:, 2])):
        pairs = [(every, t) if side == 0 else (h, every) for h, _, t in test]
        scores = np.stack(
            [score(number, wide, relations.astype(float), h, r, t) for (h, t), r in zip(pairs, test[:, 1], strict=True)]
        )
        others = [graph.answers(side, int(row[2 - 2 * side]), int(row[1])) for row in test]
        np.testing.assert_array_equal(filtered[:, side], filtered_ranks(scores, answer, others))
        np.testing.assert_array_equal(raw[:, side], filtered_ranks(scores, answer, [[]] * len(test)))
    assert (filtered < raw).any()
    assert (filtered % 1 == 0.5).any()  # there are ties


def test_a_constant_score_ranks_in_the_middle() -> None:
    test = np.array([[0, 0, 1]], np.int32)
    zeros = np.zeros((9, 4), np.float32), np.zeros((1, 4), np.float32)
    raw, _ = _core.graph_ranks(2, *zeros, test, _core.Graph(test, 9, 1), 1)
    assert raw.tolist() == [[5.0, 5.0]]


def test_ranks_and_scores_do_not_depend_on_the_number_of_threads() -> None:
    test = random_triples(50, 300, 5)
    t = trainer(test, 300, 5, dim=33)
    graph = _core.Graph(test, 300, 5)
    ranks = [_core.graph_ranks(1, *t.values(), test, graph, threads) for threads in (1, 2, 5)]
    scores = [_core.graph_scores(1, *t.values(), test, threads) for threads in (1, 2, 5)]
    for other in ranks[1:]:
        np.testing.assert_array_equal(other, ranks[0])
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


@pytest.mark.parametrize("model", MODELS)
def test_scores_are_those_of_the_formulas(model: str) -> None:
    test = random_triples(30, 20, 5)
    entities, relations = trainer(test, 20, 5, dim=70).values()
    found = _core.graph_scores(MODELS[model], entities, relations, test, 2)
    tables = entities.astype(float), relations.astype(float)
    np.testing.assert_allclose(found, score(MODELS[model], *tables, *test.T), rtol=0, atol=2e-6)


def test_embeddings_that_are_not_finite_have_no_ranks() -> None:
    test = random_triples(5, 6, 2)
    entities, relations = trainer(test, 6, 2).values()
    entities[3, 1] = np.nan
    with pytest.raises(FloatingPointError, match="entity 3 has an embedding that is not finite"):
        _core.graph_ranks(1, entities, relations, test, _core.Graph(test, 6, 2), 1)
    with pytest.raises(ValueError, match=r"triple 0 is \(.*\); there are 6 entities and 1 relations"):
        _core.graph_scores(1, entities, relations[:1], np.array([[0, 1, 2]], np.int32), 1)
