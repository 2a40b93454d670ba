"""A graph's entity embeddings at the markers: Encoder.inject. (Gradients against PyTorch: test_oracle_injection.py.)"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert
from test_objectives import core_parts, encoder_of, trainer_of, weights

import relpt
from relpt import _core
from relpt.data.report import entity_keys
from relpt.objectives import CP, MLM, RC, Alignment
from relpt.weights import core_config

W = "graph_projection.weight"
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def graph() -> relpt.GraphEmbeddings:
    return graph_of(records_with_entities())


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


def injected(folder: Path, graph: Any, seed: int | None = 0, dropout: float = 0.0, **options: Any) -> relpt.Encoder:
    """An encoder with the graph, W drawn by the seed; None leaves it at 0."""
    encoder = encoder_of(folder, **options).inject(graph, dropout=dropout)
    if seed is not None:
        shape = encoder._model.get(W).shape
        encoder._model.set(W, np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32))
    return encoder


# -- what it computes --------------------------------------------------------------------------------------------------


def test_a_fresh_graph_changes_no_byte(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    plain, fresh = encoder_of(tmp_path), injected(tmp_path, graph, seed=None)
    assert fresh._model.get(W).shape == (32, graph.dim)
    for inputs in ("C+M", "OnlyM"):
        before, after = (encoder.encode(data, inputs=inputs, max_length=32) for encoder in (plain, fresh))
        assert before.tobytes() == after.tobytes()


def test_each_mention_gets_its_own_entity(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    """W g is added to the start marker's embedding: the same as a marker with that word embedding."""
    encoder = injected(tmp_path, graph)
    added = graph.entity_embeddings @ encoder._model.get(W).T
    for row in (0, 7):
        one = encoder_of(tmp_path)
        words = one._model.get("embeddings.word_embeddings.weight")
        for marker, entity in (("head_start", data[row].head_id), ("tail_start", data[row].tail_id)):
            words[one._tokens[marker]] += added[graph.entities.index(entity)]
        one._model.set("embeddings.word_embeddings.weight", words)
        for inputs in ("C+M", "OnlyM"):
            want, got = (e.encode(data[row], inputs=inputs, max_length=32) for e in (one, encoder))
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_graph_says_no_more_than_the_sentence(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    plain, encoder = encoder_of(tmp_path), injected(tmp_path, graph)
    for inputs in ("C+T", "OnlyC", "OnlyT"):
        before, after = (e.encode(data, inputs=inputs, max_length=32) for e in (plain, encoder))
        assert before.tobytes() == after.tobytes(), inputs
    corpus = data.tokenize(encoder, max_length=32)
    tokens = encoder._input_tokens(corpus, ["C+M"])
    blanks = np.array([[0, 0], [1, 0], [0, 1]], np.uint8)
    batch = _core.build_batch(corpus.core(), tokens, np.zeros(3, np.int64), 0, 32, blanks)
    head, tail = (graph.entities.index(name) for name in (data[0].head_id, data[0].tail_id))
    assert batch["head_entity"].tolist() == [head, -1, head]
    assert batch["tail_entity"].tolist() == [tail, tail, -1]
    assert not caplog.records


def test_unknown_entities_are_counted_and_get_nothing(
    tmp_path: Path, graph: relpt.GraphEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    records = records_with_entities(6)
    for record in records[:2]:
        record["h"]["id"] = f"new {record['h']['id']}"
    del records[2]["t"]["id"]
    sentences = relpt.load(records)
    with caplog.at_level(logging.WARNING, "relpt"):
        got = injected(tmp_path, graph).encode(sentences, max_length=32)
    assert "3 of 12 mentions are of entities that the graph does not know: nothing is injected at them" in caplog.text
    own = [("T0", records[0]), ("T0", records[1])]
    assert all(record["t"]["id"].startswith("T") for _, record in own)
    lone = relpt.load([{**r, "h": {**r["h"], "id": "H9"}, "t": {**r["t"], "id": "T9"}} for r in records])
    np.testing.assert_array_equal(
        injected(tmp_path, graph).encode(lone, max_length=32), encoder_of(tmp_path).encode(lone, max_length=32)
    )
    plain = encoder_of(tmp_path).encode(sentences, max_length=32)
    assert (np.abs(got - plain).max(1) > 1e-3).all()  # one side of each is known


def test_entities_without_id_are_found_by_name(tmp_path: Path) -> None:
    records = records_with_entities(8)
    graph = relpt.GraphEmbeddings(dim=4, epochs=1, negatives=2).fit(
        [(record["h"]["name"].upper(), "near", record["t"]["name"].upper()) for record in records]
    )
    named = [{**r, **{side: {k: v for k, v in r[side].items() if k != "id"} for side in ("h", "t")}} for r in records]
    corpus = relpt.load(named).tokenize(encoder_of(tmp_path), max_length=32)
    rows = injected(tmp_path, graph).injection.rows(corpus)
    assert [graph.entities[rows[number]].casefold() for number in corpus.head_id] == [
        " ".join(record["h"]["name"].split()).casefold() for record in records
    ]
    doubled = relpt.GraphEmbeddings(dim=4, epochs=1, negatives=2).fit([("Ada", "r", "ADA"), ("Ada", "r", "Bob")])
    assert doubled._rows_of(["name:ada", "name:bob", "id:ADA", "id:ada"]).tolist() == [-1, 2, 1, -1]


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.core
def test_gradients_of_the_projection(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    """Finite differences along random directions, with dropout and in micro-batches."""
    encoder = injected(tmp_path, graph, dropout=0.3)
    trainer = trainer_of(encoder, [CP(similarity="dot", temperature=4.0), MLM()], dropout=0.1, micro_batch_pairs=2)
    encoder._model.set(W, 0.1 * encoder._model.get(W))
    sampler, core = core_parts(trainer, data)
    core.gradients(sampler, 3)
    gradient, rng, slopes = core.get(0, W).astype(np.float64), np.random.default_rng(0), []
    start = encoder._model.get(W)
    for _ in range(4):
        direction = rng.normal(size=gradient.shape)
        direction /= np.linalg.norm(direction)
        losses = []
        for size in (0.02, -0.02):
            encoder._model.set(W, (start + size * direction).astype(np.float32))
            losses.append(core.gradients(sampler, 3)["loss"])
        slopes.append(((losses[0] - losses[1]) / 0.04, float((gradient * direction).sum())))
    measured, expected = np.array(slopes).T
    assert np.abs(expected).max() > 0.01
    assert np.linalg.norm(measured - expected) <= 0.02 * np.linalg.norm(expected) + 1e-4


def test_the_graph_helps_where_it_tells(tmp_path: Path) -> None:
    """The same names for all, and a relation that follows from the entities' ids alone."""
    records = records_with_entities(60)
    for i, record in enumerate(records):
        record["relation"] = tiny_bert.RELATIONS[int(record["h"]["id"][1:]) % 3]
        for side in ("h", "t"):
            start, stop = record[side]["pos"]
            record["token"][start:stop] = ["w1"] * (stop - start)
            record[side]["name"] = " ".join(record["token"][start:stop])
        record["token"] = [
            word if word == "w1" else f"w{2 + (i * 7 + place) % 50}" for place, word in enumerate(record["token"])
        ]
    graph, losses = graph_of(records, dim=16, epochs=30), {}
    options = {"p_blank": 0.0, "sentences_per_step": 30, "max_steps": 40, "learning_rate": 3e-3}
    for name, encoder in (("with", injected(tmp_path, graph, seed=None)), ("without", encoder_of(tmp_path))):
        history = trainer_of(encoder, [RC(dropout=0.0)], **options).fit(relpt.load(records), show_progress_bar=False)
        losses[name] = history["loss"][-5:].mean()
    assert losses["with"] < 0.5 * losses["without"]


def test_dropout_is_of_whole_sentences(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    shares = {}
    for rate in (0.0, 0.4, 1.0):
        trainer = trainer_of(injected(tmp_path, graph, dropout=rate), [RC()], sentences_per_step=60, p_blank=0.0)
        sampler, _ = core_parts(trainer, data)
        batches = [sampler.batch(step) for step in range(20)]
        given = np.concatenate([np.stack([batch["head_entity"], batch["tail_entity"]]) >= 0 for batch in batches], 1)
        np.testing.assert_array_equal(given[0], given[1])
        shares[rate] = given.mean()
    assert (shares[0.0], shares[1.0]) == (1, 0)
    assert shares[0.4] == pytest.approx(0.6, abs=0.05)
    runs = []  # nothing is given: the run is that of an encoder without a graph
    for encoder in (injected(tmp_path, graph, seed=None, dropout=1.0), encoder_of(tmp_path)):
        trainer_of(encoder, [RC(), CP()], max_steps=3).fit(data, show_progress_bar=False)
        names = [name for name, _ in encoder._model.parameters() if name != W]
        runs.append(b"".join(encoder._model.get(name).tobytes() for name in names))
    assert runs[0] == runs[1]


def test_threads_and_micro_batches(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    results = []
    for threads in (1, 2, 3):
        encoder = injected(tmp_path, graph, dropout=0.2, num_threads=threads)
        trainer_of(encoder, [CP(), MLM()], pairs_per_step=20, max_steps=3).fit(data, show_progress_bar=False)
        results.append(weights(encoder))
    assert results[0] == results[1] == results[2]
    encoder, found = injected(tmp_path, graph, dropout=0.2), []
    for micro in (32, 1):
        sampler, core = core_parts(trainer_of(encoder, [CP()], micro_batch_pairs=micro, dropout=0.1), data)
        core.gradients(sampler, 2)
        found.append(core.get(0, W))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-7)


def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def run(checkpoints: Path, given: Any, resume: bool = False, stop: int = 6, dropout: float = 0.3) -> relpt.Encoder:
        encoder = encoder_of(tmp_path / "e", dropout=0.1)
        encoder = encoder if given is None else encoder.inject(given, dropout=dropout)
        calls = [lambda record: record["step"] == stop]
        fit = {"checkpoint_dir": checkpoints, "callbacks": calls, "resume": resume, "show_progress_bar": False}
        trainer_of(encoder, [CP(), MLM()]).fit(data, **fit)
        return encoder

    run(whole, graph)
    run(parts, graph, stop=3)
    encoder = run(parts, graph.save(tmp_path / "graph"), resume=True)
    for name in ("model.safetensors", "optimizer.safetensors", "graph.safetensors"):
        assert (whole / "step-00000006" / name).read_bytes() == (parts / "step-00000006" / name).read_bytes(), name
    assert np.abs(encoder._model.get(W)).max() > 1e-4
    card = json.loads((parts / "step-00000006" / "relpt.json").read_text())
    assert card["encoder"]["injection"]["entities"] == len(graph.entities)
    for other, dropout in ((None, 0.3), (graph, 0.1), (graph_of(records_with_entities(), seed=7), 0.3)):
        with pytest.raises(ValueError, match="resume: injection is"):
            run(parts, other, resume=True, dropout=dropout)


def test_nothing_to_learn_is_an_error(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    others = relpt.GraphEmbeddings(dim=4, epochs=1, negatives=2).fit([("Q1", "P1", "Q2")])
    said = r"data: the graph knows none of its 10 entities \(such as 'id:H0'.*; the graph's 2 are such as 'Q1', 'Q2'\)"
    with pytest.raises(ValueError, match=said):
        trainer_of(injected(tmp_path, others, seed=None), [RC()]).fit(data, show_progress_bar=False)
    bare = relpt.load(
        [{**r, "h": {"pos": r["h"]["pos"]}, "t": {"pos": r["t"]["pos"]}} for r in records_with_entities()]
    )
    with pytest.raises(
        ValueError, match=r"data: none of its 120 mentions has an id or a name, by which the graph knows"
    ):
        trainer_of(injected(tmp_path, graph, seed=None), [RC()]).fit(bare, show_progress_bar=False)
    trained = injected(tmp_path, others)  # one that has learned elsewhere may be trained on
    assert len(trainer_of(trained, [RC()], max_steps=1).fit(data, show_progress_bar=False)) == 1


# -- its life ----------------------------------------------------------------------------------------------------------


def test_it_is_saved_opened_copied_and_removed(
    tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings
) -> None:
    encoder = injected(tmp_path / "e", graph, dropout=0.25)
    vectors = encoder.encode(data, max_length=32)
    folder = encoder.save_pretrained(tmp_path / "saved")
    opened = relpt.Encoder.from_pretrained(folder)
    assert opened.injection.dropout == 0.25
    assert opened.injection.graph.entities == graph.entities
    twin = encoder.copy()
    for other in (opened, twin):
        assert other.encode(data, max_length=32).tobytes() == vectors.tobytes()
    assert opened.get_params()["injection"]["dropout"] == 0.25
    assert "GraphEmbeddings" in opened._repr_html_()
    twin.inject(None)
    plain = encoder_of(tmp_path / "e").encode(data, max_length=32)
    assert twin.encode(data, max_length=32).tobytes() == plain.tobytes() != vectors.tobytes()
    assert encoder.encode(data, max_length=32).tobytes() == vectors.tobytes()
    opened.inject(None).save_pretrained(folder)
    assert "injection" not in json.loads((folder / "relpt.json").read_text())
    assert relpt.Encoder.from_pretrained(folder).injection is None
    ids = np.array([1, 5, 2], np.int32)  # no mentions, after a call that had some
    lengths = np.array([3])
    want, got = (e.hidden_states(ids, lengths) for e in (encoder_of(tmp_path / "e"), encoder))
    assert want.tobytes() == got.tobytes()


def test_a_damaged_folder_is_refused(tmp_path: Path, graph: relpt.GraphEmbeddings) -> None:
    folder = injected(tmp_path / "e", graph).save_pretrained(tmp_path / "saved")
    graph_of(records_with_entities(), dim=5)._write(folder)
    with pytest.raises(relpt.FormatError, match=r"tensor graph_projection\.weight has shape \(32, 12\), .* \(32, 5\)"):
        relpt.Encoder.from_pretrained(folder)
    (folder / "graph.json").unlink()
    with pytest.raises(relpt.FormatError, match=r"the graph that it injects: .*graph\.json.*; copy the whole folder"):
        relpt.Encoder.from_pretrained(folder)


def test_corpora_name_their_entities(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    encoder = injected(tmp_path / "e", graph)
    corpus = data.tokenize(encoder, max_length=32)
    assert sorted(corpus.entities) == sorted(
        f"id:{name}" for name in {*(f"H{i}" for i in range(6)), *(f"T{i}" for i in range(4))}
    )
    opened = relpt.Corpus.open(corpus.save(tmp_path / "corpus"), verify=True)
    assert opened.entities == corpus.entities
    np.testing.assert_array_equal(encoder.encode(opened, max_length=32), encoder.encode(data, max_length=32))
    names = tmp_path / "corpus" / "entities.json"
    names.unlink()  # as those that were saved before there were any
    older = relpt.Corpus.open(tmp_path / "corpus", verify=True)
    assert older.data_hash == corpus.data_hash
    assert len(encoder_of(tmp_path / "e").encode(older, max_length=32)) == len(data)
    with pytest.raises(
        ValueError, match="does not name its entities, by which the graph knows them; tokenize the data"
    ):
        encoder.encode(older, max_length=32)
    for damaged in (["id:H0"], ["id:H0"] * 10, [1] * 10, "id:H0"):
        names.write_text(json.dumps(damaged))
        with pytest.raises(relpt.FormatError, match="entities must be the distinct names of 10 entities"):
            encoder.encode(relpt.Corpus.open(tmp_path / "corpus"), max_length=32)
    names.write_text("[")
    with pytest.raises(relpt.FormatError, match=r"entities\.json: damaged"):
        encoder.encode(relpt.Corpus.open(tmp_path / "corpus"), max_length=32)


def test_graphs_that_do_not_go(tmp_path: Path, graph: relpt.GraphEmbeddings) -> None:
    encoder = encoder_of(tmp_path)
    with pytest.raises(TypeError, match=r"graph is 3; expected relpt\.GraphEmbeddings, or a folder of saved ones"):
        encoder.inject(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dropout is 1\.5; expected a number from 0 to 1"):
        encoder.inject(graph, dropout=1.5)
    with pytest.raises(RuntimeError, match="not trained"):
        encoder.inject(relpt.GraphEmbeddings())
    with pytest.raises(FileNotFoundError, match=r"has no graph\.json"):
        encoder.inject(tmp_path / "nothing")
    assert encoder.injection is None


def test_a_row_that_the_table_lacks(tmp_path: Path, data: relpt.Dataset, graph: relpt.GraphEmbeddings) -> None:
    """Below Python, which looks entities up."""
    encoder = injected(tmp_path, graph)
    corpus = data.tokenize(encoder, max_length=32)
    tokens = {**encoder._input_tokens(corpus, ["C+M"]), "graph_row": np.full(10, 10, np.int32)}
    run = encoder._runs.of(32, "float32")
    with pytest.raises(ValueError, match="graph_row names row 10 of the graph's table, the model has 10 rows"):
        run.rows(corpus.core(), tokens, np.arange(2), 0, 32, encoder._parts)
    with pytest.raises(ValueError, match="bare sequences have no markers to inject a graph at"):
        _core.build_batch(corpus.core(), {**tokens, "bare": 1}, np.arange(2), 0, 32)
    with pytest.raises(ValueError, match="a graph of 0 entities of size 3, expected 1 to"):
        _core.Model(**core_config(encoder.config), graph=np.zeros((0, 3), np.float32))


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "codex").is_dir(), reason=f"no {REAL / 'codex'}")
def test_wikidata_meets_wikipedia(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FewRel's sentences carry the ids that CoDEx's triples name; what the graph does not know is counted."""
    data = relpt.load(REAL / "fewrel" / "train64_partial.json")[::40]
    triples = [line.split("\t") for line in (REAL / "codex" / "train.txt").read_text().splitlines()]
    graph = relpt.GraphEmbeddings(dim=4, epochs=1, negatives=1).fit([tuple(triple) for triple in triples])
    entities, relations = {name for head, _, tail in triples for name in (head, tail)}, {r for _, r, _ in triples}
    keys = [key for pair in entity_keys(data) for key in pair]  # one without id has that of its name's others
    mentions = sum(key is not None and key.removeprefix("id:") in entities for key in keys)
    others = sum(i.relation not in relations for i in data)
    assert 0 < mentions < 2 * len(data)
    assert 0 < others < len(data)
    encoder = encoder_of(tmp_path).inject(graph)
    with caplog.at_level(logging.WARNING, "relpt"):
        trainer_of(encoder, [Alignment(graph=graph)], max_steps=1).fit(data, show_progress_bar=False)
    assert f"{2 * len(data) - mentions} of {2 * len(data)} mentions are of entities that the graph does not know" in (
        caplog.text
    )
    assert f"{others:,} of {len(data):,} sentences are of others, such as 'P" in caplog.text
