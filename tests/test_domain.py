"""Domain: a second text in a run's steps, and vectors that do not tell it from the first. (Formulas:
test_oracle_objectives.py.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import TOKENS, arrays_of, random_arrays, relation_pairs, sequences
from objective_data import records_with_entities
from oracle import tiny_bert

import relpt
from relpt import _core
from relpt.cli import main
from relpt.objectives import CP, MIL, MLM, RC, Domain, Prototypes

RUN: dict[str, Any] = {"p_blank": 0.0, "input_mix": None, "max_length": 32, "seed": 42}


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(records_with_entities())


@pytest.fixture(scope="module")
def target() -> relpt.Dataset:
    return relpt.load(unlabelled(tiny_bert.records(23, seed=5)))


def unlabelled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "relation"} for record in records]


def weights(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


# -- the second text ---------------------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize("prefetch", [False, True])
def test_the_target_s_sentences_stand_beside_the_run_s(prefetch: bool) -> None:
    """They are of the target's corpus with its own types, in its own order, and change nothing for the others."""
    first, second = random_arrays(3), random_arrays(4, n=50, n_types=2)
    options = {"seed": 1, "max_length": 32, "prefetch": prefetch, "mlm_probability": 0, "p_blank": 0}
    options["input_weight"] = [0, 1, 0, 0, 0]  # C+T
    corpora = [_core.Corpus(**arrays) for arrays in (first, second)]
    sources = [relation_pairs(4), {"kind": "target", "count": 20}]
    both = _core.Sampler(corpora[0], TOKENS, sources=sources, target=(corpora[1], TOKENS), **options)
    alone = _core.Sampler(corpora[0], TOKENS, sources=sources[:1], **options)
    drawn = []
    for step in range(5):
        batch, rows = both.batch(step), both.rows(step)
        np.testing.assert_array_equal(rows[:8], alone.rows(step))
        np.testing.assert_array_equal(batch["relation"], [*first["relation"][rows[:8]], *[-1] * 20])
        want = [
            sequence
            for corpus, part in zip(corpora, (rows[:8], rows[8:]), strict=True)
            for sequence in sequences(_core.build_batch(corpus, TOKENS, part, 1, 32))
        ]
        assert list(map(list, sequences(batch))) == list(map(list, want))
        drawn.extend(rows[8:].tolist())
    assert sorted(drawn[:50]) == list(range(50)) == sorted(drawn[50:])


@pytest.mark.core
def test_texts_that_cannot_be_drawn_from() -> None:
    corpus, options = _core.Corpus(**random_arrays(3)), {"seed": 1, "max_length": 32}
    source = {"kind": "target", "count": 3}
    with pytest.raises(ValueError, match="source 0 draws from a target, and none is given"):
        _core.Sampler(corpus, TOKENS, sources=[source], **options)
    with pytest.raises(ValueError, match="no sentence left: the corpus has none"):
        _core.Sampler(corpus, TOKENS, sources=[source], target=(_core.Corpus(**arrays_of([])), TOKENS), **options)
    with pytest.raises(TypeError, match=r"target\[0\]"):
        _core.Sampler(corpus, TOKENS, sources=[source], target=(None, TOKENS), **options)


def test_the_target_gives_as_many_sentences_as_the_others(tmp_path: Path, data: Any, target: Any) -> None:
    """Bags, which differ in size, come last and count with their most."""
    encoder = tiny_bert.encoder(tmp_path)
    for objectives, own, all_of_them in (
        ([Domain(), CP()], 12, 24),
        ([CP(), RC(), Domain()], 24, 48),
        ([Domain()], 12, 24),
        ([MLM(), Domain()], 12, 24),
        ([MIL(bags=4, bag_size=1), Domain()], 4, 8),
        ([RC(whole_epochs=True), Domain()], 12, 24),
    ):
        trainer = relpt.Trainer(encoder, objectives=objectives, pairs_per_step=6, max_steps=1, **RUN)
        record = trainer.fit(data, target=target, show_progress_bar=False)[0]
        assert record["sentences"] == all_of_them
        corpus = data.tokenize(encoder, max_length=32)
        batch = trainer._sampler(corpus, target.tokenize(encoder, max_length=32)).batch(0)
        assert (batch["relation"] < 0).sum() == own


# -- training ----------------------------------------------------------------------------------------------------------

MIXED = [CP(temperature=0.2), Domain(reversal=0.3, ramp_steps=5), MIL(bags=6, bag_size=3), MLM(weight=0.2)]


def trained(folder: Path, data: Any, target: Any, **options: Any) -> tuple[relpt.Trainer, Any]:
    encoder = tiny_bert.encoder(folder, num_threads=options.pop("threads", 1))
    fit = {name: options.pop(name) for name in ("checkpoint_dir", "callbacks", "resume") if name in options}
    given = {"pairs_per_step": 6, "max_steps": 4, "dropout": 0.1, "learning_rate": 1e-3, **RUN, **options}
    trainer = relpt.Trainer(encoder, objectives=MIXED, **given)
    return trainer, trainer.fit(data, target=target, show_progress_bar=False, **fit)


def test_threads_do_not_change_a_byte(tmp_path: Path, data: Any, target: Any) -> None:
    found = []
    for threads in (1, 2, 3):
        trainer, _ = trained(tmp_path / str(threads), data, target, threads=threads)
        found.append((weights(trainer.encoder), {name: head.tobytes() for name, head in trainer.heads.items()}))
    assert found[0] == found[1] == found[2]
    assert {"domain.hidden.weight", "domain.hidden.bias", "domain.weight", "domain.bias"} < found[0][1].keys()


@pytest.mark.core
def test_micro_batches_give_the_gradients_of_one_batch(tmp_path: Path, data: Any, target: Any) -> None:
    encoder = tiny_bert.encoder(tmp_path)
    corpus, other = data.tokenize(encoder, max_length=32), target.tokenize(encoder, max_length=32)
    found = []
    for micro in (32, 3):
        options = {"pairs_per_step": 6, "micro_batch_pairs": micro, "dropout": 0.1, **RUN}
        trainer = relpt.Trainer(encoder, objectives=MIXED, **options)
        core = _core.Trainer(**trainer._core_options(trainer._micro_batch_pairs(), corpus.relations))
        stats = core.gradients(trainer._sampler(corpus, other), 3)
        names = [name for name, _ in [*encoder._model.parameters(), *core.heads()]]
        found.append((stats["loss_domain"], {name: core.get(0, name) for name in names}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, want in found[0][1].items():
        assert np.linalg.norm(found[1][1][name] - want) <= 1e-5 * np.linalg.norm(want) + 1e-6, name


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, data: Any, target: Any) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained(tmp_path / "e", data, target, checkpoint_dir=whole)
    trained(tmp_path / "e", data, target, checkpoint_dir=parts, callbacks=[lambda record: record["step"] == 2])
    trained(tmp_path / "e", data, target, checkpoint_dir=parts, resume=True)
    for name in ("model.safetensors", "optimizer.safetensors", "heads.safetensors"):
        assert (whole / "step-00000004" / name).read_bytes() == (parts / "step-00000004" / name).read_bytes(), name
    card = json.loads((parts / "step-00000004" / "relpt.json").read_text())
    assert card["target"]["sentences"] == 23
    assert card["objective"] == "CP+DOMAIN+MIL+MLM"
    with pytest.raises(ValueError, match="resume: the data are others than those of the checkpoint"):
        trained(tmp_path / "e", data, data, checkpoint_dir=parts, resume=True)


def shifted(n: int, seed: int, *, domain: int) -> list[dict[str, Any]]:
    """Sentences of a domain: words that tell no relation are three of its own."""
    records = tiny_bert.records(n, seed=seed)
    for record in records:
        numbers = [int(word[1:]) for word in record["token"]]
        record["token"] = [f"w{k if k < 35 else 35 + k % 3 + 40 * domain}" for k in numbers]
        for side in "ht":
            start, stop = record[side]["pos"]
            record[side]["name"] = " ".join(record["token"][start:stop])
    return records


def test_the_discriminator_learns_and_the_encoder_confuses_it(tmp_path: Path) -> None:
    """Without reversal the two texts are told apart; with it not, and the relations of the target, of which training
    says none, are named better."""
    train = relpt.load(shifted(300, 1, domain=0))
    target = relpt.load(unlabelled(shifted(300, 2, domain=1)))
    test = relpt.load(shifted(300, 3, domain=1))
    told, right = {}, {}
    for reversal in (0.0, 0.1):
        encoder = tiny_bert.encoder(tmp_path / str(reversal), representation="mean")
        objectives = [RC(dropout=0.0), Domain(reversal=reversal, ramp_steps=300, dropout=0.0)]
        options = {"sentences_per_step": 40, "max_steps": 300, "learning_rate": 1e-3, "dropout": 0.0, **RUN}
        trainer = relpt.Trainer(encoder, objectives=objectives, **options)
        history = trainer.fit(train, target=target, show_progress_bar=False)
        told[reversal] = history["accuracy_domain"][-30:].mean()
        names = np.array(encoder.card["relations"])
        answers = names[trainer.logits(encoder.encode(test, max_length=32)).argmax(axis=1)]
        right[reversal] = np.mean(answers == [instance.relation for instance in test])
        assert history["accuracy"][-30:].mean() > 0.95
    print(f"domain told {told}, relations of the target right {right}")
    assert told[0.0] > 0.8 > 0.65 > told[0.1]
    assert right[0.1] > right[0.0] + 0.05


# -- few-shot training and the shell -----------------------------------------------------------------------------------


def test_few_shot_training_with_a_target(tmp_path: Path, data: Any, target: Any) -> None:
    few_shot, run = relpt.FewShot(n_way=3, k_shot=2), {"max_length": 32, "max_steps": 3, "show_progress_bar": False}
    mine, other = (tiny_bert.encoder(tmp_path / name) for name in "ab")
    history = few_shot.fit(mine, data, target=target, reversal=0.5, learning_rate=1e-3, **run)
    assert history[0]["sentences"] == 2 * 4 * 3 * 3
    assert {"loss_prototypes", "loss_domain", "accuracy", "accuracy_domain"} < history[0].keys()
    prototypes = Prototypes(similarity="cosine", temperature=0.07, n_way=3, k_shot=2)
    objectives = [prototypes, Domain(reversal=0.5, ramp_steps=3)]
    trainer = relpt.Trainer(other, objectives=objectives, learning_rate=1e-3, max_steps=3, dropout=None, **RUN)
    trainer.fit(data, target=target, show_progress_bar=False)
    assert weights(mine) == weights(other) != weights(tiny_bert.encoder(tmp_path / "c"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {}
    for name, records in (("train", records_with_entities()), ("target", unlabelled(tiny_bert.records(9, seed=5)))):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(record) + "\n" for record in records))
    encoder = tiny_bert.write_folder(tmp_path / "encoder")
    command = ["pretrain", "--data", str(files["train"]), "--encoder", str(encoder), "--steps", "2", "--quiet"]
    command += ["--max-length", "32", "--objective", "prototypes,domain:0.5", "--set", "prototypes.n_way=3"]
    told = [*command, "--set", "domain.reversal=0.2", "--target", str(files["target"]), "-o", str(tmp_path / "run")]
    assert main([*told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss_domain_first"] > 0
    assert json.loads((tmp_path / "run" / "relpt.json").read_text())["target"]["sentences"] == 9
    assert main([*command, "-o", str(tmp_path / "other")]) == 2
    assert "give files of it with --target" in capsys.readouterr().err


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objectives", "given", "message"),
    [
        ([RC(), Domain()], None, "domain adapts to unlabelled text: give it by target="),
        ([RC()], "target", r"no objective reads target; relpt\.objectives\.Domain and a target go together"),
        ([RC(), Domain()], [], "has no sentences; give text of the domain to adapt to"),
        ([RC(), Domain(reversal=-1.0)], "target", "reversal is -1, expected 0 or more"),
        ([RC(), Domain(dropout=1.0)], "target", "dropout in the discriminator is 1, expected 0 <= p < 1"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, data: Any, target: Any, objectives: Any, given: Any, message: str
) -> None:
    encoder = tiny_bert.encoder(tmp_path)
    before = weights(encoder)
    text = {"target": target}.get(given, given) if isinstance(given, str) else given
    with pytest.raises(ValueError, match=message):
        relpt.Trainer(encoder, objectives=objectives, **RUN).fit(data, target=text, show_progress_bar=False)
    assert weights(encoder) == before


def test_options_out_of_range() -> None:
    for make, message in (
        (lambda: Domain(hidden=-1), "hidden is -1; expected a whole number from 0 on"),
        (lambda: Domain(ramp_steps=0.5), "ramp_steps is 0.5; expected a whole number"),  # type: ignore[arg-type]
        (lambda: Domain(source="instances"), "source of domain is 'instances'; expected 'target'"),
        (lambda: RC(source="target"), "source of rc is 'target'"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
