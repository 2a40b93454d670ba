"""relpt.Trainer: objectives together, their heads, resuming, refusals. (Formulas: test_oracle_objectives.py.)"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import graph_of, records_with_entities
from oracle import tiny_bert
from tiny import tiny_encoder_folder

import relpt
from relpt import _core
from relpt.objectives import CP, EP, MIL, MLM, MTB, RC, SBO, Alignment, Prototypes, SpanMLM
from relpt.trainer import PRESETS

COMMON: dict[str, Any] = {
    "p_blank": 0.5,
    "input_mix": None,
    "dropout": None,
    "pairs_per_step": 6,
    "micro_batch_pairs": 32,
    "learning_rate": 2e-3,
    "max_length": 32,
    "max_steps": 6,
    "seed": 42,
}
EVERY = [
    CP(temperature=0.2, weight=0.5),
    MLM(weight=0.3),
    MTB(similarity="cosine", temperature=0.2, threshold=0.3),
    RC(weight=0.7, label_smoothing=0.1),
]
ALIGNED = [Alignment(graph=graph_of(records_with_entities()), temperature=0.5)]
SPANS = [SpanMLM(weight=0.4), RC(weight=0.7), SBO(position_size=12, weight=1.2)]
EPISODES = [Prototypes(similarity="cosine", temperature=0.2, n_way=3, k_shot=2, n_query=2, episodes=3), MLM(weight=0.2)]

BAGS = [
    MIL(bags=9, bag_size=3, dropout=0.3, label_smoothing=0.1),
    MIL(bags=9, bag_size=3, name="mean", pooling="mean"),
    RC(source="bags", weight=0.2),
]
ONE = MIL(bags=9, bag_size=3, name="one", pooling="one")


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


def encoder_of(folder: Path, dropout: float = 0.0, **options: Any) -> relpt.Encoder:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return tiny_bert.encoder(folder, **rates, **options)


def trainer_of(encoder: relpt.Encoder, objectives: list[Any] = EVERY, **options: Any) -> relpt.Trainer:
    return relpt.Trainer(encoder, objectives=objectives, **{**COMMON, **options})


def weights(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def core_parts(trainer: relpt.Trainer, data: relpt.Dataset) -> tuple[Any, Any]:
    corpus = data.tokenize(trainer.encoder, max_length=trainer.options["max_length"])
    micro = trainer._micro_batch_pairs(corpus.relations)
    return trainer._sampler(corpus), _core.Trainer(**trainer._core_options(micro, corpus.relations))


# -- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("objectives", "representation"),
    [
        ([MTB(temperature=20.0)], "entity_start"),
        ([RC(dropout=0.4)], "entity_start"),
        ([RC(dropout=0.4)], "mention_mean"),
        (ALIGNED, "entity_start"),
        (EVERY, "entity_start"),
        (EVERY, "mention_mean+mean"),
        (EPISODES, "entity_start"),
        (BAGS, "entity_start"),
        (SPANS, "entity_start"),
    ],
    ids=["mtb", "rc", "rc, mentions", "alignment", "every", "every, means", "episodes", "bags", "spans"],
)
def test_gradients_are_of_the_loss_with_its_dropout(
    tmp_path: Path, data: relpt.Dataset, objectives: list[Any], representation: str
) -> None:
    """Along random directions the loss changes as the gradients say, in the model and in the heads."""
    encoder = encoder_of(tmp_path, dropout=0.2, representation=representation)
    sampler, core = core_parts(trainer_of(encoder, objectives), data)
    names = ["embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.value.weight"]
    names += [name for name, _ in core.heads()]
    core.gradients(sampler, 3)
    found, rng = {name: core.get(0, name).astype(np.float64) for name in names}, np.random.default_rng(0)
    for name, gradient in found.items():
        write = encoder._model.set if name.startswith(("embed", "encoder")) else lambda n, v: core.set(3, n, v)
        start, slopes = core.get(3, name), []
        for _ in range(4):
            direction = rng.normal(size=gradient.shape)
            direction /= np.linalg.norm(direction)
            losses = []
            for size in (0.02, -0.02):
                write(name, (start + size * direction).astype(np.float32))
                losses.append(core.gradients(sampler, 3)["loss"])
            slopes.append(((losses[0] - losses[1]) / 0.04, float((gradient * direction).sum())))
        write(name, start)
        measured, expected = np.array(slopes).T
        assert np.linalg.norm(measured - expected) <= 0.02 * np.linalg.norm(expected) + 1e-4, name


@pytest.mark.core
@pytest.mark.parametrize(
    "objectives", [EVERY, EPISODES, [*BAGS, ONE], SPANS], ids=["every", "episodes", "bags", "spans"]
)
@pytest.mark.parametrize("micro", [1, 4])
def test_micro_batches_give_the_gradients_of_one_batch(
    tmp_path: Path, data: relpt.Dataset, micro: int, objectives: list[Any]
) -> None:
    encoder = encoder_of(tmp_path, dropout=0.1)
    sampler, whole = core_parts(trainer_of(encoder, objectives, sentences_per_step=5), data)
    _, parts = core_parts(trainer_of(encoder, objectives, sentences_per_step=5, micro_batch_pairs=micro), data)
    want, got = whole.gradients(sampler, 2), parts.gradients(sampler, 2)
    for name in ("loss", *(f"loss_{item.name}" for item in objectives)):
        assert got[name] == pytest.approx(want[name], rel=1e-6)
    names = [name for name, _ in [*encoder._model.parameters(), *whole.heads()]]
    wanted = {name: whole.get(0, name).astype(np.float64) for name in names}
    rounding = 1e-7 * math.sqrt(sum(float((value**2).sum()) for value in wanted.values()))
    for name, value in wanted.items():
        assert np.linalg.norm(parts.get(0, name) - value) <= 1e-5 * np.linalg.norm(value) + rounding, name


@pytest.mark.parametrize("objectives", [EVERY, [*BAGS, ONE], SPANS], ids=["every", "bags", "spans"])
def test_threads_do_not_change_a_byte(tmp_path: Path, data: relpt.Dataset, objectives: list[Any]) -> None:
    results = []
    for number, threads in enumerate((1, 2, 3)):
        encoder = encoder_of(tmp_path / str(number), dropout=0.1, num_threads=threads)
        trainer = trainer_of(encoder, objectives, pairs_per_step=20, max_steps=3)
        trainer.fit(data, show_progress_bar=False)
        results.append((weights(encoder), {name: head.tobytes() for name, head in trainer.heads.items()}))
    assert results[0] == results[1] == results[2]


# -- ready-made forms -------------------------------------------------------------------------------------------------


def test_ready_made_forms_are_the_same_runs(tmp_path: Path, data: relpt.Dataset) -> None:
    cp = {name: COMMON[name] for name in COMMON if name != "dropout"}
    forms = [
        (
            relpt.CPTrainer(encoder_of(tmp_path / "a"), preset="paper", **cp),
            [CP(similarity="dot", temperature=1.0, symmetric=False, mask_same_relation=False), MLM()],
            {"blank_as": PRESETS["paper"]["blank_as"]},
        ),
        (
            relpt.MTBTrainer(encoder_of(tmp_path / "b"), temperature=8.0, hard_share=0.25, mlm_weight=0.5, **COMMON),
            [MTB(temperature=8.0, hard_share=0.25), MLM(weight=0.5)],
            {},
        ),
    ]
    for number, (ready, objectives, options) in enumerate(forms):
        own = trainer_of(encoder_of(tmp_path / str(number)), objectives, **options)
        histories = [trainer.fit(data, show_progress_bar=False) for trainer in (ready, own)]
        assert weights(ready.encoder) == weights(own.encoder) != weights(encoder_of(tmp_path / "fresh"))
        assert [record["loss"] for record in histories[0]] == [record["loss"] for record in histories[1]]
    assert ready.encoder.card["objective"] == "MTB"
    assert own.encoder.card["objective"] == "MTB+MLM"
    assert "hard_share=0.25" in repr(ready)
    assert ready.get_params()["mlm_weight"] == 0.5


def test_figures_of_every_objective(tmp_path: Path, data: relpt.Dataset) -> None:
    objectives = [MLM(weight=0.5), RC(), MTB(temperature=9.0, weight=2.0)]
    record = trainer_of(encoder_of(tmp_path), objectives, max_steps=1).fit(data, show_progress_bar=False)[0]
    total = 0.5 * record["loss_mlm"] + record["loss_rc"] + 2 * record["loss_mtb"]
    assert record["loss"] == pytest.approx(total, rel=1e-12)
    assert {"accuracy", "accuracy_mtb"} < record.keys()
    assert not {"accuracy_rc", "accuracy_mlm", "loss_cp"} & record.keys()  # the first one's is `accuracy`


def test_objectives_of_one_source_share_its_sentences(tmp_path: Path, data: relpt.Dataset) -> None:
    """Joint objectives cost no second forward pass."""
    for objectives, sentences in (
        ([CP(), RC(source="relations"), MLM()], 12),
        ([CP(), RC()], 24),
        ([RC(), RC(name="again"), MLM()], 12),
        ([MTB(temperature=9.0), CP(), RC(source="entities")], 24),
        ([MLM()], 12),
        ([EP(), MTB(temperature=9.0), RC(source="same_entities")], 24),
        ([RC(source="episodes"), Prototypes(n_way=3, k_shot=2, episodes=2), CP()], 30),
        ([RC(source="bags"), MIL(bags=4, bag_size=1), CP(), MIL(bags=4, bag_size=1, name="again")], 16),
        ([RC(), SpanMLM(), SBO()], 12),
        ([SBO()], 12),
    ):
        trainer = trainer_of(encoder_of(tmp_path), objectives, max_steps=1)
        assert trainer.fit(data, show_progress_bar=False)[0]["sentences"] == sentences


# -- learning ---------------------------------------------------------------------------------------------------------


def test_relations_are_learned_and_the_head_can_be_used(tmp_path: Path, data: relpt.Dataset) -> None:
    encoder, seen = encoder_of(tmp_path), []
    trainer = trainer_of(encoder, [RC()], p_blank=0.0, sentences_per_step=30, max_steps=60, learning_rate=3e-3)

    def see(record: dict[str, Any]) -> None:
        seen.append(trainer.heads["rc.weight"])

    history = trainer.fit(data, callbacks=[see], show_progress_bar=False)
    assert history["accuracy"][-5:].mean() > 0.95 > 0.5 > history["accuracy"][:3].mean()
    corpus = data.tokenize(encoder, max_length=32)
    vectors = encoder.encode(corpus, max_length=32)
    logits = trainer.logits(vectors)
    want = vectors @ trainer.heads["rc.weight"].T + trainer.heads["rc.bias"]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4)
    assert (logits.argmax(1) == corpus.relation).mean() > 0.95
    np.testing.assert_array_equal(seen[-1], trainer.heads["rc.weight"])
    assert np.abs(seen[0] - seen[-1]).max() > 1e-3
    assert encoder.card["relations"] == corpus.relations
    with pytest.raises(KeyError, match=r"there is no head 'cp'; there are rc\.weight, rc\.bias"):
        trainer.logits(vectors, name="cp")


def test_pairs_of_entities_are_learned(tmp_path: Path, data: relpt.Dataset) -> None:
    """The names tell the entities apart here: nothing is blanked."""
    encoder = encoder_of(tmp_path)
    records = records_with_entities()
    for record in records:  # a word of its own for each entity
        for side, base in (("h", 10), ("t", 40)):
            start, stop = record[side]["pos"]
            record["token"][start:stop] = [f"w{base + int(record[side]['id'][1:])}"] * (stop - start)
            record[side]["name"] = " ".join(record["token"][start:stop])
    options = {"p_blank": 0.0, "pairs_per_step": 32, "max_steps": 300, "learning_rate": 3e-3}
    history = trainer_of(encoder, [MTB(temperature=8.0)], **options).fit(relpt.load(records), show_progress_bar=False)
    assert history["loss"][-10:].mean() < 0.35 < math.log(2) < history["loss"][:5].mean()
    assert history["accuracy"][-10:].mean() > 0.85


def test_spans_and_relations_are_recovered_together(tmp_path: Path) -> None:
    """Two tokens of a kind stand in the head, and between the mentions those of the relation: all can be recovered."""
    records = records_with_entities(200)
    for i, record in enumerate(records):
        relation = i % 4
        cue = [f"w{20 + relation}"] * 2
        record["token"] = ["w1", *[f"w{60 + i % 7}"] * 2, *cue, f"w{80 + i % 7}", "w2"]
        record["h"] |= {"pos": [1, 3], "name": " ".join(record["token"][1:3])}
        record["t"] |= {"pos": [5, 6], "name": record["token"][5]}
        record["relation"] = f"r{relation}"
    encoder = encoder_of(tmp_path)
    objectives = [SBO(position_size=16), SpanMLM(), RC()]
    trainer = trainer_of(encoder, objectives, p_blank=0.0, sentences_per_step=48, max_steps=250, learning_rate=3e-3)
    history = trainer.fit(relpt.load(records), show_progress_bar=False)
    for name in ("loss_sbo", "loss_span_mlm", "loss_rc"):
        assert history[name][-20:].mean() < 0.5 * history[name][:3].mean(), name
    assert history["accuracy"][:3].mean() < 0.2 < 0.5 < history["accuracy"][-20:].mean()  # of single tokens
    assert history["accuracy_rc"][-20:].mean() > 0.6 > 0.5 > history["accuracy_rc"][:3].mean()
    assert history["masked"].min() > 0


def test_spans_and_relations_of_the_sample_corpus(tmp_path: Path) -> None:
    """Tokens better than by the most frequent one, relations far better than by chance."""
    data = relpt.load_sample("train")
    words = sorted({word.lower() for instance in data for word in re.findall("[A-Za-z]+", instance.text)})
    encoder = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path, vocab_words=words), num_threads=2)
    objectives = [SBO(position_size=16, longest=3), SpanMLM(longest=3), RC()]
    options = {"sentences_per_step": 32, "max_steps": 300, "learning_rate": 5e-3, "dropout": 0.0, "p_blank": 0.0}
    trainer = relpt.Trainer(encoder, objectives=objectives, **options)
    history = trainer.fit(data, show_progress_bar=False)
    sampler = trainer._sampler(data.tokenize(encoder))
    labels = np.concatenate([sampler.batch(step)["mlm_label"] for step in range(270, 300)])
    assert history["accuracy"][-30:].mean() > 1.3 * np.bincount(labels).max() / len(labels)
    assert history["accuracy_rc"][-30:].mean() > 0.5 > 2 / len(data.labels)
    for name in ("loss_sbo", "loss_span_mlm"):
        assert history[name][-30:].mean() < 0.8 * history[name][0], name


# -- heads and checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objectives",
    [EVERY, [*BAGS, ONE], SPANS, [RC(name="bert"), MLM()]],
    ids=["every", "bags", "spans", "called as a family"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, data: relpt.Dataset, objectives: list[Any]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer = trainer_of(encoder_of(tmp_path / "e", dropout=0.1), objectives)
    trainer.fit(data, checkpoint_dir=whole, show_progress_bar=False)
    first = trainer_of(encoder_of(tmp_path / "e", dropout=0.1), objectives)
    first.fit(data, checkpoint_dir=parts, callbacks=[lambda r: r["step"] == 3], show_progress_bar=False)
    again = trainer_of(encoder_of(tmp_path / "e", dropout=0.1), objectives)
    again.fit(data, checkpoint_dir=parts, resume=True, show_progress_bar=False)
    for name in ("model.safetensors", "optimizer.safetensors", "heads.safetensors"):
        assert (whole / "step-00000006" / name).read_bytes() == (parts / "step-00000006" / name).read_bytes(), name
    for name, head in trainer.heads.items():
        np.testing.assert_array_equal(again.heads[name], head)
        assert np.abs(head - first.heads[name]).max() > 0
    card = json.loads((parts / "step-00000006" / "relpt.json").read_text())
    assert [item["type"] for item in card["options"]["objectives"]] == [type(item).__name__ for item in objectives]
    assert len(card["relations"]) == 5
    with pytest.raises(ValueError, match="resume: objectives is"):
        trainer_of(encoder_of(tmp_path / "e"), [RC()]).fit(data, checkpoint_dir=parts, resume=True)


def test_a_checkpoint_without_its_heads_is_refused(tmp_path: Path, data: relpt.Dataset) -> None:
    trainer_of(encoder_of(tmp_path / "e"), [RC()], max_steps=2).fit(data, checkpoint_dir=tmp_path)
    (tmp_path / "step-00000002" / "heads.safetensors").unlink()
    encoder = encoder_of(tmp_path / "e")
    before = weights(encoder)
    with pytest.raises(relpt.FormatError, match=r"heads\.safetensors"):
        trainer_of(encoder, [RC()], max_steps=2).fit(data, checkpoint_dir=tmp_path, resume=True)
    assert weights(encoder) == before


def test_initial_heads_depend_on_the_seed_alone(tmp_path: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(tmp_path)
    heads = []
    for options in ({}, {"pairs_per_step": 3}, {"seed": 7}):
        _, core = core_parts(trainer_of(encoder, [RC()], **options), data)
        heads.append(core.get(3, "rc.weight"))
        assert not core.get(3, "rc.bias").any()
    np.testing.assert_array_equal(heads[0], heads[1])
    assert np.abs(heads[0] - heads[2]).max() > 0.01
    assert heads[0].std() == pytest.approx(encoder.config["initializer_range"], rel=0.15)


@pytest.mark.core
def test_heads_have_state_as_the_model_has(tmp_path: Path, data: relpt.Dataset) -> None:
    sampler, core = core_parts(trainer_of(encoder_of(tmp_path), [RC()]), data)
    assert core.heads() == [("rc.weight", (5, 64)), ("rc.bias", (5,))]
    before = core.get(3, "rc.weight")
    norm = core.step(sampler, 0)["grad_norm"]
    assert np.abs(core.get(3, "rc.weight") - before).max() > 1e-4
    clipped = core.get(0, "rc.weight") / max(norm, 1.0)  # one norm of the model's and the heads' gradients
    np.testing.assert_allclose(core.get(1, "rc.weight"), 0.1 * clipped, rtol=1e-5)
    for which, name, error, message in (
        (0, "rc.scale", KeyError, "no parameter rc.scale"),
        (4, "rc.bias", ValueError, "which is 4; expected 0 to 3"),
    ):
        with pytest.raises(error, match=message):
            core.get(which, name)
    with pytest.raises(ValueError, match="which is 0; expected 1 to 3"):
        core.set(0, "rc.bias", np.zeros(5, np.float32))


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CP(weight=-1.0), "cp_weight is -1.0; expected a number of 0 or more"),
        (lambda: RC(weight=math.nan), "rc_weight is nan"),
        (lambda: RC(name="a b"), "name is 'a b'; expected letters"),
        (lambda: RC(source="words"), "source of rc is 'words'; expected 'relations' or 'entities' or '"),
        (lambda: CP(source="entities"), "source of cp is 'entities'; expected 'relations'"),
        (lambda: MTB(similarity="euclidean"), "similarity is 'euclidean'; expected one of dot, cosine"),
        (lambda: CP(positives="all"), "positives is 'all'"),
        (
            lambda: SBO(mention_probability=0, relation_probability=0),
            "sbo: mention_probability and relation_probability",
        ),
        (lambda: Prototypes(n_way=1), "n_way is 1; expected a whole number from 2 on"),
        (lambda: Prototypes(k_shot=0), "k_shot is 0; expected a whole number from 1 on"),
        (lambda: Prototypes(similarity="euclidean"), "similarity is 'euclidean'; expected one of dot, cosine"),
        (lambda: MIL(pooling="max"), "pooling is 'max'; expected one of attention, one, mean"),
        (lambda: MIL(bags=0), "bags is 0; expected a whole number from 1 on"),
        (lambda: MIL(source="instances"), "source of mil is 'instances'; expected 'bags'"),
    ],
)
def test_options_of_objectives(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([RC(), RC()], "objectives are called rc, rc; give each a name of its own"),
        ([MLM(), MLM(name="more")], "there are two MLM objectives"),
        ([SBO(), MLM()], "words are masked once: mlm masks single words, sbo spans; take SpanMLM in place of MLM"),
        ([SBO(), SpanMLM(longest=9)], "objectives over spans share them: give all the same probabilities and lengths"),
        ([SBO(position_size=0)], "position_size is 0, expected 1 to 65536"),
        ([SBO(length_p=1.5)], "length_p is 1.5; expected above 0, at most 1"),
        ([SpanMLM(mention_probability=-0.5)], "mention_probability is -0.5; expected 0 .. 1"),
        ([CP(weight=0), RC(weight=0)], "cp_weight is 0 and rc_weight 0: expected one above 0"),
        ([RC(dropout=1.0)], "dropout before the classes is 1, expected 0 <= p < 1"),
        ([RC(label_smoothing=-0.1)], "label_smoothing is -0.1"),
        ([MTB(temperature=0.0)], "temperature is 0, expected above 0"),
        ([MTB(threshold=float("nan"))], "threshold is nan, expected a number"),
        ([Prototypes(temperature=0.0)], "temperature is 0, expected above 0"),
        ([Prototypes(), Prototypes(name="other", n_way=3)], "objectives by prototypes share their episodes"),
        ([MIL(), MIL(name="other", bag_size=3)], "objectives over bags share these: give all the same bag_size"),
        ([MIL(label_smoothing=1.0)], "label_smoothing is 1, expected 0 <= smoothing < 1"),
        ([MTB(positive_share=2.0)], "positive_share is 2; expected 0 .. 1"),
        ([RC(name=f"r{i}") for i in range(9)], "9 objectives, expected at most 8"),
    ],
)
def test_objectives_that_do_not_go(tmp_path: Path, data: relpt.Dataset, objectives: Any, message: str) -> None:
    encoder = encoder_of(tmp_path)
    before = weights(encoder)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        trainer_of(encoder, objectives).fit(data, show_progress_bar=False)
    assert weights(encoder) == before


def test_objectives_of_another_kind(tmp_path: Path) -> None:
    for wrong in ([], ["cp"], [CP]):
        with pytest.raises(TypeError, match=r"expected some of relpt\.objectives\.CP"):
            trainer_of(encoder_of(tmp_path), wrong)
    with pytest.raises(TypeError, match=r"Trainer has no option 'pairs_a_step'; did you mean pairs_per_step"):
        relpt.Trainer(None, objectives=[CP()], pairs_a_step=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="MTBTrainer has no option 'p_blnk'; did you mean p_blank"):
        relpt.MTBTrainer(None, p_blnk=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="sentences_per_step is 0; expected a whole number from 1 on"):
        trainer_of(None, [RC()], sentences_per_step=0)  # type: ignore[arg-type]


def test_data_that_an_objective_cannot_use(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path)
    plain = [{key: value for key, value in record.items() if key != "relation"} for record in records_with_entities()]
    with pytest.raises(ValueError, match="names no relations; cp and rc cannot be trained without"):
        trainer_of(encoder).fit(relpt.load(plain), show_progress_bar=False)
    unlabelled = trainer_of(encoder, [MTB(temperature=9.0)], max_steps=1)
    assert len(unlabelled.fit(relpt.load(plain), show_progress_bar=False)) == 1
    with pytest.raises(ValueError, match="no pair of entities stands in two different sentences: of 60 sentences"):
        trainer_of(encoder, [MTB()]).fit(tiny_bert.dataset(), show_progress_bar=False)


@pytest.mark.core
@pytest.mark.filterwarnings("ignore::relpt.TruncationWarning")
def test_batches_that_the_network_does_not_fit(tmp_path: Path, data: relpt.Dataset) -> None:
    """The core's own check: what the samplers of others give would be read out of place."""
    encoder, words = encoder_of(tmp_path / "e"), [f"word{i}" for i in range(200)]
    plain, tagged = (relpt.CNNEncoder(words, hidden_size=8, pos_tags=tags, num_threads=1) for tags in ([], ["N", "V"]))

    def parts(of: Any, **options: Any) -> tuple[Any, Any]:
        return core_parts(trainer_of(of, [RC()], **options), data)

    long, core = parts(encoder)
    short, of_short = parts(encoder, max_length=16)
    assert core.gradients(short, 0)["sentences"] == 12
    _, of_plain = parts(plain)
    of_tagged = _core.Trainer(**trainer_of(tagged, [RC()])._core_options(6, data.labels))
    for one, sampler, said in (
        (of_short, long, "the batch has a sequence of .* tokens, this trainer takes 16"),
        (core, parts(plain)[0], "the corpus was tokenized with a vocabulary of 205, the model's has 129"),
        (of_plain, long, "bare is 0; this network takes 1"),
        (of_tagged, parts(plain)[0], "the corpus has no POS tags, and the network reads them"),
    ):
        with pytest.raises(ValueError, match=said):
            one.gradients(sampler, 0)


@pytest.mark.core
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": 17}, "dtype 17 is out of range"),
        ({"schedule": -1}, "schedule -1"),
        ({"first": 2**62}, "runs on 12 samples from 4611686018427387904 on, of a step of 12"),
    ],
)
def test_numbers_that_stand_for_nothing(tmp_path: Path, data: relpt.Dataset, change: dict[str, int], said: str) -> None:
    options = trainer_of(encoder_of(tmp_path), [RC()])._core_options(6, data.labels)
    for name, value in change.items():
        (options["objectives"][0] if name == "first" else options)[name] = value
    with pytest.raises(ValueError, match=said):
        _core.Trainer(**options)
