"""Tokenizers of BERT's relatives: RoBERTa's byte-level BPE and ALBERT's SentencePiece; mentions keep to their words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert, tiny_family
from safetensors.numpy import save_file
from test_families import shapes
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import relpt
from relpt.corpus.tokenizing import continuations
from relpt.families import FAMILIES
from relpt.markers import MARKERS
from relpt.weights import load_special_tokens, load_tokenizer

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTENCES = [
    "Anna saw the river near Dover.",
    "The river near Dover was seen by Anna and Bruno.",
    "Bruno married Anna in the old town of Zürich, near the river.",
    "In Zürich the old town stands near a river; Dover has the sea.",
    "Naïve Émile of Dover saw Zoë, the painter of the sea, in the town.",
]


def train() -> Any:
    """A tokenizer of the sentences."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES * 5, vocab_size=400, min_frequency=2, special_tokens=SPECIAL)
    return tokenizer


@pytest.fixture(scope="module")
def trained() -> Any:
    return train()


def write_model(folder: Path, kind: str, size: int) -> Path:
    """A folder of a model type with this many words, without a tokenizer."""
    folder.mkdir(exist_ok=True)
    resized = {name: (size, *shape[1:]) if shape[0] == 129 else shape for name, shape in shapes(kind).items()}
    save_file(tiny_bert.values(resized, 0), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(tiny_family.config_of(kind, vocab_size=size)))
    return folder


def write(folder: Path, trained: Any, *, whole: bool = True) -> Path:
    """A RoBERTa folder with the tokenizer in tokenizer.json, or in vocab.json and merges.txt."""
    size = trained.get_vocab_size()
    write_model(folder, "roberta", size)
    trained.save_model(str(folder))
    if whole:
        tokens = load_special_tokens(folder, FAMILIES["roberta"])
        load_tokenizer(folder, tokens, size).save(str(folder / "tokenizer.json"))
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    return folder


@pytest.fixture(scope="module")
def encoder(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(write(tmp_path_factory.mktemp("roberta"), trained), num_threads=1)


def instance(text: str, head: str, tail: str) -> dict[str, Any]:
    spans = {name: [text.index(name), text.index(name) + len(name)] for name in (head, tail)}
    return {
        "text": text,
        "h": {"name": head, "pos": spans[head], "type": "person"},
        "t": {"name": tail, "pos": spans[tail], "type": "town"},
        "relation": "r",
    }


MENTIONS = [
    ("Anna saw the river near Dover.", "Anna", "Dover"),  # at the start: no blank before it
    ("The river near Dover was seen by Anna.", "Anna", "Dover"),
    ("Bruno married Anna in Zürich", "Anna", "Zürich"),  # characters of several bytes; at the end
    ("then  Zoë  saw\tÉmile", "Zoë", "Émile"),  # several blanks, a tab
    ("the painter (Zoë) saw Anna's town", "Zoë", "Anna"),
    ("東京 is far from 大阪", "東京", "大阪"),  # pieces that hold part of a character
]


@pytest.mark.parametrize(("text", "head", "tail"), MENTIONS)
def test_mentions_keep_to_their_words(encoder: relpt.Encoder, text: str, head: str, tail: str) -> None:
    corpus = relpt.load([instance(text, head, tail)]).tokenize(encoder)
    read = lambda ids: encoder.tokenizer.decode(ids.tolist())  # noqa: E731
    assert read(corpus.ids) == text
    start, end, first, last = corpus.spans[0]
    assert read(corpus.ids[start:end]).strip() == head
    assert read(corpus.ids[first:last]).strip() == tail
    assert np.isfinite(encoder.encode(instance(text, head, tail), max_length=40)).all()


def test_blanks_alone_belong_to_no_mention(encoder: relpt.Encoder) -> None:
    """A mention that ends where a piece of blanks begins does not take it, nor the one before a mention."""
    corpus = relpt.load([instance("Anna   Dover", "Anna", "Dover")]).tokenize(encoder)
    start, end, first, _ = corpus.spans[0]
    assert start == 0
    assert end < first


def test_mentions_that_touch(encoder: relpt.Encoder) -> None:
    corpus = relpt.load([instance("near AnnaDover saw", "Anna", "Dover")]).tokenize(encoder)
    spans = corpus.spans[0]
    assert [encoder.tokenizer.decode(corpus.ids[a:b].tolist()).strip() for a, b in (spans[:2], spans[2:])] == [
        "Anna",
        "Dover",
    ]


def test_special_tokens_and_markers(encoder: relpt.Encoder, trained: Any) -> None:
    assert encoder.markers == MARKERS
    assert encoder.special_tokens["mask"] == "<mask>"
    tokens = encoder._tokens
    assert [tokens[name] for name in ("cls", "sep", "mask")] == [0, 2, 4]
    size = trained.get_vocab_size()
    assert sorted(tokens[name] for name in MARKERS) == list(range(size, size + 7))
    assert np.flatnonzero(tokens["special"]).tolist() == [0, 1, 2, 3, 4, *range(size, size + 7)]


def test_special_tokens_in_the_text_are_text(encoder: relpt.Encoder) -> None:
    text = "Anna <mask> saw </s> Dover"
    corpus = relpt.load([instance(text, "Anna", "Dover")]).tokenize(encoder)
    assert not set(corpus.ids.tolist()) & set(range(5))
    assert encoder.tokenizer.decode(corpus.ids.tolist()) == text


def test_vocab_json_and_merges_alone(encoder: relpt.Encoder, trained: Any, tmp_path: Path) -> None:
    folder = write(tmp_path, trained, whole=False)
    data = relpt.load([instance(*mention) for mention in MENTIONS])
    again = relpt.Encoder.from_pretrained(folder, num_threads=1)
    np.testing.assert_array_equal(again.encode(data, max_length=40), encoder.encode(data, max_length=40))
    text = (folder / "vocab.json").read_text()
    (folder / "vocab.json").write_text(text.replace("<mask>", "<other>"))
    with pytest.raises(relpt.FormatError, match=r"vocab\.json: there is no token <mask> \(mask\)"):
        relpt.Encoder.from_pretrained(folder)
    (folder / "vocab.json").write_text(text[: len(text) // 2])
    with pytest.raises(relpt.FormatError, match=r"vocab\.json and merges\.txt make no tokenizer"):
        relpt.Encoder.from_pretrained(folder)


def test_saved_and_trained(encoder: relpt.Encoder, tmp_path: Path) -> None:
    data = relpt.load([instance(*mention) for mention in MENTIONS])
    saved = encoder.save_pretrained(tmp_path / "saved")
    again = relpt.Encoder.from_pretrained(saved, num_threads=1)
    assert again.markers == encoder.markers
    np.testing.assert_array_equal(again.encode(data, max_length=40), encoder.encode(data, max_length=40))
    options = {"pairs_per_step": 2, "max_steps": 3, "max_length": 40, "learning_rate": 1e-3}
    trainer = relpt.CPTrainer(again, mask_same_relation=False, **options)  # there is one relation
    history = trainer.fit(data, show_progress_bar=False)
    assert len(history) == 3
    assert all(np.isfinite(record["loss"]) for record in history)


def words_of(encoder: relpt.Encoder, text: str) -> list[str]:
    """The text's words, by the pieces that go on with the one before."""
    ids, flags = encoder.tokenizer.encode(text, add_special_tokens=False).ids, continuations(encoder.tokenizer, 500)
    assert flags[encoder.tokenizer.get_vocab_size() :].sum() == 0
    starts = [i for i, piece in enumerate(ids) if i == 0 or not flags[piece]] + [len(ids)]
    return [encoder.tokenizer.decode(ids[a:b]).strip() for a, b in itertools.pairwise(starts)]


def test_words_of_byte_pieces(encoder: relpt.Encoder) -> None:
    wanted = ["Zoë", ",", "the", "painter", "saw", "Anna", "'s", "unknown", "東京", "."]
    assert words_of(encoder, "Zoë, the painter saw Anna's unknown 東京.") == wanted


# -- SentencePiece ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> relpt.Encoder:
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    folder = write_model(tmp_path_factory.mktemp("albert"), "albert", tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    return relpt.Encoder.from_pretrained(folder, num_threads=1)


@pytest.mark.parametrize(("text", "head", "tail"), [mention for mention in MENTIONS if mention[0].isascii()])
def test_mentions_in_sentencepiece(albert: relpt.Encoder, text: str, head: str, tail: str) -> None:
    corpus = relpt.load([instance(text, head, tail)]).tokenize(albert)
    start, end, first, last = corpus.spans[0]
    assert albert.tokenizer.decode(corpus.ids[start:end].tolist()) == head
    assert albert.tokenizer.decode(corpus.ids[first:last].tolist()) == tail
    assert np.isfinite(albert.encode(instance(text, head, tail), max_length=40)).all()


def test_words_of_sentencepiece(albert: relpt.Encoder) -> None:
    wanted = ["Anna", "saw", "the", "painter", ",", "near", "Dover", "."]
    assert words_of(albert, "Anna saw the painter, near Dover.") == wanted


def test_alberts_special_tokens(albert: relpt.Encoder, tmp_path: Path) -> None:
    roles = {"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "pad": "<pad>", "unk": "<unk>"}
    assert albert.special_tokens == roles
    assert [albert._tokens[role] for role in ("cls", "sep", "mask")] == [2, 3, 4]
    assert albert._tokens["special"][:6].tolist() == [1, 1, 1, 1, 1, 0]
    saved = json.loads((albert.save_pretrained(tmp_path) / "tokenizer_config.json").read_text())
    assert {role: saved[f"{role}_token"] for role in roles} == roles


# -- prompts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["encoder", "albert"])
def test_prompts(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """[MASK] is each tokenizer's own; the words are those of the text, the mentions as they stand in the sentence."""
    request.getfixturevalue(family).save_pretrained(tmp_path)
    plain = relpt.Encoder.from_pretrained(tmp_path, num_threads=1, prompt="relation")
    filled = plain.prompt.replace(" [MASK]", plain.special_tokens["mask"])  # which takes the blank before it
    assert plain._tokens["prompt"].tolist() == plain.tokenizer.encode(filled, add_special_tokens=False).ids
    prompt = "the {head} and {tail} in [MASK]."
    named = relpt.Encoder.from_pretrained(tmp_path, num_threads=1, prompt=prompt)
    read = lambda text: named.tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    holes = {-1: read(" Anna"), -2: read(" Dover"), named._tokens["mask"]: []}
    said = [piece for hole in named._tokens["prompt"].tolist() for piece in holes.get(hole, [hole])]
    assert "".join(named.tokenizer.decode(said).split()) == "theAnnaandDoverin."
    assert named.encode(instance("near Anna saw Dover", "Anna", "Dover"), max_length=40).shape == (
        named.config["hidden_size"],
    )
