"""Fine-tuning of several parts under one head: hybrids of encoders, CNNs and vectors that stay, and a CNN alone."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import WORDS, tiny_dataset, tiny_encoder_folder, write_jsonl

import relpt
from relpt import _core, cli
from relpt.objectives import CP, MLM
from relpt.parts import Parts
from relpt.trainer import REPRESENTATION

OPTIONS: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 2, "max_length": 72}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two encoders with tokenizers of their own, and sizes of their own."""
    folder = tmp_path_factory.mktemp("encoders")
    other = tiny_encoder_folder(folder / "b", vocab_words=WORDS[:-40], hidden=24, heads=2, layers=1, seed=4)
    return tiny_encoder_folder(folder / "a"), other


@pytest.fixture(scope="module")
def a(folders: tuple[Path, Path]) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folders[0], num_threads=1)


@pytest.fixture(scope="module")
def b(folders: tuple[Path, Path]) -> relpt.Encoder:
    """With another tokenizer, a prompt and another representation."""
    return relpt.Encoder.from_pretrained(folders[1], representation="mask+mean", prompt="relation", num_threads=1)


@pytest.fixture(scope="module")
def train() -> relpt.Dataset:
    return relpt.load(tiny_dataset(4, 13), name="train")


@pytest.fixture(scope="module")
def test() -> relpt.Dataset:
    return relpt.load(tiny_dataset(4, 10, seed=9), name="test")


@pytest.fixture(scope="module")
def table(a: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset) -> relpt.EntityTable:
    return relpt.EntityTable.from_corpus(a, [*train, *test])


def fit(encoder: Any, data: Any, **options: Any) -> relpt.Classifier:
    dev = options.pop("dev", None)
    made = relpt.Classifier(encoder, **{**OPTIONS, **options})
    return made.fit(data, dev=dev, show_progress_bar=False)


def weights(encoder: Any) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def state(classifier: relpt.Classifier) -> list[bytes]:
    assert classifier.head is not None
    networks = Parts(classifier.tuned, classifier.options["frozen"]).trained
    return [*map(weights, networks), *(part.tobytes() for part in classifier.head)]


# -- what is trained --------------------------------------------------------------------------------------------------


def test_both_encoders_are_trained_and_the_given_ones_stay(
    a: relpt.Encoder, b: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset
) -> None:
    before = [weights(a), weights(b)]
    classifier = fit(relpt.HybridEncoder(a, b, weights=(1, 3)), train, dev=test)
    assert [weights(a), weights(b)] == before
    tuned = classifier.tuned
    assert isinstance(tuned, relpt.HybridEncoder)
    assert tuned.get_params() == {"weights": (1.0, 3.0), "scale": True}
    assert not {*map(weights, tuned.encoders)} & {*before}
    assert len(classifier.dev_scores) == 2
    assert classifier.history["loss"][-7:].mean() < classifier.history["loss"][:7].mean()


def test_the_head_sees_the_plain_vectors_side_by_side(
    a: relpt.Encoder, b: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset
) -> None:
    """Neither divided by their lengths nor weighted."""
    classifier = fit(relpt.HybridEncoder(a, b, weights=(1, 3)), train)
    vectors = [part.encode(test, max_length=72).astype(np.float64) for part in classifier.tuned.encoders]
    weight, bias = classifier.head  # type: ignore[misc]
    assert weight.shape == (4, a.dim + b.dim)
    powers = np.exp(np.concatenate(vectors, 1) @ weight.T + bias)
    np.testing.assert_allclose(classifier.predict_proba(test), powers / powers.sum(1, keepdims=True), rtol=1e-5)
    assert classifier.predict(test[3]) == classifier.predict(test)[3]


def test_the_same_for_any_threads(folders: tuple[Path, Path], a: Any, b: Any, train: relpt.Dataset) -> None:
    options = {"representation": "mask+mean", "prompt": "relation", "num_threads": 2}
    pair = (
        relpt.Encoder.from_pretrained(folders[0], num_threads=2),
        relpt.Encoder.from_pretrained(folders[1], **options),
    )
    one = state(fit(relpt.HybridEncoder(a, b), train))
    assert one == state(fit(relpt.HybridEncoder(*pair), train)) != state(fit(relpt.HybridEncoder(a, b), train, seed=1))


def test_micro_batches_give_the_gradients_of_the_whole(a: Any, b: Any, train: relpt.Dataset) -> None:
    hybrid = relpt.HybridEncoder(a, b)
    whole, parts = (fit(hybrid, train, epochs=1, micro_batch_size=size) for size in (None, 3))
    np.testing.assert_allclose(parts.history["loss"], whole.history["loss"], rtol=1e-4)
    np.testing.assert_allclose(parts.history["grad_norm"], whole.history["grad_norm"], rtol=1e-3)


def test_frozen_parts_and_tables_stay(a: Any, b: Any, table: Any, train: relpt.Dataset, test: relpt.Dataset) -> None:
    """A frozen encoder and a table of the same vectors teach the other part the same."""
    frozen = fit(relpt.HybridEncoder(a, b), train, frozen=[0], dropout=0.0)
    assert frozen.tuned.encoders[0] is a
    assert weights(frozen.tuned.encoders[1]) != weights(b)
    looked_up = fit(relpt.HybridEncoder(table, b), train, dropout=0.0)
    assert looked_up.tuned.encoders[0] is table
    assert looked_up.score(test) >= 0
    corpus = train.tokenize(a, max_length=72)
    rows = a.encode(corpus, max_length=72)
    assert np.abs(rows[:, : a.dim // 2] - table.encode(train)[:, : a.dim // 2]).max() > 0.1  # averages, not the same

    class Mentions(relpt.EntityTable):
        """Each sentence's own vectors, as a table that knows every mention would have them."""

        def encode(self, data: Any, **options: Any) -> np.ndarray:
            return a.encode(data, max_length=72)

    same = fit(relpt.HybridEncoder(Mentions(table.vectors, ids={}, names={}, card={}), b), train, dropout=0.0)
    assert state(same) == state(frozen)


def test_nested_hybrids_count_part_by_part(a: Any, b: Any, table: Any, train: relpt.Dataset) -> None:
    nested = fit(relpt.HybridEncoder(relpt.HybridEncoder(a, table), b), train, frozen=[2])
    plain = fit(relpt.HybridEncoder(a, table, b), train, frozen=[2])
    assert state(nested) == state(plain)
    inner = nested.tuned.encoders[0]
    assert isinstance(inner, relpt.HybridEncoder)
    assert weights(inner.encoders[0]) == weights(plain.tuned.encoders[0]) != weights(a)
    assert nested.tuned.encoders[1] is b


def test_early_stopping_keeps_the_best_weights_of_all_parts(a: Any, b: Any, train: Any, test: Any) -> None:
    options = {"learning_rate": 2e-2, "schedule": "constant", "epochs": 12, "early_stopping": 2}
    classifier = fit(relpt.HybridEncoder(a, b), train, dev=test, **options)
    scores = [float(score) for score in classifier.dev_scores]
    assert classifier.best_epoch == int(np.argmax(scores)) + 1
    assert float(classifier.score(test)) == max(scores)


def test_without_copies_the_encoders_themselves_are_trained(folders: Any, a: Any, train: relpt.Dataset) -> None:
    own = [relpt.Encoder.from_pretrained(folders[0], num_threads=1) for _ in range(2)]
    classifier = fit(relpt.HybridEncoder(*own), train, copy=False)
    assert classifier.tuned.encoders == tuple(own)
    assert state(classifier) == state(fit(relpt.HybridEncoder(a, a), train))
    with pytest.raises(ValueError, match="parts 0 and 1 are one model; give each a copy of its own"):
        fit(relpt.HybridEncoder(own[0], own[0]), train, copy=False)


# -- the core ---------------------------------------------------------------------------------------------------------


def joined(models: list[relpt.Encoder], data: relpt.Dataset, seeds: tuple[int, ...] = (42, 42), **options: Any) -> Any:
    """A core trainer of CP over the encoders' vectors side by side, and a sampler for each."""
    trainers = [
        relpt.CPTrainer(
            encoder,
            **{"similarity": "dot", "pairs_per_step": 6, "max_length": 72, "max_steps": 9, "seed": seed, **options},
        )
        for encoder, seed in zip(models, seeds, strict=False)
    ]
    core_options = trainers[0]._core_options(6)
    core_options["parts"] = [(encoder._model, encoder._parts) for encoder in models]
    samplers = [trainer._sampler(data.tokenize(trainer.encoder)) for trainer in trainers]
    return _core.Trainer(**core_options), samplers


def gradients(core: Any, model: relpt.Encoder, prefix: str = "") -> dict[str, np.ndarray]:
    names = [name for name, _ in model._model.parameters() if not name.startswith("cls.")]
    return {name: core.get(0, prefix + name) for name in names}


def test_twins_share_the_gradient_of_one(a: relpt.Encoder, train: relpt.Dataset) -> None:
    """[x; x] · [y; y] / 2T is x · y / T, and each half of it has half of the gradient."""
    one, samplers = joined([a], train, temperature=3.0)
    one.gradients(samplers, 0)
    wanted = gradients(one, a)
    two, samplers = joined([a.copy(), a.copy()], train, temperature=6.0)
    figures = two.gradients(samplers, 0)
    assert figures["loss"] == pytest.approx(one.gradients(joined([a], train)[1], 0)["loss"], rel=1e-5)
    for prefix in ("0.", "1."):
        for name, found in gradients(two, a, prefix).items():
            np.testing.assert_allclose(2 * found, wanted[name], rtol=1e-3, atol=1e-5, err_msg=prefix + name)


def test_each_network_has_dropout_of_its_own(a: relpt.Encoder, train: relpt.Dataset) -> None:
    name = "encoder.layer.0.output.dense.weight"
    for dropout in (0.0, 0.3):
        core, samplers = joined([a.copy(), a.copy()], train, dropout=dropout, temperature=3.0)
        core.gradients(samplers, 0)
        same = core.get(0, f"0.{name}").tobytes() == core.get(0, f"1.{name}").tobytes()
        assert same == (dropout == 0)


def test_parts_that_do_not_fit_are_refused(a: Any, b: Any, train: relpt.Dataset) -> None:
    core, samplers = joined([a.copy(), a.copy()], train, seeds=(42, 43))
    with pytest.raises(ValueError, match="the batch of network 1 is not of the first one's samples"):
        core.step(samplers, 0)
    with pytest.raises(ValueError, match="1 samplers for 2 networks; give one for each"):
        core.step(samplers[0], 0)
    with pytest.raises(KeyError):
        core.get(0, "embeddings.word_embeddings.weight")
    options = relpt.Trainer(a, objectives=[CP(), MLM()], pairs_per_step=2)._core_options(2)
    with pytest.raises(ValueError, match="mlm: words are masked for one encoder alone, not for 2 joined parts"):
        _core.Trainer(**{**options, "parts": [(a._model, a._parts), (b._model, b._parts)]})
    vectors = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="no part is a network"):
        _core.Trainer(**{**options, "parts": [vectors]})
    with pytest.raises(ValueError, match=r"parts: expected .* float32 array"):
        _core.Trainer(**{**options, "parts": [vectors.astype(np.float64)]})
    with pytest.raises(ValueError, match="a vector of 0 parts, expected 1 to 8"):
        _core.Trainer(**{**options, "parts": []})
    alone = relpt.Trainer(a, objectives=[CP()], pairs_per_step=2, max_length=72)
    core = _core.Trainer(**{**alone._core_options(2), "parts": [(a._model, a._parts), vectors]})
    with pytest.raises(ValueError, match=r"the batch has row \d+, the fixed vectors are of 3"):
        core.step(alone._sampler(train.tokenize(a)), 0)


# -- data and options -------------------------------------------------------------------------------------------------


def test_a_corpus_serves_parts_of_one_tokenizer(a: Any, b: Any, table: Any, train: relpt.Dataset) -> None:
    corpus = train.tokenize(a, max_length=72)
    twins = relpt.HybridEncoder(a, a)
    assert state(fit(twins, corpus)) == state(fit(twins, train))
    assert len(set(map(id, Parts(twins).read(train, 72, False).corpora))) == 1  # tokenized once
    with pytest.raises(ValueError, match="was tokenized by another tokenizer"):
        fit(relpt.HybridEncoder(a, b), corpus)
    with pytest.raises(ValueError, match="has no ids and names of entities; give the Dataset"):
        fit(relpt.HybridEncoder(a, table), corpus)


def test_options_that_parts_do_not_share(folders: tuple[Path, Path], a: Any, train: relpt.Dataset) -> None:
    other = relpt.Encoder.from_pretrained(folders[1], dtype="bfloat16", num_threads=1)
    with pytest.raises(ValueError, match="have dtypes float32, bfloat16; open all with one"):
        relpt.Classifier(relpt.HybridEncoder(a, other))
    cnn = relpt.CNNEncoder.from_data(train, hidden_size=8, num_threads=1)
    with pytest.raises(ValueError, match="have dropouts of their own; give dropout="):
        fit(relpt.HybridEncoder(a, cnn), train)
    assert fit(relpt.HybridEncoder(a, cnn), train, dropout=0.1).history.status == "finished"


# -- saving, protocol and commands ------------------------------------------------------------------------------------


def test_saved_and_opened_it_says_the_same(a: Any, b: Any, table: Any, train: Any, test: Any, tmp_path: Path) -> None:
    hybrid = relpt.HybridEncoder(a, table, b, scale=False)
    classifier = fit(hybrid, train, frozen=[2])
    for _ in range(2):  # a hybrid is replaced by the next
        classifier.save_pretrained(tmp_path / "model")
    opened = relpt.Classifier.from_pretrained(tmp_path / "model", num_threads=2)
    assert opened.predict_proba(test).tobytes() == classifier.predict_proba(test).tobytes()
    assert opened.get_params() == classifier.get_params()
    assert isinstance(opened.tuned, relpt.HybridEncoder)
    assert (opened.tuned.scale, opened.tuned.dim) == (False, hybrid.dim)
    assert weights(relpt.HybridEncoder.from_pretrained(tmp_path / "model").encoders[0]) == weights(
        opened.tuned.encoders[0]
    )
    card = json.loads((tmp_path / "model" / "relpt.json").read_text())
    assert [part["name"] for part in card["encoder"]["parts"]] == [a.name, table.name, b.name]
    with pytest.raises(FileExistsError, match="holds a hybrid"):
        fit(a, train, epochs=1).save_pretrained(tmp_path / "model")
    fit(a, train, epochs=1).save_pretrained(tmp_path / "plain")
    with pytest.raises(FileExistsError, match=r"has no hybrid\.json"):
        classifier.save_pretrained(tmp_path / "plain")


def test_a_cnn_is_fine_tuned_as_published(train: relpt.Dataset, test: relpt.Dataset, tmp_path: Path) -> None:
    """By SGD at rate 0.5; the network drops out its vector itself."""
    many = relpt.load(tiny_dataset(4, 60))
    for kind in ("cnn", "pcnn"):
        cnn = relpt.CNNEncoder.from_data(many, kind=kind, hidden_size=60, num_threads=1)
        before = weights(cnn)
        made = relpt.Classifier(cnn, optimizer="sgd", learning_rate=0.5, batch_size=16, epochs=12)
        assert made._objective(made.parts, 16).dropout == 0
        classifier = made.fit(many, show_progress_bar=False)
        assert weights(cnn) == before
        assert classifier.score(test) > 0.8
        classifier.save_pretrained(tmp_path / kind)
        opened = relpt.Classifier.from_pretrained(tmp_path / kind)
        assert isinstance(opened.tuned, relpt.CNNEncoder)
        assert opened.predict_proba(test).tobytes() == classifier.predict_proba(test).tobytes()


def test_a_cnn_beside_an_encoder(a: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset, tmp_path: Path) -> None:
    cnn = relpt.CNNEncoder.from_data(train, hidden_size=8, num_threads=1)
    hybrid = relpt.HybridEncoder(cnn, a)
    hybrid.save_pretrained(tmp_path / "hybrid")
    opened = relpt.HybridEncoder.from_pretrained(tmp_path / "hybrid", num_threads=1)
    np.testing.assert_array_equal(opened.encode(test), hybrid.encode(test))
    assert state(fit(hybrid, train, dropout=0.1)) == state(fit(opened, train, dropout=0.1))


@pytest.fixture
def command(
    folders: Any, a: Any, b: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Any:
    """Runs a command line in a folder with the models "hybrid" and "cnn" and data."""
    for name, size, seed in (("train", 13, 0), ("test", 6, 2)):
        write_jsonl(tmp_path / f"{name}.jsonl", tiny_dataset(3, size, seed=seed))
    relpt.HybridEncoder(a, b).save_pretrained(tmp_path / "hybrid")
    relpt.CNNEncoder.from_data(tmp_path / "train.jsonl", hidden_size=12).save_pretrained(tmp_path / "cnn")
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("model", "flags"),
    [("hybrid", ("--frozen", 1)), ("cnn", ("--optimizer", "sgd", "--momentum", 0.9, "--lr", 0.1))],
)
def test_the_commands_take_hybrids_and_cnns(command: Any, tmp_path: Path, model: str, flags: tuple[Any, ...]) -> None:
    """finetune tests them, does nothing twice, and predict opens the best of them."""
    options = ("--epochs", 2, "--seeds", "1,2", "--max-length", 72, "--threads", 1, "-q", "--json", "-o", "out")
    words = ("finetune", "--model", model, "--train", "train.jsonl", "--dev", "test.jsonl", *options, *flags)
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    rows = json.loads(out)["results"]
    assert len(rows) == 2
    begin = (tmp_path / "out" / "rows.jsonl").stat().st_mtime_ns
    assert json.loads(command(*words)[1])["results"] == rows
    assert (tmp_path / "out" / "rows.jsonl").stat().st_mtime_ns == begin
    code, out, err = command("predict", "test.jsonl", "--model", "out/model", "--json", "-q")
    assert (code, err) == (0, "")
    found = json.loads(out)["results"]
    best = max(rows, key=lambda row: row["dev"])
    gold = [i.relation for i in relpt.load(tmp_path / "test.jsonl")]
    assert np.mean([row["label"] == name for row, name in zip(found, gold, strict=True)]) == best["dev"]


def test_options_that_a_kind_of_encoder_does_not_have(command: Any) -> None:
    data = ("--train", "train.jsonl", "--test", "test.jsonl", "-q")
    code, _, err = command("finetune", "--model", "hybrid", "--markers", "punct", *data)
    assert (code, err.strip()) == (
        1,
        "relpt: error: hybrid holds a HybridEncoder, which has no option 'markers'; it has device, dtype, num_threads",
    )
    code, _, err = command("finetune", "--model", "cnn", "--prompt", "between", *data)
    assert code == 1
    assert "cnn holds a CNNEncoder, which has no option 'prompt'" in err
    code, _, err = command("finetune", "--model", "hybrid", "--frozen", "0,1", *data)
    assert code == 1
    assert "is left to train" in err


def test_a_sentence_that_two_parts_cut_counts_once(a: Any, b: Any, train: relpt.Dataset) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(relpt.HybridEncoder(a, a), train, max_length=16, epochs=2)
    said = [str(w.message) for w in caught if issubclass(w.category, relpt.TruncationWarning)]
    longer = int((train.tokenize(a, max_length=128).lengths() + 6 > 16).sum())
    assert said == [f"{longer} sentences are longer than max_length=16: a window around both entities is used"]


# -- what the head reads ----------------------------------------------------------------------------------------------


def test_of_the_vector_for_few_shot_tests_the_head_reads_head_and_tail(
    folders: tuple[Path, Path], a: relpt.Encoder, train: relpt.Dataset
) -> None:
    wide = relpt.Encoder.from_pretrained(folders[0], representation=REPRESENTATION, num_threads=1)
    narrow = fit(wide, train)
    assert state(narrow) == state(fit(a, train))
    assert narrow.tuned.representation == "entity_start"
    assert wide.representation == REPRESENTATION
    joined, plain = (fit(relpt.HybridEncoder(encoder, a), train) for encoder in (wide, a))
    assert state(joined) == state(plain)
    before = weights(wide)
    fit(wide, train, copy=False)
    assert weights(wide) != before  # the one given is what is trained, though read in another way


def test_a_representation_that_is_named_is_what_the_head_reads(
    folders: tuple[Path, Path], a: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset, tmp_path: Path
) -> None:
    wide = relpt.Encoder.from_pretrained(folders[0], representation=REPRESENTATION, num_threads=1)
    named = fit(a, train, representation=REPRESENTATION)
    assert named.head is not None
    assert named.head[0].shape[1] == wide.dim
    assert state(named) == state(fit(wide, train, representation=REPRESENTATION))
    named.save_pretrained(tmp_path / "saved")
    again = relpt.Classifier.from_pretrained(tmp_path / "saved", num_threads=1)
    assert again.tuned.representation == REPRESENTATION
    np.testing.assert_array_equal(again.predict_proba(test), named.predict_proba(test))


def test_representations_that_cannot_be_read(a: relpt.Encoder, b: relpt.Encoder) -> None:
    with pytest.raises(ValueError, match=r"reads the \[MASK\] of a prompt, and .* has no prompt"):
        relpt.Classifier(a, representation="mask")
    with pytest.raises(ValueError, match="'tail' is unknown"):
        relpt.Classifier(a, representation="tail")
    with pytest.raises(ValueError, match="each part of a hybrid its own"):
        relpt.Classifier(relpt.HybridEncoder(a, b), representation="entity_start")
