"""Bags of sentences with distant labels: scores of bags, and what each pooling makes of wrong labels. (Formulas of the
losses: test_oracle_objectives.py, draws: test_sources.py.)"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import records_with_entities
from oracle import tiny_bert

import relpt
from relpt import _core
from relpt.finetuning import Protocol
from relpt.metrics import bag_curve
from relpt.objectives import MIL, POOLINGS

RUN: dict[str, Any] = {"p_blank": 0.0, "input_mix": None, "dropout": 0.0, "max_length": 32}


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


# -- scores ------------------------------------------------------------------------------------------------------------


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max())
    return powers / powers.sum()


def score(pooling: str, x: np.ndarray, heads: dict[str, np.ndarray], relation: int) -> float:
    """Of one bag and one relation, as the papers print it."""
    weight, bias = heads["mil.weight"].astype(float), heads["mil.bias"].astype(float)
    if pooling == "one":
        return float(max(softmax(weight @ row + bias)[relation] for row in x))
    share = np.full(len(x), 1 / len(x))
    if pooling == "attention":
        share = softmax(np.array([row @ np.diag(heads["mil.attention"].astype(float)) @ weight[relation] for row in x]))
    return float(softmax(weight @ (share @ x) + bias)[relation])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scores_are_what_the_papers_say(pooling: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 6)).astype(np.float32)
    heads = {"mil.weight": rng.normal(size=(4, 6)), "mil.bias": rng.normal(size=4), "mil.attention": rng.normal(size=6)}
    heads = {name: value.astype(np.float32) for name, value in heads.items()}
    bags = [[3], [0, 5, 1, 7], (8, 2), [5, 5]]
    got = MIL(pooling=pooling).scores(x, bags, heads, num_threads=1)
    want = [[score(pooling, x[list(bag)], heads, relation) for relation in range(4)] for bag in bags]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert MIL(pooling=pooling).scores(x, [], heads).shape == (0, 4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_loss_is_that_of_the_bags_own_relations(tmp_path: Path, data: relpt.Dataset, pooling: str) -> None:
    """What is predicted of a bag for its relation is what training minimises."""
    encoder = tiny_bert.encoder(tmp_path)
    trainer = relpt.Trainer(encoder, objectives=[MIL(pooling=pooling, dropout=0.0, bags=15, bag_size=3)], **RUN)
    corpus = data.tokenize(encoder, max_length=32)
    sampler, core = trainer._sampler(corpus), _core.Trainer(**trainer._core_options(8, corpus.relations))
    rng = np.random.default_rng(1)
    for name, shape in core.heads():
        core.set(3, name, rng.normal(0, 0.3, shape).astype(np.float32))
    stats, batch, rows = core.gradients(sampler, 0), sampler.batch(0), sampler.rows(0)
    bags = [rows[batch["pair"] == bag] for bag in range(15)]
    labels = [int(corpus.relation[bag[0]]) for bag in bags]
    heads = {name: core.get(3, name) for name, _ in core.heads()}
    scores = trainer.objectives[0].scores(encoder.encode(corpus, max_length=32), bags, heads)
    own = scores[np.arange(15), labels]
    assert stats["loss_mil"] == pytest.approx(float(-np.log(own).mean()), rel=1e-5)
    if pooling == "mean":
        assert stats["accuracy"] == pytest.approx(float((scores.argmax(1) == labels).mean()))


def test_scores_that_cannot_be_made(tmp_path: Path, data: relpt.Dataset) -> None:
    x, heads = np.zeros((3, 2), np.float32), {"mil.weight": np.zeros((2, 2), np.float32)}
    with pytest.raises(KeyError, match=r"there is no 'mil.bias'; there are mil.weight"):
        MIL().scores(x, [[0]], heads)
    heads |= {"mil.bias": np.zeros(2, np.float32), "mil.attention": np.ones(2, np.float32)}
    for bags, message in (
        ([[0], []], "bag 1 has no sentence"),
        ([[0, 3]], "bags name sentences 0 to 3, and there are"),
    ):
        with pytest.raises(ValueError, match=message):
            MIL().scores(x, bags, heads)
    trainer = relpt.Trainer(tiny_bert.encoder(tmp_path), objectives=[MIL()], **RUN)
    with pytest.raises(KeyError, match="there is no MIL objective 'rc'; there are mil"):
        trainer.bag_scores(x, [[0]], name="rc")
    with pytest.raises(KeyError, match="run fit first"):
        trainer.bag_scores(x, [[0]])


# -- wrong labels ------------------------------------------------------------------------------------------------------

RELATIONS = [*tiny_bert.RELATIONS[:3], "NA"]


def distant_data(bags: int, seed: int) -> tuple[relpt.Dataset, np.ndarray]:
    """Bags of four. Half of them are of "NA"; of each other, one sentence has words that tell the relation, and three
    are like those of NA: wrong labels. Which sentences tell theirs."""
    rng = np.random.default_rng(seed)
    records, tells = [], []
    for number in rng.permutation(4 * bags).tolist():
        bag, relation = number // 4, number // 4 % 6
        telling = relation < 3 and number % 4 == 0
        count = int(rng.integers(8, 16))
        words = rng.integers(40, 60, count)
        if telling:
            words = np.where(rng.random(count) < 0.9, relation * 7 + rng.integers(7, size=count), words)
        record: dict[str, Any] = {"token": [f"w{word}" for word in words], "relation": RELATIONS[min(relation, 3)]}
        for side, start in (("h", int(rng.integers(0, count - 4))), ("t", count - 2)):
            name = record["token"][start]
            record[side] = {"name": name, "pos": [start, start + 1], "id": f"{side}{bag}"}
        records.append(record)
        tells.append(telling)
    return relpt.load(records), np.array(tells)


def test_wrong_labels_in_bags(tmp_path: Path) -> None:
    """On pairs never seen, attention and at-least-one turn to the sentences that tell the relation, and rank facts
    better than the mean of all sentences does."""
    train, _ = distant_data(400, seed=1)
    test, tells = distant_data(100, seed=2)
    bags, auc, found = test.bags(), {}, {}
    for pooling in POOLINGS:
        encoder = tiny_bert.encoder(tmp_path / pooling, representation="mean")
        trainer = relpt.Trainer(
            encoder,
            objectives=[MIL(pooling=pooling, dropout=0.0, bags=20, bag_size=4)],
            **RUN,
            learning_rate=2e-3,
            max_steps=150,
        )
        trainer.fit(train, show_progress_bar=False)
        labels, heads = encoder.card["relations"], trainer.heads
        vectors = encoder.encode(test, max_length=32)
        gold = [[name in bag.relations for name in labels] for bag in bags]
        auc[pooling] = bag_curve(trainer.bag_scores(vectors, bags), gold, labels.index("NA")).auc
        share = []
        for bag in bags:
            (relation,), x = bag.relations, vectors[list(bag.indices)]
            if relation != "NA" and pooling != "mean":
                logits = trainer.logits(x, name="mil")
                chances = np.array([softmax(row) for row in logits])[:, labels.index(relation)]
                weights = np.eye(4)[chances.argmax()]
                if pooling == "attention":
                    weights = softmax((x * heads["mil.attention"]) @ heads["mil.weight"][labels.index(relation)])
                share.append(float(weights @ tells[list(bag.indices)]))
        found[pooling] = np.mean(share) if share else 0.25
    print(f"AUC {auc}, share of the right sentence {found}")
    assert min(found["attention"], found["one"]) > 0.7 > 2 * found["mean"]
    assert auc["attention"] > auc["mean"] + 0.3
    assert auc["one"] > auc["mean"] + 0.2


# -- bags that are not there -------------------------------------------------------------------------------------------


def test_sentences_without_entities_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = records_with_entities()
    for record in records[:7]:
        del record["h"]["id"], record["h"]["name"]
    encoder, few = tiny_bert.encoder(tmp_path), relpt.load(records)
    trainer = relpt.Trainer(encoder, objectives=[MIL()], max_steps=1, **RUN)
    with caplog.at_level(logging.WARNING, "relpt"):
        trainer.fit(few, show_progress_bar=False)
    corpus = few.tokenize(encoder, max_length=32)
    unknown = int((corpus.head_id < 0).sum())
    assert f"{unknown} of 60 sentences are left out: they have an entity with neither id nor name" in caplog.text


def test_data_without_bags_or_relations(tmp_path: Path, data: relpt.Dataset) -> None:
    trainer = relpt.Trainer(tiny_bert.encoder(tmp_path), objectives=[MIL()], max_steps=1, **RUN)
    alone = [{**record, "h": {**record["h"], "id": f"H{i}"}} for i, record in enumerate(records_with_entities())]
    with pytest.raises(ValueError, match="no bag has two sentences: 60 sentences know both entities"):
        trainer.fit(relpt.load(alone), show_progress_bar=False)
    plain = [{key: value for key, value in record.items() if key != "relation"} for record in records_with_entities()]
    with pytest.raises(ValueError, match="names no relations; mil cannot be trained without"):
        trainer.fit(relpt.load(plain), show_progress_bar=False)


# -- fine-tuning -------------------------------------------------------------------------------------------------------

TUNING: dict[str, Any] = {"learning_rate": 2e-3, "batch_size": 20, "bag_size": 4, "dropout": 0.0, "max_length": 32}


def tuned(encoder: Any, data: Any, *, dev: Any = None, **options: Any) -> relpt.Classifier:
    return relpt.Classifier(encoder, **{**TUNING, **options}).fit(data, dev=dev, show_progress_bar=False)


@pytest.fixture(scope="module")
def distant() -> tuple[relpt.Dataset, relpt.Dataset]:
    return distant_data(400, seed=1)[0], distant_data(100, seed=2)[0]


@pytest.fixture(scope="module")
def attentive(
    distant: tuple[relpt.Dataset, relpt.Dataset], tmp_path_factory: pytest.TempPathFactory
) -> relpt.Classifier:
    encoder = tiny_bert.encoder(tmp_path_factory.mktemp("attentive"), representation="mean")
    return tuned(encoder, distant[0], dev=distant[1], bags="attention", epochs=8)


def test_a_classifier_of_bags(
    attentive: relpt.Classifier, distant: tuple[relpt.Dataset, relpt.Dataset], tmp_path: Path
) -> None:
    """Learns from bags with three wrong labels of four, is judged by them after each epoch, and keeps what it learned
    in its folder."""
    test = distant[1]
    found = attentive.score_bags(test)
    print(found, [float(score) for score in attentive.dev_scores])
    assert len(attentive.history) == 8 * 20  # 400 bags, 20 a step
    assert found.auc == float(attentive.score(test)) == float(attentive.dev_scores[-1])
    assert attentive.score(test).metric == "bag_auc"
    assert found.auc > 0.8
    assert float(attentive.dev_scores[0]) < found.auc - 0.3
    attentive.save_pretrained(tmp_path)
    again = relpt.Classifier.from_pretrained(tmp_path)
    assert again.options["bags"] == "attention"
    np.testing.assert_array_equal(again.score_bags(test).scores, found.scores)


def test_figures_of_bags_are_those_of_their_curve(
    attentive: relpt.Classifier, distant: tuple[relpt.Dataset, relpt.Dataset]
) -> None:
    test = distant[1]
    found, bags, labels = attentive.score_bags(test), test.bags(), attentive.labels
    assert attentive.head is not None
    heads = {"mil.weight": attentive.head[0], "mil.bias": attentive.head[1], "mil.attention": attentive.attention}
    scores = MIL().scores(attentive.tuned.encode(test, max_length=32), bags, heads)  # type: ignore[arg-type]
    curve = bag_curve(scores, [[name in bag.relations for name in labels] for bag in bags], labels.index("NA"))
    assert found.to_dict() == {
        "bags": 100,
        "facts": sum(bag.relations != ("NA",) for bag in bags),
        "auc": pytest.approx(curve.auc),
        "max_f1": pytest.approx(curve.max_f1),
        **{f"p_at_{n}": pytest.approx(curve.precision_at(n)) for n in (100, 200, 300)},
    }
    top = found.top(5)
    assert [fact["score"] for fact in top] == sorted((fact["score"] for fact in top), reverse=True)
    for fact in top:
        relations = {test[row].relation for row in fact["sentences"]}
        assert fact["true"] == (fact["relation"] in relations)
        assert fact["relation"] != "NA"
        assert {test[row].head_id for row in fact["sentences"]} == {fact["head"]}
    assert "AUC" in repr(found)
    assert "P@100" in found._repr_html_()


def test_bags_of_some_of_their_sentences(
    attentive: relpt.Classifier, distant: tuple[relpt.Dataset, relpt.Dataset]
) -> None:
    """One, two or all sentences of the bags that have several: each scored as if the others were not there."""
    test = distant[1]
    several = [bag for bag in test.bags() if len(bag.indices) > 1]
    whole = attentive.score_bags(test, sentences="all")
    assert [(bag.head, bag.indices, bag.relations) for bag in whole.bags] == [
        (bag.head, bag.indices, bag.relations) for bag in several
    ]
    for most in (1, 2):
        found = attentive.score_bags(test, sentences=most, seed=5)
        assert [(bag.head, bag.relations) for bag in found.bags] == [(bag.head, bag.relations) for bag in several]
        for bag, all_of_it in zip(found.bags, several, strict=True):
            assert len(bag.indices) == min(most, len(all_of_it.indices))
            assert set(bag.indices) < {*all_of_it.indices} or bag.indices == all_of_it.indices
        kept = sorted(i for bag in found.bags for i in bag.indices)
        alone = attentive.score_bags(test[kept])
        assert {bag.head: row.tolist() for bag, row in zip(alone.bags, alone.scores, strict=True)} == {
            bag.head: row.tolist() for bag, row in zip(found.bags, found.scores, strict=True)
        }
        assert attentive.score_bags(test, sentences=most, seed=5).bags == found.bags
        assert attentive.score_bags(test, sentences=most, seed=6).bags != found.bags
    with pytest.raises(ValueError, match="sentences is 0; expected a number of each bag's, from 1 on, or 'all'"):
        attentive.score_bags(test, sentences=0)
    first = [bag.indices[0] for bag in several]
    with pytest.raises(ValueError, match=f"none of {len(first)} bags has more than one sentence"):
        attentive.score_bags(test[first], sentences=1)


def test_a_classifier_of_sentences_ranks_bags_too(distant: tuple[relpt.Dataset, relpt.Dataset], tmp_path: Path) -> None:
    """By the largest probability among a bag's sentences; facts of a relation that was not trained are never found."""
    train, test = distant[0][:400], distant[1]
    encoder = tiny_bert.encoder(tmp_path, representation="mean")
    made = tuned(encoder, train, epochs=1, unknown_labels="wrong")
    found, chances = made.score_bags(test), made.predict_proba(test)
    for bag, row in zip(found.bags, found.scores, strict=True):
        np.testing.assert_allclose(row, chances[list(bag.indices)].max(axis=0), rtol=1e-5)
    assert made.score(test).metric == "micro_f1"
    assert made.score(test, metric="bag_auc") == found.auc
    fewer = tuned(encoder, train.select(labels=RELATIONS[1:]), epochs=1, unknown_labels="wrong")
    lacking = fewer.score_bags(test)
    assert lacking.unknown == 1
    assert lacking.labels[-1] == RELATIONS[0]
    assert (lacking.scores[:, -1] == -1).all()
    assert lacking.to_dict()["facts"] == found.to_dict()["facts"]
    facts = tuned(encoder, train.select(labels=RELATIONS[:3]), epochs=1, unknown_labels="wrong")
    assert facts.score_bags(test).negative == "NA"  # though nothing of it was trained
    assert facts.score_bags(test).to_dict()["facts"] == found.to_dict()["facts"]


def test_bags_of_a_hybrid_and_of_a_corpus(data: relpt.Dataset, tmp_path: Path) -> None:
    first, second = (tiny_bert.encoder(tmp_path / name) for name in ("a", "b"))
    both = relpt.HybridEncoder(first, relpt.CNNEncoder.from_data(data, hidden_size=8), second)
    made = tuned(both, data, bags="one", epochs=2)
    assert len(made.history) == 2 * -(-len({(i.head_id, i.tail_id, i.relation) for i in data}) // 20)
    assert made.score_bags(data).scores.shape == (len(data.bags()), len(data.labels))
    corpus = data.tokenize(first, max_length=32)
    assert corpus.bags() == data.bags()


def test_runs_over_seeds_report_bags(data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = tiny_bert.encoder(tmp_path / "encoder")
    options = {**TUNING, "bags": "mean", "epochs": 1}
    runs = relpt.finetune(encoder, data, test=data, seeds=(1, 2), output=tmp_path / "runs", **options)
    assert [row["metric"] for row in runs.rows] == ["bag_auc"] * 2
    assert [row["bags"]["auc"] for row in runs.rows] == [row["test"] for row in runs.rows]
    assert relpt.finetune(encoder, data, test=data, seeds=(1, 2), output=tmp_path / "runs", **options).computed == 0
    keys = [
        Protocol(encoder, data, None, data, None, None, more, False).key("C+M", 1.0, 1)
        for more in ({}, {"bag_size": 3}, {"bags": "one"}, {"bags": "one", "bag_size": 3})
    ]
    assert keys[0] == keys[1]  # nothing reads it
    assert len(set(keys)) == 3


def test_bags_that_cannot_be_trained_or_scored(data: relpt.Dataset, tmp_path: Path) -> None:
    encoder, records = tiny_bert.encoder(tmp_path), records_with_entities()
    for record in records[:7]:
        del record["h"]["id"], record["h"]["name"]
    unknown = sum("id" not in record["h"] for record in records)
    few = relpt.load(records)
    message = rf"{unknown} of 60 instances have an entity with neither id nor name, by one of which bags are made"
    with pytest.raises(ValueError, match=message):
        tuned(encoder, data, bags="one", dev=few, epochs=1)
    with pytest.raises(ValueError, match=message):
        relpt.finetune(encoder, data, test=few, bags="one")
    nothing = [{**record, "relation": "NA"} for record in records_with_entities()]
    train = relpt.load([*records_with_entities(), *nothing])
    with pytest.raises(ValueError, match=r"none of \d+ bags has a relation beside 'NA'; give data with facts"):
        tuned(encoder, train, bags="one", epochs=1).score_bags(relpt.load(nothing))
    alone = [{**record, "h": {**record["h"], "id": f"H{i}"}} for i, record in enumerate(records_with_entities())]
    with pytest.raises(ValueError, match="no bag has two sentences"):
        tuned(encoder, relpt.load(alone), bags="one", epochs=1)
    with pytest.raises(ValueError, match="bags is 'max'; expected"):
        relpt.Classifier(encoder, bags="max")
