"""CNNEncoder on text: its words, tags and settings, by its core written again in NumPy; its files; word vectors."""

from __future__ import annotations

import gzip
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cnn_formula import vector
from corpora import CM, CT, OC, OM, OT
from tiny import NAMES, WORDS, tiny_dataset, tiny_encoder_folder

import relpt
from relpt.data import Instance
from relpt.objectives import CP, MLM, RC, SBO

SETTINGS = {"C+M": CM, "C+T": CT, "OnlyC": OC, "OnlyM": OM, "OnlyT": OT}


def tagged_records(n: int = 30, seed: int = 0) -> list[dict[str, Any]]:
    """Tokenized sentences with tags, mentions of one and of several tokens, in either order, at the ends too."""
    rng, records = np.random.default_rng(seed), []
    for i in range(n):
        lengths = [
            int(k) for k in (rng.integers(0, 4), 1 + rng.integers(0, 2), rng.integers(0, 4), 1, rng.integers(0, 4))
        ]
        tokens = [str(rng.choice(NAMES if k % 2 else WORDS)) for k, length in enumerate(lengths) for _ in range(length)]
        ends = np.cumsum(lengths).tolist()
        spans = [[ends[0], ends[1]], [ends[2], ends[3]]]
        head, tail = spans if rng.random() < 0.5 else spans[::-1]
        records.append(
            {
                "tokens": tokens,
                "pos": [str(tag) for tag in rng.choice(["NN", "VB", "DT"], len(tokens))],
                "ner": [str(tag) for tag in rng.choice(["O", "PERSON"], len(tokens))],
                "h": {"pos": head, "type": "PERSON"},
                "t": {"pos": tail, "type": "CITY_OR_TOWN"},
                "relation": f"r{i % 3}",
            }
        )
    return records


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tagged_records())


def options_of(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 6,
        "word_size": 4,
        "position_size": 2,
        "pos_size": 3,
        "ner_size": 2,
        "max_distance": 4,
    } | changes


FORMS: dict[str, dict[str, Any]] = {
    "cnn": {},
    "pcnn": {"kind": "pcnn", "activation": "relu"},
    "tags": {"kind": "pcnn", "tags": ("pos", "ner"), "window": 4},
    "ner alone": {"tags": ("ner",)},
}


def expected(encoder: relpt.CNNEncoder, data: relpt.Dataset, inputs: str) -> np.ndarray:
    """By words of the records themselves: what the core is handed is made here once more."""
    vocabulary, special = encoder.tokenizer.get_vocab(), {"subject": "[SUBJ]", "object": "[OBJ]"}
    names = {tag: ["", *encoder.config[f"{tag}_tags"]] for tag in ("pos", "ner")}
    values = {name: encoder._model.get(name).astype(np.float64) for name, _ in encoder._model.parameters()}
    config = dict(encoder.config, piecewise=encoder.config["kind"] == "pcnn")
    config["activation"] = ("tanh", "relu").index(config["activation"])
    config |= {f"{tag}_size": config[f"{tag}_size"] if tag in encoder.tags else 0 for tag in ("pos", "ner")}
    found = []
    for instance in data:
        words = instance.text.split()
        spans = [[len(instance.text[:at].split()) for at in span] for span in (instance.head, instance.tail)]
        arrays: dict[str, Any] = {
            "ids": np.array([vocabulary.get(word.lower(), 0) for word in words]),
            "offsets": np.array([0, len(words)]),
            "spans": np.array([[*spans[0], *spans[1]]]),
            "head_type": [0],
            "tail_type": [1],
            "type_offsets": np.array([0, 1, 4]),
            "type_ids": np.array([vocabulary.get(word, 0) for word in ("person", "city", "or", "town")]),
        }
        for tag in ("pos", "ner"):
            tags = getattr(instance, tag)
            numbers = (
                [names[tag].index(name) if name in names[tag] else 0 for name in tags] if tags else [0] * len(words)
            )
            arrays[f"{tag}_tag"] = np.array(numbers)
        ids = {role: vocabulary[word] for role, word in special.items()}
        found.append(vector(config, values, arrays, 0, SETTINGS[inputs], ids))
    return np.array(found)


@pytest.mark.parametrize("inputs", SETTINGS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_vectors_of_text(data: relpt.Dataset, form: dict[str, Any], inputs: str) -> None:
    encoder = relpt.CNNEncoder.from_data(data, min_count=2, **options_of(**form))
    got = encoder.encode(data, inputs=inputs)
    assert got.dtype == np.float32
    assert got.shape == (len(data), encoder.dim)
    np.testing.assert_allclose(got, expected(encoder, data, inputs), atol=2e-6)


def test_a_sentence_is_as_long_as_its_words(data: relpt.Dataset, recwarn: pytest.WarningsRecorder) -> None:
    encoder, longest = relpt.CNNEncoder.from_data(data, **options_of()), max(len(i.text.split()) for i in data)
    data.tokenize(encoder, max_length=longest)
    assert not recwarn.list
    with pytest.warns(relpt.TruncationWarning, match=rf"the longest needs {longest}\)"):
        data.tokenize(encoder, max_length=longest - 1)


def test_what_replaces_a_mention_hides_its_words_and_tags(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos", "ner"), **options_of())
    record = tagged_records(1, seed=5)[0]
    other = json.loads(json.dumps(record))
    for i in range(*record["h"]["pos"]):
        other["tokens"][i], other["ner"][i], other["pos"][i] = WORDS[0], "O", "DT"
    both = relpt.load([record, other])
    for inputs in ("OnlyC", "C+T", "OnlyT"):
        a, b = encoder.encode(both, inputs=inputs)
        assert np.array_equal(a, b), inputs
    a, b = encoder.encode(both)
    assert not np.array_equal(a, b)


def test_neighbours_threads_and_order_change_nothing(data: relpt.Dataset) -> None:
    options = options_of(kind="pcnn", hidden_size=40)
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos",), num_threads=1, **options)
    whole = encoder.encode(data)
    assert np.array_equal(encoder.encode(data[::-1])[::-1], whole)
    assert all(np.array_equal(encoder.encode(data[i]), whole[i]) for i in range(5))
    many = relpt.CNNEncoder.from_data(data, tags=("pos",), num_threads=3, **options)
    assert many.encode(data).tobytes() == whole.tobytes()


def test_a_corpus_gives_what_its_data_gives(data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos", "ner"), **options_of())
    corpus = data.tokenize(encoder)
    corpus.save(tmp_path / "corpus")
    for same in (corpus, relpt.Corpus.open(tmp_path / "corpus", verify=True)):
        assert np.array_equal(encoder.encode(same), encoder.encode(data))
    assert corpus.pos_tags == ["", "DT", "NN", "VB"]
    with pytest.raises(ValueError, match="the corpus has no pos_tags; tokenize the data with this encoder"):
        encoder.encode(data.tokenize(encoder, tags=()))
    other = relpt.CNNEncoder(["a", "b"], **options_of())
    with pytest.raises(ValueError, match="another tokenizer"):
        other.encode(corpus)


def test_few_shot_and_normalized(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of())
    result = relpt.FewShot(n_way=3, k_shot=2, episodes=50).evaluate(encoder, data, inputs="OnlyC")
    assert 0 < result.accuracy < 1
    unit = encoder.encode(data, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)


# -- words ------------------------------------------------------------------------------------------------------------


def test_the_vocabulary_of_data(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, min_count=3, **options_of())
    counts: dict[str, int] = {}
    for instance in data:
        for word in instance.text.lower().split():
            counts[word] = counts.get(word, 0) + 1
    wanted = {word for word, count in counts.items() if count >= 3} | {"person", "city", "or", "town"}
    assert set(encoder.tokenizer.get_vocab()) == wanted | {"[UNK]", "[MASK]", "[BLANK]", "[SUBJ]", "[OBJ]"}


@pytest.mark.parametrize(("split", "words"), [("blanks", 4), ("punctuation", 6)])
def test_where_words_end(split: str, words: int) -> None:
    record = {"text": "Ada, of London.  Born", "h": {"pos": [0, 3]}, "t": {"pos": [8, 14]}}
    encoder = relpt.CNNEncoder(["ada", "ada,", "london", "london."], split=split, **options_of())
    corpus = relpt.load([record]).tokenize(encoder)
    assert len(corpus.ids) == words
    assert [encoder.tokenizer.id_to_token(int(i)) for i in corpus.ids[corpus.spans[0, [0, 2]]]] == (
        ["ada", "london"] if split == "punctuation" else ["ada,", "london."]
    )


def test_case(data: relpt.Dataset) -> None:
    record = {"tokens": ["Ada", "saw", "London"], "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}}
    for lowercase, known in ((True, 2), (False, 1)):
        encoder = relpt.CNNEncoder(["saw", "london"], lowercase=lowercase, **options_of())
        assert int((relpt.load([record]).tokenize(encoder).ids > 4).sum()) == known


def test_special_words_in_the_text_are_unknown_words() -> None:
    record = {"tokens": ["[SUBJ]", "saw", "[BLANK]"], "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}}
    encoder = relpt.CNNEncoder(["saw"], **options_of())
    assert relpt.load([record]).tokenize(encoder).ids.tolist() == [0, 5, 0]


def test_a_type_that_cannot_be_said_is_refused(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder(["person", "city", "town"], **options_of())
    encoder.encode(data, inputs="OnlyC")
    for inputs in ("C+T", "OnlyT"):
        with pytest.raises(ValueError, match=r"1 of 2 types have a word that cnn's vocabulary lacks \(CITY_OR_TOWN\)"):
            encoder.encode(data, inputs=inputs)


def test_unknown_words_and_tags_are_logged(data: relpt.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    encoder = relpt.CNNEncoder(["a"], pos_tags=["NN", "VB"], **options_of())
    with caplog.at_level(logging.INFO, logger="relpt"):
        encoder.encode(data)
    total = sum(len(i.text.split()) for i in data)
    known = sum(word == "a" for i in data for word in i.text.lower().split())
    assert f"{total - known} of {total} words are unknown" in caplog.text
    assert "1 POS tags are unknown: DT" in caplog.text


def test_long_sentences_get_a_window() -> None:
    tokens = [f"w{i}" for i in range(60)]
    record = {"tokens": tokens, "h": {"pos": [30, 31]}, "t": {"pos": [33, 34]}}
    encoder = relpt.CNNEncoder(tokens, **options_of(max_distance=100))
    with pytest.warns(relpt.TruncationWarning, match="1 sentence is longer than max_length=16") as caught:
        cut = encoder.encode(relpt.load([record]), max_length=16)
    assert Path(caught[0].filename) == Path(__file__)
    inner = {"tokens": tokens[24:40], "h": {"pos": [6, 7]}, "t": {"pos": [9, 10]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(encoder.encode(relpt.load([inner]), max_length=16), cut)


# -- tags -------------------------------------------------------------------------------------------------------------


def test_data_without_tags_is_refused_with_its_count(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos",), **options_of())
    records = tagged_records(10)
    for record in records[2:5]:
        del record["pos"]
    with pytest.raises(ValueError, match=r"3 of 10 sentences have no pos tags .first: data: record 2"):
        encoder.encode(records)
    with pytest.raises(ValueError, match="3 of 10 sentences have no pos tags"):
        relpt.CNNEncoder.from_data(records, tags=("pos",))
    with pytest.raises(ValueError, match="'chunk' is unknown; expected pos or ner"):
        relpt.CNNEncoder.from_data(data, tags=("chunk",))
    assert relpt.CNNEncoder.from_data(records, **options_of()).encode(records).shape == (10, 6)  # off: none is needed


def test_tags_go_with_word_pieces_too(data: relpt.Dataset, tmp_path: Path) -> None:
    """Each piece has the tag of its word, also where mentions touch and the sentence is tokenized with blanks."""
    bert = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path / "bert"), num_threads=1)
    touching = Instance("Ada-London said old", (0, 4), (4, 10), pos=("A", "B", "C"))
    sentences = relpt.data.Dataset([Instance("Zyx said Anna", (0, 3), (9, 13), pos=("A", "B", "C")), touching])
    corpus = sentences.tokenize(bert, tags=("pos",))
    pieces = [bert.tokenizer.id_to_token(int(i)) for i in corpus.ids]
    assert corpus.pos_tag is not None
    assert corpus.pos_tags is not None
    names = [corpus.pos_tags[i] for i in corpus.pos_tag]
    first = int(corpus.offsets[1])
    assert pieces[:first] == ["z", "##y", "##x", "said", "anna"]
    assert names[:first] == ["A", "A", "A", "B", "C"]
    assert names[first:] == ["A"] * (len(names) - first - 2) + ["B", "C"]
    assert data.tokenize(bert).pos_tag is None  # an encoder that reads none gets none


def test_mentions_that_touch_keep_their_words_tag() -> None:
    instance = Instance("so US-Iran talks", (3, 5), (6, 10), pos=("RB", "JJ", "NNS"))
    encoder = relpt.CNNEncoder(["so", "us", "-", "iran", "talks"], pos_tags=["RB", "JJ", "NNS"], **options_of())
    corpus = relpt.data.Dataset([instance]).tokenize(encoder)
    assert [encoder.tokenizer.id_to_token(int(i)) for i in corpus.ids] == ["so", "us", "-", "iran", "talks"]
    assert corpus.pos_tag is not None
    assert corpus.pos_tags is not None
    assert [corpus.pos_tags[i] for i in corpus.pos_tag] == ["RB", "JJ", "JJ", "JJ", "NNS"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": ["NN"] * 2}, "pos: 2 tags for 3 tokens"),
        ({"ner": ["O", "", "O"]}, r"ner\[1\]: expected a tag, got a string"),
        ({"ner": ["O", 3, "O"]}, r"ner\[1\]: expected a tag, got a whole number"),
        ({"tokens": ["Ada", "saw x", "London"], "pos": ["NN"] * 3}, "pos: a token is empty or holds a blank"),
    ],
)
def test_bad_tags(change: dict[str, Any], message: str) -> None:
    record = {"tokens": ["Ada", "saw", "London"], "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}}
    with pytest.raises(relpt.FormatError, match=message):
        relpt.load([record | change])


def test_what_is_no_list_of_tags_is_another_field() -> None:
    record = {"tokens": ["Ada", "saw", "London"], "h": {"pos": [0, 1]}, "t": {"pos": [2, 3]}}
    instance = relpt.load([record | {"ner": [[0, 1, "PERSON"]], "pos": None}])[0]
    assert instance.ner is None
    assert instance.pos is None


def test_tags_of_text_and_of_tacred_and_back() -> None:
    record = {"text": "Ada saw  London .", "pos": ["A", "B", "C", "D"], "h": {"pos": [0, 3]}, "t": {"pos": [9, 15]}}
    instance = relpt.load([record])[0]
    assert instance.pos == ("A", "B", "C", "D")
    assert relpt.load([instance.to_dict()])[0].pos == instance.pos
    fields = {"id": "1", "relation": "r", "token": ["Ada", "-LRB-", "Rome"], "subj_start": 0, "subj_end": 0}
    tacred = {
        **fields,
        "obj_start": 2,
        "obj_end": 2,
        "stanford_pos": ["NNP", "-LRB-", "NNP"],
        "stanford_ner": ["P", "O", "L"],
    }
    instance = relpt.load([tacred])[0]
    assert (instance.pos, instance.ner) == (("NNP", "-LRB-", "NNP"), ("P", "O", "L"))
    with pytest.raises(relpt.FormatError, match="stanford_ner: 1 tags for 3 tokens"):
        relpt.load([tacred | {"stanford_ner": ["P"]}])


def test_an_instance_has_a_tag_a_word() -> None:
    with pytest.raises(ValueError, match="ner: 2 tags for the text's 3 words"):
        Instance("a b c", (0, 1), (2, 3), ner=("O", "O"))


# -- options and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gcn"}, "kind is 'gcn'; expected one of cnn, pcnn"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"split": "syllables"}, "split is 'syllables'"),
        ({"window": 0}, "window is 0, expected 1 to"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"pos_tags": "NN"}, "expected a list of their names"),
        ({"pos_tags": ["NN"], "pos_size": -1}, "pos_size is -1"),
        ({"vectors": np.zeros((3, 4), np.float32)}, r"vectors is \(3, 4\); expected at most \(2, 4\)"),
        ({"vectors": np.zeros((2, 5), np.float32)}, r"vectors is \(2, 5\); expected at most \(2, 4\)"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relpt.CNNEncoder(["a", "b"], **options_of(**options))


def test_it_refuses_what_only_an_encoder_has(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of())
    with pytest.raises(ValueError, match="max_length is 15"):
        encoder.encode(data, max_length=15)
    with pytest.raises(ValueError, match="a CNN has no hidden states"):
        encoder._runs.of(16, "float32").ids(np.zeros(2, np.int32), np.int32([0, 2]))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("cnn", {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}), ("pcnn", {"learning_rate": 2e-3})],
    ids=["cnn-sgd", "pcnn-adamw"],
)
def test_it_learns_relations(kind: str, options: dict[str, Any]) -> None:
    data = relpt.load_sample()
    encoder = relpt.CNNEncoder.from_data(data, kind=kind, num_threads=2)
    fixed = {"pairs_per_step": 80, "max_steps": 60, "p_blank": 0.0, "schedule": "constant", "warmup_steps": 0}
    trainer = relpt.Trainer(encoder, objectives=[RC()], dropout=None, **fixed, **options)
    losses = [record["loss"] for record in trainer.fit(data).records]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.08
    counts = data.label_counts()
    names = sorted(counts)
    found = [names[k] for k in trainer.logits(encoder.encode(data)).argmax(axis=1)]
    accuracy = np.mean([name == instance.relation for name, instance in zip(found, data, strict=True)])
    assert accuracy > 3 * max(counts.values()) / len(data)


def trained(data: relpt.Dataset, *, threads: int = 1, folder: Path | None = None, **changes: Any) -> Any:
    """A network that reads tags, and its trainer, after a run."""
    encoder = relpt.CNNEncoder.from_data(data, **options_of(kind="pcnn", tags=("pos", "ner"), num_threads=threads))
    options = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.5, "pairs_per_step": 8, "max_steps": 6}
    options |= {"max_length": 32, "schedule": "constant", "dropout": 0.3}
    resume, steps = changes.pop("resume", None), changes.pop("stop", None)
    trainer = relpt.Trainer(encoder, objectives=[CP(), RC()], **options | changes)
    stop = [lambda record: record["step"] == steps] if steps else []
    trainer.fit(data, checkpoint_dir=folder, resume=resume, callbacks=stop)
    return encoder, trainer


def weights_of(encoder: relpt.CNNEncoder, trainer: relpt.Trainer) -> dict[str, np.ndarray]:
    return {name: encoder._model.get(name) for name, _ in encoder._model.parameters()} | trainer.heads


def test_a_resumed_run_ends_as_the_whole_one(data: relpt.Dataset, tmp_path: Path) -> None:
    whole = weights_of(*trained(data))
    trained(data, folder=tmp_path, stop=3)
    again = weights_of(*trained(data, folder=tmp_path, resume=True))
    for name, value in whole.items():
        assert value.tobytes() == again[name].tobytes(), name
    opened = relpt.CNNEncoder.from_pretrained(sorted(tmp_path.iterdir())[-1])
    assert opened._model.get("convolution.weight").tobytes() == whole["convolution.weight"].tobytes()
    with pytest.raises(ValueError, match=r"resume: momentum is 0\.25, but"):
        trained(data, folder=tmp_path, resume=True, momentum=0.25)


def test_training_goes_by_neither_threads_nor_micro_batches(data: relpt.Dataset) -> None:
    one, two, parts = (weights_of(*trained(data, **c)) for c in ({}, {"threads": 2}, {"micro_batch_pairs": 3}))
    for name, value in one.items():
        assert value.tobytes() == two[name].tobytes(), name
        np.testing.assert_allclose(parts[name], value, atol=1e-5)


def test_sgd_goes_down_the_gradient(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of(tags=("ner",)))
    options = {"optimizer": "sgd", "learning_rate": 0.25, "schedule": "constant", "warmup_steps": 0}
    trainer = relpt.Trainer(
        encoder, objectives=[RC()], **options, pairs_per_step=8, weight_decay=0.1, max_grad_norm=0.0, max_steps=1
    )
    corpus = data.tokenize(encoder, tags=encoder.tags)
    core = relpt._core.Trainer(**trainer._core_options(8, corpus.relations))
    sampler = trainer._sampler(corpus)
    before = {name: encoder._model.get(name) for name, _ in encoder._model.parameters()}
    core.step(sampler, 0)
    for name, value in before.items():
        grad = core.get(0, name) + 0.1 * (value if value.ndim == 2 else 0)
        assert np.abs(grad).max() > 0, name
        np.testing.assert_allclose(encoder._model.get(name), value - 0.25 * grad, atol=1e-6)


@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", 0.0), ("adamw", 0.01)])
def test_the_decay_that_nobody_names_is_the_optimizers(data: relpt.Dataset, optimizer: str, decay: float) -> None:
    """AdamW's at a rate of 0.5 takes a half percent off every weight in a step, and nothing is learned."""
    heads = []
    for options in ({}, {"weight_decay": None}, {"weight_decay": decay}, {"weight_decay": 0.1}):
        encoder = relpt.CNNEncoder.from_data(data, **options_of())
        own = {"optimizer": optimizer, "learning_rate": 0.5 if optimizer == "sgd" else 1e-3, "batch_size": 16}
        clf = relpt.Classifier(encoder, **own, epochs=2, **options).fit(data, show_progress_bar=False)
        assert clf.head is not None
        heads.append(clf.head[0])
    assert all(np.array_equal(head, heads[0]) for head in heads[:3])
    assert not np.array_equal(heads[3], heads[0])


def test_contrast_brings_relations_together(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of())
    options = {"pairs_per_step": 12, "max_steps": 40, "learning_rate": 0.01, "schedule": "constant"}
    losses = [record["loss"] for record in relpt.CPTrainer(encoder, **options).fit(data).records]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_what_a_cnn_cannot_be_trained_by(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of())
    with pytest.raises(ValueError, match="mlm: a CNN has no hidden states to predict masked words from"):
        relpt.Trainer(encoder, objectives=[RC(), MLM()], max_steps=1, pairs_per_step=4).fit(data)
    with pytest.raises(ValueError, match="spans are masked between markers"):
        relpt.Trainer(encoder, objectives=[RC(), SBO()], max_steps=1, pairs_per_step=4).fit(data)
    with pytest.raises(ValueError, match="a CNNEncoder has one representation"):
        relpt.Trainer(encoder, objectives=[RC()], loss_representation="cls")
    with pytest.raises(ValueError, match="optimizer is 'adam'; expected"):
        relpt.Trainer(encoder, objectives=[RC()], optimizer="adam")
    with pytest.raises(ValueError, match="momentum is 1, expected 0 <= momentum < 1"):
        relpt.Trainer(encoder, objectives=[RC()], optimizer="sgd", momentum=1.0, pairs_per_step=4).fit(data)


def test_the_core_wants_the_tags_that_the_network_reads(data: relpt.Dataset) -> None:
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos",), **options_of())
    corpus, run = data.tokenize(encoder), encoder._runs.of(64, "float32")
    for core, message in (
        (corpus.core(), "the corpus has no POS tags, and the network reads them"),
        (corpus.core({"pos_tag": list("abcdefg")}), "the corpus has 7 POS tags, the network 4"),
    ):
        with pytest.raises(ValueError, match=message):
            run.rows(core, encoder._tokens, np.arange(2), 0, 64, (0,))


def test_an_encoder_refuses_words_alone_and_a_cnn_markers(data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = relpt.CNNEncoder.from_data(data, **options_of())
    corpus, rows = data.tokenize(encoder).core(), np.arange(2)
    fixed = dict.fromkeys(("cls", "sep", "head_start", "head_end", "tail_start", "tail_end"), 1)
    with pytest.raises(ValueError, match="bare is 0; this network takes 1"):
        encoder._runs.of(64, "float32").rows(corpus, encoder._tokens | fixed | {"bare": False}, rows, 0, 64, (0,))
    bert = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path / "bert"), num_threads=1)
    corpus = relpt.load(tiny_dataset()).tokenize(bert).core()
    with pytest.raises(ValueError, match="bare is 1; this network takes 0"):
        bert._runs.of(64, "float32").rows(corpus, bert._tokens | {"bare": True}, rows, 0, 64, (0,))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_saved_and_opened(data: relpt.Dataset, tmp_path: Path, form: dict[str, Any]) -> None:
    encoder = relpt.CNNEncoder.from_data(data, split="punctuation", seed=3, **options_of(**form))
    encoder.save_pretrained(tmp_path / "a", card={"seed": 3})
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["model_type"] == "relpt-cnn"
    assert config["vocab_size"] == encoder.tokenizer.get_vocab_size()
    opened = relpt.CNNEncoder.from_pretrained(tmp_path / "a", num_threads=1)
    assert np.array_equal(opened.encode(data), encoder.encode(data))
    assert opened.config == encoder.config
    assert opened.card["seed"] == 3
    opened.save_pretrained(tmp_path / "b")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "relpt.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert "CNNEncoder" in repr(opened)
    assert f"{encoder.dim}" in opened._repr_html_()
    assert relpt.CNNEncoder(opened.tokenizer, **opened.get_params()).dim == encoder.dim


def test_damaged_folders(data: relpt.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "cnn"
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        relpt.CNNEncoder.from_pretrained(folder)
    relpt.CNNEncoder.from_data(data, **options_of()).save_pretrained(folder)
    with pytest.raises(relpt.FormatError, match="model_type is 'relpt-cnn'"):
        relpt.Encoder.from_pretrained(folder)
    good = json.loads((folder / "config.json").read_text())
    for change, message in {
        "model_type is 'bert', expected 'relpt-cnn'": {"model_type": "bert"},
        "window is '3'; expected a whole number": {"window": "3"},
        "hidden_size is 6.0; expected a whole number": {"hidden_size": 6.0},
        "position_size is 9223372036854775808; expected": {"position_size": 2**63},
        "max_distance is 0; expected a whole number": {"max_distance": 0},
        "vocab_size is None; expected": {"vocab_size": None},
        "vocab_size is 1000; save": {"vocab_size": 1000},
        "window is 256, expected 1 to 255": {"window": 256},
        "hidden_dropout_prob is 1; expected a number": {"hidden_dropout_prob": 1},
        "initializer_range is nan; expected a finite": {"initializer_range": float("nan")},
        "convolution.weight is .6, 24., config.json needs .6, 40.": {"window": 5},
        "kind is 'rnn'": {"kind": "rnn"},
        "word_embeddings.weight is": {"word_size": 9},
    }.items():
        (folder / "config.json").write_text(json.dumps(good | message))
        with pytest.raises(relpt.FormatError, match=rf"config\.json: .*{change}|(model|tokenizer)\..*: .*{change}"):
            relpt.CNNEncoder.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(good))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(relpt.FormatError, match=r"tokenizer\.json: is no tokenizer"):
        relpt.CNNEncoder.from_pretrained(folder)


def test_damaged_tags_of_a_corpus(data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = relpt.CNNEncoder.from_data(data, tags=("pos",), **options_of())
    folder = data.tokenize(encoder).save(tmp_path / "corpus")
    tags = np.load(folder / "pos_tag.npy")
    tags[3] = 4
    np.save(folder / "pos_tag.npy", tags)
    with pytest.raises(relpt.FormatError, match=r"pos_tag holds numbers out of 0 \.\. 3"):
        relpt.Corpus.open(folder)
    (folder / "pos_tag.npy").unlink()
    with pytest.raises(relpt.FormatError, match=r"pos_tag\.npy: missing"):
        relpt.Corpus.open(folder)


# -- word vectors -----------------------------------------------------------------------------------------------------

GLOVE = "the 0.5 -1 2e-1\nof 1 2 3\n. . . 4 5 6\nof 7 8 9\n"


def test_word_vectors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    with caplog.at_level(logging.INFO, logger="relpt"):
        words, vectors = relpt.load_word_vectors(path)
    assert words == ["the", "of", ". . ."]
    np.testing.assert_array_equal(vectors, np.float32([[0.5, -1, 0.2], [1, 2, 3], [4, 5, 6]]))
    assert "1 vectors of words that stand there before are left out" in caplog.text
    path.write_text("4 3\n" + GLOVE)
    assert relpt.load_word_vectors(path, ["of", "a"])[0] == ["of"]


def test_word_vectors_as_they_are_published(tmp_path: Path) -> None:
    """Words of glove.840B.300d and of fastText's files: with blanks, other spaces and line ends, in any script."""
    words = [
        "the",
        ",",
        "``",
        ". . .",
        "at name@domain.com",
        "naïve",
        "東京",
        "a\xa0b",
        "a\x85b",
        "a\u2028b",
        "7",
        "-lrb-",
    ]
    table = np.arange(3 * len(words), dtype=np.float32).reshape(-1, 3) / 7
    glove = "".join(f"{word} {' '.join(f'{x:.5f}' for x in row)}\n" for word, row in zip(words, table, strict=True))
    forms = {
        "glove.txt": glove.encode(),
        "glove.txt.gz": gzip.compress(glove.encode()),
        "windows.txt": glove.replace("\n", "\r\n").encode(),
        "fasttext.vec": f"{len(words)} 3\n{glove}".replace("\n", " \n").encode(),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        got, vectors = relpt.load_word_vectors(tmp_path / name)
        assert got == words, name
        np.testing.assert_allclose(vectors, table, atol=5e-6)
    (tmp_path / "first").write_text("4 3\n" + "at name@domain.com 1 2 3\n" + GLOVE.split("\n", 1)[1])
    assert relpt.load_word_vectors(tmp_path / "first")[0][0] == "at name@domain.com"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2\nof 1 x\n", "glove.txt:2: expected a word and 2 numbers"),
        (
            "the 1 2\nof 1\n",
            "glove.txt:2: expected a word and 2 numbers between blanks, as many as the first line says",
        ),
        ("5 2\nthe 1 2\nof 1\n", "glove.txt:3: expected a word and 2 numbers"),
        ("5 2\nthe 1 2\nof 1 2\n", "glove.txt: holds 2 words, and its first line says 5; the file is cut off"),
        ("the 1 nan\n", "glove.txt:1: expected a word and 2 numbers"),
        ("the\n", "glove.txt:1: expected a word and 1 numbers"),
        ("", "holds no vector; give a file"),
    ],
)
def test_damaged_word_vectors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(relpt.FormatError, match=message):
        relpt.load_word_vectors(path)


def test_a_damaged_line_of_a_word_that_nobody_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2\nof 1\n")
    with pytest.raises(relpt.FormatError, match=r"glove.txt:2: expected a word and 2 numbers"):
        relpt.load_word_vectors(path, ["the"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"2 2\nthe \x00\x00\x80\x3f\xff\xfe", r":2: is no UTF-8; word2vec's binary format\? save it as text"),
        (b"the 1 2\nof 1 2\nna\xefve 1 2\n", ":3: is no UTF-8; save the file as UTF-8"),
        (b"PK\x03\x04\x14\x00", "is a zip archive; unpack it"),
        (gzip.compress(b"the 1 2\n" * 99)[:20], r"damaged gzip file \(.*\); copy it again"),
    ],
)
def test_files_that_are_no_word_vectors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(relpt.FormatError, match=message):
        relpt.load_word_vectors(path)


def test_vectors_reach_their_words(data: relpt.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = sorted({word for i in data for word in i.text.lower().split()})[::2]
    table = np.random.default_rng(0).normal(size=(len(words), 5)).astype(np.float32)
    path = tmp_path / "glove.txt"
    lines = [
        f"{word} {' '.join(map(repr, row))}"
        for word, row in zip([*words, "zebra"], [*table.tolist(), [1.0] * 5], strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    options = {**options_of(), "word_size": None}
    with caplog.at_level(logging.INFO, logger="relpt"):
        encoder = relpt.CNNEncoder.from_data(data, vectors=path, **options)
    assert f"{len(words)} of {encoder.tokenizer.get_vocab_size() - 5} words have a vector" in caplog.text
    found = encoder._model.get("word_embeddings.weight")
    rows = [encoder.tokenizer.token_to_id(word) for word in words]
    np.testing.assert_array_equal(found[rows], table)
    drawn = np.delete(found, rows, axis=0)
    assert 0.08 < drawn.std() < 0.12
    assert encoder.config["word_size"] == 5
    path.write_text(path.read_text().upper())
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="relpt"), pytest.raises(relpt.FormatError, match="of these words"):
        relpt.CNNEncoder.from_data(data, vectors=path, **options)
    path.write_text(f"{words[0]} 1 2 3 4 5\n")
    relpt.CNNEncoder.from_data(data, vectors=path, **options)
    assert re.search(r"1 of \d+ words have a vector, \d+ % of the text; .* do case \(lowercase\)", caplog.text)
    twice = relpt.CNNEncoder(["a", "b", "a"], vectors=np.float32([[1], [2], [3]]), **options)
    table = twice._model.get("word_embeddings.weight")
    assert table[[twice.tokenizer.token_to_id(word) for word in "ab"], 0].tolist() == [1, 2]
