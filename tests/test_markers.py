"""Markers that say types, of punctuation, and by the text's order: tokens, vectors, every setting, files, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import WORDS, tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core, cli
from relpt.inputs import INPUTS
from relpt.markers import MARKER_STYLES

TYPES = ["person", "place"]
FORMS: dict[str, dict[str, Any]] = {
    "punct": {"markers": "punct"},
    "typed": {"markers": "typed", "types": TYPES},
    "typed_punct": {"markers": "typed_punct", "types": TYPES},
    "text order": {"marker_order": "text"},
    "all": {"markers": "typed", "types": TYPES, "marker_order": "text", "representation": "entity_start+mask"},
}


@pytest.fixture(scope="module", params=[30, 0], ids=["spare tokens", "added tokens"])
def any_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("any"), unused=request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = (*WORDS, *"@*#^", *TYPES, "human", "venue")
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"), vocab_words=words, unused=30)


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


def open_encoder(folder: Path, **options: Any) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, num_threads=2, **options)


def tokens_of(encoder: relpt.Encoder, data: relpt.Dataset, inputs: str = "C+M") -> list[list[str]]:
    """The inputs as token strings."""
    corpus = data.tokenize(encoder, max_length=128)
    tokens, rows = encoder._input_tokens(corpus, [inputs]), np.arange(len(data), dtype=np.int64)
    batch = _core.build_batch(corpus.core(), tokens, rows, INPUTS.index(inputs), 128)
    parts = np.split(batch["ids"], batch["cu_seqlens"][1:-1])
    return [[encoder.tokenizer.id_to_token(int(piece)) for piece in part] for part in parts]


def around(tokens: list[str], mention: list[str]) -> tuple[list[str], list[str]]:
    """Up to five tokens before a mention and one behind it."""
    at = next(i for i in range(len(tokens)) if tokens[i : i + len(mention)] == mention)
    return tokens[max(0, at - 5) : at], tokens[at + len(mention) : at + len(mention) + 1]


# -- what stands there ------------------------------------------------------------------------------------------------


def test_typed_markers_have_tokens_of_their_own(any_folder: Path, data: relpt.Dataset) -> None:
    encoder = open_encoder(any_folder, **FORMS["typed"])
    assert list(encoder.typed_markers) == TYPES
    typed = [token for places in encoder.typed_markers.values() for tokens in places.values() for token in tokens]
    assert len({*typed, *encoder.markers.values()}) == 8 + 7
    spare = [token for token in encoder.tokenizer.get_vocab() if token.startswith("[unused")]
    assert {*typed, *encoder.markers.values()}.isdisjoint(spare) is not bool(spare)
    numbers = [encoder.tokenizer.token_to_id(token) for token in typed]
    assert all(encoder._tokens["special"][numbers])
    assert max(numbers) < encoder.config["vocab_size"]
    person, place = encoder.typed_markers["person"], encoder.typed_markers["place"]
    for instance, tokens in zip(data, tokens_of(encoder, data), strict=True):
        head, tail = (encoder.tokenizer.encode(t).tokens[1:-1] for t in (instance.head_text, instance.tail_text))
        before, behind = around(tokens, head)
        assert (before[-1:], behind) == (person["head_start"], person["head_end"])
        before, behind = around(tokens, tail)
        assert (before[-1:], behind) == (place["tail_start"], place["tail_end"])


def test_markers_of_punctuation(folder: Path, data: relpt.Dataset) -> None:
    """After Zhou and Chen 2021: @ Bill @ and # Seattle #, @ * person * Bill @ and # ^ city ^ Seattle #."""
    plain, typed = (open_encoder(folder, **FORMS[name]) for name in ("punct", "typed_punct"))
    for instance, without, with_types in zip(data, tokens_of(plain, data), tokens_of(typed, data), strict=True):
        head, tail = (plain.tokenizer.encode(t).tokens[1:-1] for t in (instance.head_text, instance.tail_text))
        for mention, sign, inner, name in ((head, "@", "*", "person"), (tail, "#", "^", "place")):
            before, behind = around(without, mention)
            assert (before[-1], behind) == (sign, [sign])
            before, behind = around(with_types, mention)
            assert (before[-4:], behind) == ([sign, inner, name, inner], [sign])
        assert not {"*", "^"} & set(without)


@pytest.mark.parametrize("style", [style for style in MARKER_STYLES if style.startswith("typed")])
def test_a_type_is_said_once_per_mention(folder: Path, style: str) -> None:
    records = tiny_dataset()
    for record in records:
        record["h"]["type"], record["t"]["type"] = "human", "venue"  # no words of the sentences
    encoder = open_encoder(folder, markers=style, types=["human", "venue"])
    saying = {
        "human": encoder.typed_markers["human"]["head_start"],
        "venue": encoder.typed_markers["venue"]["tail_start"],
    }
    for inputs in INPUTS:
        for tokens in tokens_of(encoder, relpt.load(records), inputs):
            for name, marker in saying.items():
                telling = {name, *marker} - set("@*#^")
                assert sum(token in telling for token in tokens) == (inputs != "OnlyC")


def test_the_order_of_the_text(folder: Path, data: relpt.Dataset) -> None:
    turned = relpt.load([{**record, "h": record["t"], "t": record["h"]} for record in tiny_dataset()])
    by_text, by_role = open_encoder(folder, marker_order="text"), open_encoder(folder)
    width = by_text.config["hidden_size"]
    for inputs in INPUTS:
        assert tokens_of(by_text, data, inputs) == tokens_of(by_text, turned, inputs)
        assert tokens_of(by_role, data, inputs) != tokens_of(by_role, turned, inputs)
        one, other = by_text.encode(data, inputs=inputs), by_text.encode(turned, inputs=inputs)
        np.testing.assert_array_equal(one, np.roll(other, width, axis=1))  # [head, tail] all the same
    first = [i for i, instance in enumerate(data) if instance.head < instance.tail]
    np.testing.assert_array_equal(by_text.encode(data)[first], by_role.encode(data)[first])


# -- objectives, protocols, files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_every_setting_in_training_and_evaluation(folder: Path, data: relpt.Dataset, tmp_path: Path, name: str) -> None:
    encoder = open_encoder(folder, **FORMS[name])
    options = {"pairs_per_step": 8, "max_steps": 3, "max_length": 96, "mlm_weight": 1.0}
    trainer = relpt.CPTrainer(encoder, **options, input_mix=dict.fromkeys(INPUTS, 1.0))
    history = trainer.fit(data, checkpoint_dir=tmp_path / "checkpoints", checkpoint_every=2)
    resumed = relpt.CPTrainer(open_encoder(folder, **FORMS[name]), **options, input_mix=dict.fromkeys(INPUTS, 1.0))
    again = resumed.fit(data, resume=tmp_path / "checkpoints" / "step-00000002")
    assert [record["loss"] for record in again] == [record["loss"] for record in history]
    encoder.fit_projection(data, inputs=INPUTS)
    encoder.save_pretrained(tmp_path / "saved")
    opened = open_encoder(tmp_path / "saved")
    assert opened.get_params() == encoder.get_params()
    assert opened.typed_markers == encoder.typed_markers
    few_shot = relpt.FewShot(n_way=3, k_shot=2, episodes=20)
    for inputs in INPUTS:
        vectors = encoder.encode(data, inputs=inputs)
        assert opened.encode(data, inputs=inputs).tobytes() == vectors.tobytes()
        alone = np.array([opened.encode(instance, inputs=inputs) for instance in data[:5]])
        assert np.abs(alone - vectors[:5]).max() <= 1e-5
        hybrid = relpt.HybridEncoder(opened, encoder)
        assert 0 <= few_shot.evaluate(hybrid, data, inputs=inputs).accuracy <= 1


def test_types_are_added_to_a_saved_encoder(any_folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = open_encoder(any_folder, markers="typed", types=["person"])
    with pytest.raises(ValueError, match=r"40 of 80 mentions have a type without markers \(place\); open .* types="):
        encoder.encode(data)
    encoder.save_pretrained(tmp_path)
    more = open_encoder(tmp_path, types=data.types)
    assert list(more.typed_markers) == ["person", "place"]
    assert more.typed_markers["person"] == encoder.typed_markers["person"]
    for name, _ in encoder._model.parameters():
        was = encoder._model.get(name)
        np.testing.assert_array_equal(more._model.get(name)[: len(was)], was)
    assert len(more.encode(data)) == 40


def test_styles_can_be_changed(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    plain = open_encoder(folder)
    for style in ("punct", "typed"):
        open_encoder(folder, markers=style, types=TYPES).save_pretrained(tmp_path / style)
        again = open_encoder(tmp_path / style, markers="plain")
        assert again.markers == plain.markers
        assert again.encode(data).tobytes() == plain.encode(data).tobytes()
    assert open_encoder(tmp_path / "typed").markers == plain.markers


def test_a_corpus_with_types_in_another_order(folder: Path, data: relpt.Dataset) -> None:
    """A corpus numbers its types by itself."""
    encoder = open_encoder(folder, markers="typed", types=["zoo", "place", "airport", "person"])
    records = [*tiny_dataset(), *tiny_dataset(1, 3, seed=5)]
    for record in records[-3:]:
        record["h"]["type"] = "airport"
    vectors = encoder.encode(records)
    np.testing.assert_allclose(vectors[:40], encoder.encode(data), atol=1e-6)
    assert np.abs(vectors[-3:] - encoder.encode(tiny_dataset(1, 3, seed=5))).max() > 1e-3


# -- what is refused --------------------------------------------------------------------------------------------------


def test_types_that_are_missing(folder: Path) -> None:
    records = tiny_dataset()
    for record in records[3:10]:
        del record["t"]["type"]
    encoder = open_encoder(folder, **FORMS["typed"])
    count = r"data: 7 of 80 mentions have no type \(the first in row 3\), which"
    message = f"{count} .*'s markers say; give 'type' to h and t, .* markers='plain'"
    with pytest.raises(ValueError, match=message):
        encoder.encode(records)
    with pytest.raises(ValueError, match=message):
        relpt.CPTrainer(encoder, pairs_per_step=4, max_steps=1, input_mix={"OnlyM": 1}).fit(records)
    plain = open_encoder(folder)
    message = rf"{count} the settings C\+T and OnlyT say; give .* take another setting"
    with pytest.raises(ValueError, match=message):
        plain.encode(records, inputs="C+T")
    with pytest.raises(ValueError, match=message):
        relpt.CPTrainer(plain, pairs_per_step=4, max_steps=1, input_mix={"C+M": 1, "OnlyT": 1}).fit(records)
    assert encoder.encode(records, inputs="OnlyC").shape == (40, 64)  # tells no type
    relpt.CPTrainer(encoder, pairs_per_step=4, max_steps=1, input_mix={"OnlyC": 1}).fit(records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"markers": "typed"},
            "markers='typed' needs the names of the types that they say, types is None; .* data.types",
        ),
        ({"markers": "typed", "types": "person"}, "types is 'person'; give a list"),
        ({"markers": "typed_punct", "types": []}, "markers='typed_punct' needs types, and there are none"),
        ({"markers": "bold"}, "markers is 'bold'; expected one of plain, punct, typed, typed_punct"),
        ({"marker_order": "random"}, "marker_order is 'random'; expected one of role, text"),
    ],
)
def test_options_that_are_none(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_encoder(folder, **options)


def test_a_vocabulary_without_the_punctuation(tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path)
    for style, other in (("punct", "plain"), ("typed_punct", "typed")):
        with pytest.raises(
            ValueError, match=f"markers='{style}': the vocabulary has no token @ #.*; take markers='{other}'"
        ):
            open_encoder(folder, markers=style, types=TYPES)


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        (
            {"person": {"head_start": ["[unused8]"]}},
            "the markers of 'person' are .* expected tokens for head_start, head_",
        ),
        ([], "needs types, and there are none"),
        (
            {
                kind: {place: ["[none]"] for place in ("head_start", "head_end", "tail_start", "tail_end")}
                for kind in TYPES
            },
            "no token .none.",
        ),
    ],
)
def test_damaged_cards(folder: Path, data: relpt.Dataset, tmp_path: Path, markers: Any, message: str) -> None:
    open_encoder(folder, **FORMS["typed"]).save_pretrained(tmp_path)
    path = tmp_path / "relpt.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "typed_markers": markers}))
    with pytest.raises(ValueError, match=message):
        open_encoder(tmp_path, types=None if markers else ()).encode(relpt.load(tiny_dataset(1, 2)))


def test_from_the_shell(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "data.jsonl", tmp_path / "run"
    path.write_text("".join(json.dumps(record) + "\n" for record in tiny_dataset(6, 12)))
    fixed = ["pretrain", "--data", str(path), "--encoder", str(folder), "--pairs", "4", "--steps", "2", "-o", str(run)]
    assert cli.main([*fixed, "--threads", "1", "--markers", "typed", "--marker-order", "text"]) == 0
    card = json.loads((run / "relpt.json").read_text())
    assert (card["marker_style"], card["marker_order"], list(card["typed_markers"])) == ("typed", "text", TYPES)
    few = ["fewshot", "--model", str(run), "--data", str(path), "--way", "3", "--episodes", "20", "--threads", "1"]
    capfd.readouterr()
    assert cli.main([*few, "--inputs", ",".join(INPUTS), "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["results"]) == 5
