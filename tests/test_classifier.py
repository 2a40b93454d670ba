"""Fine-tuning: what is learned, what must not change the result, what is saved, and what is refused."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert
from test_families import opened as open_family
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import metrics
from relpt.scores import choose_measures

OPTIONS: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 3, "max_length": 40}
PARTS = "entity_start+mean"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, representation=PARTS, num_threads=1)


@pytest.fixture(scope="module")
def train() -> relpt.Dataset:
    return relpt.load(tiny_dataset(4, 13), name="train")


@pytest.fixture(scope="module")
def many() -> relpt.Dataset:
    return relpt.load(tiny_dataset(4, 41), name="many")


@pytest.fixture(scope="module")
def test() -> relpt.Dataset:
    return relpt.load(tiny_dataset(4, 10, seed=9), name="test")


@pytest.fixture(scope="module")
def fitted(encoder: relpt.Encoder, many: relpt.Dataset, test: relpt.Dataset) -> relpt.Classifier:
    return fit(encoder, many, epochs=10, dev=test)


def fit(encoder: relpt.Encoder, data: Any, *, dev: Any = None, inputs: str = "C+M", **options: Any) -> relpt.Classifier:
    made = relpt.Classifier(encoder, **{**OPTIONS, **options})
    return made.fit(data, dev=dev, inputs=inputs, show_progress_bar=False)


def weights(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def state(classifier: relpt.Classifier) -> tuple[bytes, ...]:
    assert classifier.tuned is not None
    assert classifier.head is not None
    return (weights(classifier.tuned), *(part.tobytes() for part in classifier.head))


# -- learning ---------------------------------------------------------------------------------------------------------


def nearest_prototype(encoder: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset) -> float:
    """Accuracy of the relation whose mean vector is the most similar by cosine, without training."""
    known, asked = (encoder.encode(data, normalize_embeddings=True) for data in (train, test))
    gold = np.array([i.relation for i in train])
    means = np.stack([known[gold == name].mean(axis=0) for name in train.labels])
    nearest = (asked @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    return float(np.mean([train.labels[n] == i.relation for n, i in zip(nearest, test, strict=True)]))


@pytest.mark.weights
def test_learns_relations_of_the_sample_corpus() -> None:
    """Far above the largest class and the untrained encoder's nearest prototype, on sentences that it never saw."""
    data = relpt.load_sample("train").select(labels=["author", "capital", "flows_into", "spouse"])
    train, test = data[0::3], data[np.arange(len(data)) % 3 > 0]
    encoder = relpt.Encoder.from_pretrained("minilm", num_threads=2)
    classifier = relpt.Classifier(encoder, learning_rate=3e-4, batch_size=16, epochs=5, max_length=64)
    score = classifier.fit(train, show_progress_bar=False).score(test)
    majority = max(test.label_counts().values()) / len(test)
    untrained = nearest_prototype(encoder, train, test)
    print(f"accuracy {score:.3f}, largest class {majority:.3f}, prototypes {untrained:.3f}")
    assert score > 0.8
    assert score > majority + 0.4
    assert score > untrained + 0.1


def test_learns_made_up_relations_and_tells_its_course(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    assert fitted.score(test) > 0.8  # one in four by chance
    assert len(fitted.history) == 10 * 21  # 164 sentences in batches of 8
    assert [record["sentences"] for record in fitted.history][:21] == [8] * 20 + [4]
    assert len(fitted.dev_scores) == 10
    assert float(fitted.dev_scores[-1]) == float(fitted.score(test))
    assert fitted.history["loss"][-21:].mean() < fitted.history["loss"][:21].mean() / 2


@pytest.mark.parametrize("inputs", ["C+T", "OnlyC", "OnlyM", "OnlyT"])
def test_predicts_in_the_setting_that_was_trained(
    encoder: relpt.Encoder, many: relpt.Dataset, test: relpt.Dataset, inputs: str
) -> None:
    """OnlyT says nothing here: all types are the same, so all sentences get one answer; OnlyC has the telling words."""
    classifier = fit(encoder, many, inputs=inputs, epochs=8)
    predicted = classifier.predict(test)
    assert classifier.inputs == inputs
    assert (len(set(predicted)) == 1) == (inputs == "OnlyT")
    assert (classifier.score(test) > 0.5) == (inputs in ("C+T", "OnlyC"))


def test_a_batch_larger_than_the_data(encoder: relpt.Encoder, train: relpt.Dataset) -> None:
    classifier = fit(encoder, train[::10], batch_size=64, epochs=4)
    assert [record["sentences"] for record in classifier.history] == [6] * 4


# -- the same result --------------------------------------------------------------------------------------------------


def test_the_same_for_any_threads_and_the_encoder_stays(
    folder: Path, encoder: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset
) -> None:
    before = weights(encoder)
    one = fit(encoder, train)
    two = fit(relpt.Encoder.from_pretrained(folder, representation=PARTS, num_threads=2), train)
    assert weights(encoder) == before != weights(one.tuned)
    assert state(one) == state(two) == state(fit(encoder, train)) != state(fit(encoder, train, seed=1))
    np.testing.assert_array_equal(one.predict_proba(test), two.predict_proba(test))
    assert one.fit(train, show_progress_bar=False) is one  # starts anew
    assert state(one) == state(two)


def test_without_a_copy_the_encoder_itself_is_trained(
    folder: Path, encoder: relpt.Encoder, train: relpt.Dataset
) -> None:
    own = relpt.Encoder.from_pretrained(folder, representation=PARTS, num_threads=1)
    classifier = fit(own, train, copy=False)
    assert classifier.tuned is own
    assert state(classifier) == state(fit(encoder, train))


def test_a_head_does_not_outlive_its_encoders_weights(folder: Path, train: relpt.Dataset) -> None:
    own = relpt.Encoder.from_pretrained(folder, representation=PARTS, num_threads=1)
    classifier = fit(own, train, copy=False)

    def fail(record: dict[str, Any]) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        classifier.fit(train, callbacks=[fail], show_progress_bar=False)
    assert (classifier.head, classifier.labels) == (None, [])
    with pytest.raises(RuntimeError, match="fit"):
        classifier.predict(train)


def test_micro_batches_give_the_gradients_of_the_whole(encoder: relpt.Encoder, train: relpt.Dataset) -> None:
    whole, parts = (fit(encoder, train, epochs=1, micro_batch_size=size) for size in (None, 3))
    np.testing.assert_allclose(parts.history["loss"], whole.history["loss"], rtol=1e-4)
    np.testing.assert_allclose(parts.history["grad_norm"], whole.history["grad_norm"], rtol=1e-3)


def test_early_stopping_restores_the_best_epoch(
    encoder: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset
) -> None:
    """The kept weights are to the byte those of the epoch with the best score, which is not the last one."""
    options = {"learning_rate": 2e-2, "schedule": "constant", "dropout": 0.3}  # a course with ups and downs
    snapshots: list[tuple[bytes, ...]] = []
    classifier = relpt.Classifier(encoder, **{**OPTIONS, **options, "epochs": 30, "early_stopping": 3})

    class Watch:
        def __call__(self, record: dict[str, Any]) -> None:
            if record["step"] % 7 == 0:
                snapshots.append(weights(trained[0]))

    trained: list[relpt.Encoder] = []
    copied = encoder.copy()
    copied.copy = lambda: trained.append(relpt.Encoder.copy(copied)) or trained[0]  # type: ignore[method-assign,func-returns-value]
    classifier.encoder = copied
    classifier.fit(train, dev=test, callbacks=[Watch()], show_progress_bar=False)
    scores = [float(score) for score in classifier.dev_scores]
    best = int(np.argmax(scores))
    assert classifier.best_epoch == best + 1
    assert classifier.history.status == "stopped"
    assert len(scores) == best + 1 + 3
    assert weights(classifier.tuned) == snapshots[best] != snapshots[-1]
    assert float(classifier.score(test)) == max(scores)


def test_ctrl_c_leaves_a_classifier(encoder: relpt.Encoder, train: relpt.Dataset, test: relpt.Dataset) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == 5:
            raise KeyboardInterrupt

    classifier = relpt.Classifier(encoder, **OPTIONS)
    classifier.fit(train, callbacks=[interrupt], show_progress_bar=False)
    assert classifier.history.status == "interrupted"
    assert len(classifier.history) == 5
    stopped = relpt.Classifier(encoder, **OPTIONS)
    stopped.fit(train, callbacks=[lambda record: record["step"] == 5], show_progress_bar=False)
    assert state(classifier) == state(stopped)
    assert len(classifier.predict(test)) == len(test)


# -- prediction -------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax_of_the_head_on_the_vectors(
    fitted: relpt.Classifier, test: relpt.Dataset
) -> None:
    assert fitted.tuned is not None
    assert fitted.head is not None
    vectors = fitted.tuned.encode(test, inputs="C+M", max_length=40).astype(np.float64)
    powers = np.exp(vectors @ fitted.head[0].T.astype(np.float64) + fitted.head[1])
    found = fitted.predict_proba(test)
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert fitted.predict(test) == [fitted.labels[i] for i in found.argmax(axis=1)]


def test_one_sentence_a_list_and_the_likeliest(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    records = [{key: value for key, value in i.to_dict().items() if key != "relation"} for i in test[:5]]
    names, chances = fitted.predict(records), fitted.predict_proba(records)
    assert fitted.predict(records[3]) == fitted.predict(test[3]) == names[3]
    np.testing.assert_array_equal(fitted.predict_proba(records[3]), chances[3])
    top = fitted.predict_top(records, k=3)
    assert [pairs[0][0] for pairs in top] == names
    for pairs, row in zip(top, chances, strict=True):
        assert [chance for _, chance in pairs] == sorted(row, reverse=True)[:3]
        assert all(row[fitted.labels.index(name)] == chance for name, chance in pairs)
    assert fitted.predict_top(records[3], k=1) == top[3][:1]
    assert len(fitted.predict_top(records[0], k=99)) == 4
    assert fitted.predict([]) == []
    assert fitted.predict_proba([]).shape == (0, 4)


def test_scores_and_report(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    gold, predicted = [i.relation for i in test], fitted.predict(test)
    score, report = fitted.score(test), fitted.report(test)
    assert score == metrics.accuracy(gold, predicted) == report.score
    assert (score.metric, score.negative, score.sentences, score.unknown) == ("accuracy", None, 40, 0)
    assert fitted.score(test, metric="macro_f1") == metrics.macro_f1(gold, predicted)
    left_out = fitted.score(test, metric="micro_f1", negative="r0")
    assert left_out == metrics.micro_f1(gold, predicted, "r0")
    assert "without 'r0'" in repr(left_out)
    assert report.rows == metrics.relation_report(gold, predicted)
    assert report.confusion.counts.sum() == 40
    assert str(report).splitlines()[1].startswith("r0 ")
    assert "<td>r3</td>" in report._repr_html_()
    assert list(report.to_pandas()["relation"]) == ["r0", "r1", "r2", "r3"]
    assert json.loads(json.dumps({"score": score})) == {"score": float(score)}
    again = pickle.loads(pickle.dumps(score))
    assert (again, again.metric) == (score, "accuracy")


def test_the_confusion_matrix_is_drawn(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    pytest.importorskip("matplotlib")
    report = fitted.report(test)
    ax = report.plot()
    image = ax.images[0].get_array()
    np.testing.assert_allclose(image.sum(axis=1), 1)
    assert {text.get_text() for text in ax.texts} == {
        str(n) for n in report.confusion.counts[report.confusion.counts > 0]
    }
    assert report.plot(ax=ax) is ax


SEMEVAL = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other"]


def test_a_measure_that_does_not_fit(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    with pytest.raises(ValueError, match=r"metric 'semeval' needs relations with a direction.*4 of 4 have none: 'r0'"):
        fitted.score(test, metric="semeval")
    with pytest.raises(ValueError, match="negative is 'Other'; expected one of the 4 relations: 'r0'"):
        fitted.score(test, negative="Other")
    with pytest.raises(ValueError, match="metric is 'f1'; expected one of accuracy, micro_f1"):
        fitted.score(test, metric="f1")
    assert choose_measures(SEMEVAL, "semeval", None) == ("semeval", "semeval", "Other")


# -- saving and loading -----------------------------------------------------------------------------------------------


def test_saved_and_opened_it_says_the_same_to_the_byte(
    fitted: relpt.Classifier, test: relpt.Dataset, tmp_path: Path
) -> None:
    fitted.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.bin"))
    opened = relpt.Classifier.from_pretrained(tmp_path / "model", num_threads=2)
    assert opened.predict_proba(test).tobytes() == fitted.predict_proba(test).tobytes()
    assert (opened.labels, opened.inputs, opened.get_params()) == (fitted.labels, "C+M", fitted.get_params())
    card = json.loads((tmp_path / "model" / "relpt.json").read_text())
    assert card["classifier"]["labels"] == ["r0", "r1", "r2", "r3"]
    assert card["data"]["sentences"] == 164
    plain = relpt.Encoder.from_pretrained(tmp_path / "model")
    assert weights(plain) == weights(fitted.tuned)
    opened.save_pretrained(tmp_path / "again")
    for name in ("head.safetensors", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_the_setting_and_the_representation_are_saved(
    folder: Path, train: relpt.Dataset, test: relpt.Dataset, tmp_path: Path
) -> None:
    encoder = relpt.Encoder.from_pretrained(folder, representation="cls+mean", num_threads=1)
    encoder.fit_projection(train)
    classifier = fit(encoder, train, inputs="OnlyM", epochs=1)
    assert encoder.projection is not None
    opened = relpt.Classifier.from_pretrained(classifier.save_pretrained(tmp_path))
    assert (opened.inputs, opened.encoder.representation, opened.encoder.projection) == ("OnlyM", "cls+mean", None)
    assert opened.predict_proba(test).tobytes() == classifier.predict_proba(test).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"representation": "entity_start+mask", "prompt": "between"},
        {"representation": "mention_mean"},
        {"markers": "typed", "types": ["person", "place"], "marker_order": "text"},
    ],
)
def test_prompts_and_typed_markers(
    folder: Path, train: relpt.Dataset, test: relpt.Dataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    """They are part of what is trained, and come back with the classifier."""
    encoder = relpt.Encoder.from_pretrained(folder, num_threads=1, **options)
    classifier = fit(encoder, train, epochs=1, max_length=64)
    vectors = classifier.tuned.encode(test, max_length=64)  # type: ignore[union-attr]
    logits = vectors @ classifier.head[0].T + classifier.head[1]  # type: ignore[index]
    assert classifier.predict(test) == [classifier.labels[i] for i in logits.argmax(axis=1)]
    opened = relpt.Classifier.from_pretrained(classifier.save_pretrained(tmp_path))
    assert opened.predict_proba(test).tobytes() == classifier.predict_proba(test).tobytes()
    if "types" in options:
        with pytest.raises(ValueError, match=r"1 of 2 mentions have no type .*'s markers say"):
            opened.predict(without_types(test, 1)[1])


@pytest.mark.parametrize("model_type", ["albert", "distilbert", "electra", "roberta"])
def test_other_families_are_copied_and_trained(tmp_path: Path, model_type: str) -> None:
    encoder = open_family(tmp_path, model_type)
    data = tiny_bert.dataset(20)
    before = weights(encoder)
    classifier = fit(encoder, data, max_length=32, epochs=2)
    assert weights(encoder) == before != weights(classifier.tuned)
    opened = relpt.Classifier.from_pretrained(classifier.save_pretrained(tmp_path / "model"))
    assert opened.predict_proba(data).tobytes() == classifier.predict_proba(data).tobytes()


@pytest.mark.parametrize("damage", ["no head", "cut head", "no labels", "other head"])
def test_damaged_folders(fitted: relpt.Classifier, tmp_path: Path, damage: str) -> None:
    fitted.save_pretrained(tmp_path)
    head, card = tmp_path / "head.safetensors", tmp_path / "relpt.json"
    expected = {
        "no head": "holds no classifier",
        "cut head": "head.safetensors: is no whole safetensors file",
        "no labels": "classifier.labels or .options are missing",
        "other head": r"tensor weight has shape \(4, 96\), expected \(3, 96\)",
    }
    if damage == "no head":
        head.unlink()
    elif damage == "cut head":
        head.write_bytes(head.read_bytes()[:-5])
    else:
        content = json.loads(card.read_text())
        content["classifier"]["labels"] = None if damage == "no labels" else ["a", "b", "c"]
        card.write_text(json.dumps(content))
    with pytest.raises(relpt.FormatError, match=expected[damage]):
        relpt.Classifier.from_pretrained(tmp_path)


def test_no_classifier_in_the_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(relpt.FormatError, match="holds no classifier; make one by relpt finetune"):
        relpt.Classifier.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        relpt.Classifier.from_pretrained(tmp_path / "nowhere")


# -- bad input --------------------------------------------------------------------------------------------------------


def without_types(data: relpt.Dataset, n: int) -> list[dict[str, Any]]:
    records = [i.to_dict() for i in data]
    for record in records[1 : 1 + n]:
        del record["t"]["type"]
    return records


BAD_TRAIN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "empty": (lambda data: [], {}, "'data' has no sentences to train on"),
    "one class": (lambda data: data.select(labels=["r1"]), {}, r"has one relation alone, 'r1' \(13 sentences\)"),
    "no labels": (
        lambda data: [{k: v for k, v in i.to_dict().items() if k != "relation"} for i in data],
        {},
        "names no relations; a classifier is trained on labelled sentences",
    ),
    "types": (
        lambda data: without_types(data, 3),
        {"inputs": "C+T"},
        r"data: 3 of 104 mentions have no type \(the first in row 1\), which the settings C\+T and OnlyT say; give",
    ),
    "labels": (
        lambda data: data,
        {"labels": ["r0", "r1", "r2"]},
        r"13 of 52 sentences of 'train' have a relation that is not among the 3 labels given: 'r3' \(13\)",
    ),
    "early stopping": (lambda data: data, {"early_stopping": 1}, "early_stopping needs a dev set"),
}


@pytest.mark.parametrize("case", BAD_TRAIN)
def test_data_that_cannot_be_trained_on(encoder: relpt.Encoder, train: relpt.Dataset, case: str) -> None:
    change, options, message = BAD_TRAIN[case]
    options = dict(options)
    made = relpt.Classifier(encoder, early_stopping=options.pop("early_stopping", None), max_length=40)
    with pytest.raises(ValueError, match=message):
        made.fit(change(train), show_progress_bar=False, **options)
    with pytest.raises(RuntimeError, match="the classifier is not fitted; call fit"):
        made.predict(train)


def test_relations_that_were_not_trained(encoder: relpt.Encoder, test: relpt.Dataset) -> None:
    train = relpt.load(tiny_dataset(3, 8), name="train")
    message = (
        r"10 of 40 sentences of 'test' have a relation that is not among the 3 trained ones: 'r3' \(10\); train on"
    )
    classifier = fit(encoder, train, epochs=1)
    with pytest.raises(ValueError, match=message):
        classifier.score(test)
    with pytest.raises(ValueError, match=message):
        fit(encoder, train, dev=test, epochs=1)
    assert len(classifier.predict(test)) == 40
    lenient = fit(encoder, train, epochs=1, unknown_labels="wrong")
    score = lenient.score(test)
    right = sum(a == i.relation for a, i in zip(lenient.predict(test), test, strict=True))
    assert (score.unknown, float(score)) == (10, right / 40)
    assert "10 of unknown relations counted as wrong" in repr(score)
    named = relpt.Classifier(encoder, **OPTIONS).fit(train, labels=["r0", "r1", "r2", "r3"], show_progress_bar=False)
    assert named.labels == ["r0", "r1", "r2", "r3"]
    assert named.score(test).unknown == 0
    chances = named.predict_proba(test)
    assert chances.shape == (40, 4)
    assert (chances[:, 3] < chances.max(axis=1)).all()


def test_labels_that_are_absent_do_not_move_the_others(encoder: relpt.Encoder, train: relpt.Dataset) -> None:
    """A class before the others in the alphabet, without a sentence."""
    made = relpt.Classifier(encoder, **{**OPTIONS, "epochs": 12})
    made.fit(train, labels=["a", "r0", "r1", "r2", "r3"], show_progress_bar=False)
    assert "a" not in made.predict(train)
    assert made.score(train) > 0.8


def test_data_that_cannot_be_scored(fitted: relpt.Classifier, test: relpt.Dataset) -> None:
    bare = [{k: v for k, v in i.to_dict().items() if k != "relation"} for i in test]
    with pytest.raises(ValueError, match="names no relations; give labelled data, or call predict"):
        fitted.score(bare)
    with pytest.raises(ValueError, match="has no sentences to score"):
        fitted.score([])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch_size", 0, "batch_size is 0; expected a whole number from 1 on"),
        ("epochs", 1.5, "epochs is 1.5"),
        ("early_stopping", 0, "early_stopping is 0; expected a whole number from 1 on, or None"),
        ("unknown_labels", "skip", "unknown_labels is 'skip'; expected one of raise, wrong"),
        ("label_smoothing", 1.0, "label_smoothing is 1"),
        ("learning_rate", -1.0, "learning_rate is -1"),
        ("head_dropout", 1.0, "dropout before the classes is 1"),
        ("max_length", 500, "max_length is 500, expected 16 to the model's 128 positions"),
    ],
)
def test_options_out_of_range(
    encoder: relpt.Encoder, train: relpt.Dataset, option: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(encoder, train, **{option: value})


def test_what_cannot_be_fine_tuned(folder: Path, encoder: relpt.Encoder) -> None:
    table = relpt.EntityTable.from_corpus(relpt.Encoder.from_pretrained(folder), tiny_dataset(2, 3))
    with pytest.raises(TypeError, match=r"cannot fine-tune EntityTable; give a relpt\.Encoder, CNNEncoder or"):
        relpt.Classifier(table)
    with pytest.raises(TypeError, match=r"no part of it is a network; join a relpt\.Encoder"):
        relpt.Classifier(relpt.HybridEncoder(table, table))
    with pytest.raises(ValueError, match=r"frozen names part 1; .* has parts 0 to 0"):
        relpt.Classifier(encoder, frozen=[1])
    with pytest.raises(ValueError, match=r"frozen is \[0\]: no part of .* is left to train"):
        relpt.Classifier(encoder, frozen=[0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'lr'"):
        relpt.Classifier(encoder, lr=1.0)  # type: ignore[call-arg]


def test_repr_and_params(encoder: relpt.Encoder, fitted: relpt.Classifier) -> None:
    made = relpt.Classifier(encoder, epochs=2)
    assert made.get_params()["epochs"] == 2
    assert made.get_params()["learning_rate"] == 3e-5
    assert "epochs=2): not fitted" in repr(made)
    assert "4 relations, C+M" in repr(fitted)


def test_sentences_that_are_cut_are_counted_once(encoder: relpt.Encoder, train: relpt.Dataset) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(encoder, train, dev=train, max_length=16, epochs=3)
    said = [str(w.message) for w in caught if issubclass(w.category, relpt.TruncationWarning)]
    longer = int((train.tokenize(encoder, max_length=128).lengths() + 6 > 16).sum())
    assert 0 < longer < len(train)
    assert said == [f"{longer} sentences are longer than max_length=16: a window around both entities is used"] * 2


def test_an_encoders_copy_is_its_own(folder: Path, train: relpt.Dataset) -> None:
    encoder = relpt.Encoder.from_pretrained(folder, num_threads=1)
    twin = encoder.copy()
    np.testing.assert_array_equal(twin.encode(train), encoder.encode(train))
    name = "embeddings.word_embeddings.weight"
    encoder._model.set(name, encoder._model.get(name) * 2)
    assert weights(twin) != weights(encoder)
    assert weights(twin) == weights(relpt.Encoder.from_pretrained(folder))
