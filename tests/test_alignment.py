"""relpt.objectives.Alignment: relation vectors and a graph's relations. (Formula: test_oracle_objectives.py.)"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert
from test_objectives import core_parts, encoder_of, trainer_of, weights

import relpt
from relpt.objectives import CP, RC, Alignment


@pytest.fixture(scope="module")
def graph() -> relpt.GraphEmbeddings:
    return graph_of(records_with_entities())


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


def test_relations_of_the_graph_are_learned(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    """The head, and the graph's embeddings as they were, find each sentence's relation among all of the graph."""
    encoder, before = encoder_of(tmp_path), graph.relation_embeddings.copy()
    options = {"p_blank": 0.0, "sentences_per_step": 30, "max_steps": 60, "learning_rate": 3e-3}
    trainer = trainer_of(encoder, [Alignment(graph=graph)], **options)
    history = trainer.fit(data, show_progress_bar=False)
    chance = 1 / len(graph.relations)
    assert len(graph.relations) == 7
    assert history["accuracy"][-5:].mean() > 0.95 > 3 * chance > history["accuracy"][:2].mean()
    np.testing.assert_array_equal(graph.relation_embeddings, before)
    assert trainer.heads.keys() == {"alignment.weight"}
    x = encoder.encode(data, max_length=32) @ trainer.heads["alignment.weight"].T
    r = graph.relation_embeddings / np.linalg.norm(graph.relation_embeddings, axis=1, keepdims=True)
    found = [graph.relations[row] for row in (x @ r.T).argmax(1)]
    assert np.mean([name == i.relation for name, i in zip(found, data, strict=True)]) > 0.95
    assert not caplog.records  # all relations are known: nothing to tell
    with pytest.raises(KeyError, match=r"there is no head 'alignment'; there are alignment\.weight"):
        trainer.logits(x, name="alignment")


@pytest.mark.weights
def test_the_sample_corpus_is_aligned_with_its_graph(tmp_path: Path) -> None:
    data = relpt.load_sample("train")
    graph = relpt.GraphEmbeddings(dim=32).fit([(i.head_name, i.relation, i.tail_name) for i in data])
    few = data.select(labels=["author", "capital", "flows_into", "spouse"])
    options = {"sentences_per_step": 16, "max_steps": 25, "learning_rate": 3e-4}
    trainer = relpt.Trainer(relpt.Encoder.from_pretrained("minilm"), objectives=[Alignment(graph=graph)], **options)
    history = trainer.fit(few, show_progress_bar=False)
    chance = 1 / len(graph.relations)
    assert len(graph.relations) == 16
    assert history["accuracy"][-5:].mean() > 0.6 > 6 * chance > history["accuracy"][:2].mean()


@pytest.mark.core
def test_samples_of_unknown_relations_do_not_count(tmp_path: Path, data: relpt.Dataset) -> None:
    """Loss and gradients are those of the other sentences; a step without any has none."""
    known = relpt.load([r for r in records_with_entities() if r["relation"] != "married to"])
    graph = graph_of(records_with_entities(), leave_out="married to")
    encoder, found = encoder_of(tmp_path), []
    for sentences in (data, known):  # the whole of each in one step, in an order of its own
        size = {"sentences_per_step": len(sentences), "p_blank": 0.0}
        sampler, core = core_parts(trainer_of(encoder, [Alignment(graph=graph)], **size), sentences)
        stats = core.gradients(sampler, 0)
        found.append((stats["loss"], stats["accuracy"], core.get(0, "alignment.weight")))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == pytest.approx(found[1][1])
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-3, atol=1e-5)
    none = relpt.load([r for r in records_with_entities() if r["relation"] == "married to"])
    sampler, core = core_parts(trainer_of(encoder, [Alignment(graph=graph)]), none)
    stats = core.gradients(sampler, 0)
    assert (stats["loss"], stats["accuracy"], stats["grad_norm"]) == (0, 0, 0)


def test_unknown_relations_are_counted(
    tmp_path: Path, data: relpt.Dataset, caplog: pytest.LogCaptureFixture, graph: relpt.GraphEmbeddings
) -> None:
    without = graph_of(records_with_entities(), leave_out="married to")
    with caplog.at_level(logging.WARNING, "relpt"):
        trainer_of(encoder_of(tmp_path), [Alignment(graph=without)], max_steps=1).fit(data, show_progress_bar=False)
    sentences = sum(i.relation == "married to" for i in data)
    counts = f"the graph knows 4 of data's 5 relations; {sentences} of 60 sentences are of others, such as 'married to'"
    assert counts in caplog.text
    renamed = relpt.load([{**r, "relation": r["relation"].upper()} for r in records_with_entities()])
    before = weights(encoder := encoder_of(tmp_path))
    said = (
        r"alignment: the graph knows 0 of data's 5 relations; 60 of 60 sentences are of others, such as 'BORN IN', .*"
        r"the graph's such as 'born in', .*; give relation_names="
    )
    with pytest.raises(ValueError, match=said):
        trainer_of(encoder, [Alignment(graph=graph)]).fit(renamed, show_progress_bar=False)
    assert weights(encoder) == before
    names = {name.upper(): name for name in tiny_bert.RELATIONS}
    histories = []
    for sentences, own in ((data, None), (renamed, names)):
        trainer = trainer_of(encoder_of(tmp_path), [Alignment(graph=graph, relation_names=own)], max_steps=2)
        histories.append([record["loss"] for record in trainer.fit(sentences, show_progress_bar=False)])
    assert histories[0] == histories[1]


def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings
) -> None:
    """With the graph in memory or in a folder; with another graph there is nothing to resume."""
    folder = graph.save(tmp_path / "graph")
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def run(checkpoints: Path, given: Any, resume: bool = False, stop: int = 6) -> None:
        objectives = [Alignment(graph=given, temperature=0.2), CP(weight=0.5)]
        trainer = trainer_of(encoder_of(tmp_path / "e", dropout=0.1), objectives)
        calls = [lambda record: record["step"] == stop]
        trainer.fit(data, checkpoint_dir=checkpoints, callbacks=calls, resume=resume, show_progress_bar=False)

    run(whole, graph)
    run(parts, graph, stop=3)
    run(parts, folder, resume=True)
    for name in ("model.safetensors", "optimizer.safetensors", "heads.safetensors"):
        assert (whole / "step-00000006" / name).read_bytes() == (parts / "step-00000006" / name).read_bytes(), name
    options = json.loads((parts / "step-00000006" / "relpt.json").read_text())["options"]["objectives"][0]
    assert (options["type"], options["graph"]["model"], options["graph"]["relations"]) == ("Alignment", "transe", 7)
    with pytest.raises(ValueError, match="resume: objectives is"):
        run(parts, graph_of(records_with_entities(), seed=7), resume=True)


def test_threads_do_not_change_a_byte(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    results = []
    for threads in (1, 2, 3):
        encoder = encoder_of(tmp_path / str(threads), dropout=0.1, num_threads=threads)
        trainer = trainer_of(encoder, [Alignment(graph=graph)], sentences_per_step=40, max_steps=3)
        trainer.fit(data, show_progress_bar=False)
        results.append((weights(encoder), trainer.heads["alignment.weight"].tobytes()))
    assert results[0] == results[1] == results[2]


def test_the_sentences_of_others_can_be_shared(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings
) -> None:
    for objectives, sentences in (
        ([Alignment(graph=graph, source="relations"), CP()], 12),
        ([RC(whole_epochs=True), Alignment(graph=graph)], 12),
    ):
        history = trainer_of(encoder_of(tmp_path), objectives, max_steps=1).fit(data, show_progress_bar=False)
        assert history[0]["sentences"] == sentences
    ragged = trainer_of(encoder_of(tmp_path), objectives, sentences_per_step=32, max_steps=2)
    assert [record["sentences"] for record in ragged.fit(data, show_progress_bar=False)] == [32, 28]
    assert math.isfinite(ragged.fit(data, show_progress_bar=False)[1]["loss_alignment"])


def test_graphs_that_do_not_go(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    with pytest.raises(ValueError, match=r"graph of alignment is None; expected relpt\.GraphEmbeddings, or a folder"):
        Alignment()
    with pytest.raises(FileNotFoundError, match=r"has no graph\.json"):
        Alignment(graph=tmp_path / "nothing")
    with pytest.raises(RuntimeError, match="not trained"):
        Alignment(graph=relpt.GraphEmbeddings())
    with pytest.raises(ValueError, match="temperature is 0, expected above 0"):
        trainer_of(encoder_of(tmp_path), [Alignment(graph=graph, temperature=0.0)]).fit(data, show_progress_bar=False)
    plain = relpt.load([{k: v for k, v in r.items() if k != "relation"} for r in records_with_entities()])
    with pytest.raises(ValueError, match="names no relations; alignment cannot be trained without"):
        trainer_of(encoder_of(tmp_path), [Alignment(graph=graph)]).fit(plain, show_progress_bar=False)
