"""Prompts with a [MASK]: their text, vectors, every setting, objective and protocol, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core, cli
from relpt.errors import TruncationWarning
from relpt.inputs import INPUTS
from relpt.prompts import PROMPT_DEFAULT, PROMPTS, prompt_pieces, prompt_text

EVERY = dict.fromkeys(INPUTS, 1.0)
TRAINING: dict[str, Any] = {"pairs_per_step": 6, "max_steps": 4, "max_length": 96, "mlm_weight": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


def open_encoder(folder: Path, **options: Any) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, num_threads=2, **options)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> relpt.Encoder:
    return open_encoder(folder, representation="entity_start+mask")


def sequences_of(encoder: relpt.Encoder, data: relpt.Dataset, inputs: str = "C+M") -> dict[str, np.ndarray]:
    corpus = data.tokenize(encoder, max_length=128)
    rows = np.arange(len(data), dtype=np.int64)
    tokens = encoder._input_tokens(corpus, [inputs])
    return dict(_core.build_batch(corpus.core(), tokens, rows, INPUTS.index(inputs), 128))


# -- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROMPTS)
def test_pieces_are_those_of_the_filled_text(encoder: relpt.Encoder, name: str) -> None:
    tokenizer = encoder.tokenizer
    pieces = prompt_pieces(prompt_text(name), tokenizer, tokenizer.token_to_id("[MASK]"))
    fill = {-1: tokenizer.encode("Anna", add_special_tokens=False).ids, -2: [tokenizer.token_to_id("river")]}
    said = [piece for hole in pieces.tolist() for piece in fill.get(hole, [hole])]
    text = PROMPTS[name].format(head="Anna", tail="river")
    assert said == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "The relation is unknown.",
            "has no .MASK.; expected one, where the relation vector is read, or a name of rel",
        ),
        ("", "has no .MASK."),
        ("[MASK] or [MASK]", r"has 2 \[MASK\]; expected one"),
        ("{subject} is [MASK]", r"\{subject\} is unknown; there are \{head\} and \{tail\}"),
        (7, "prompt is 7; expected text such as"),
    ],
)
def test_prompts_that_are_none(folder: Path, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_encoder(folder, prompt=prompt)


def test_special_tokens_in_a_prompt_are_plain_text(encoder: relpt.Encoder) -> None:
    tokenizer = encoder.tokenizer
    pieces = prompt_pieces("[SEP] [E1] [MASK]", tokenizer, 4)
    assert tokenizer.token_to_id("[SEP]") not in pieces
    assert pieces[-1] == 4


def test_which_prompt_is_taken(folder: Path, tmp_path: Path) -> None:
    assert open_encoder(folder).prompt is None
    assert open_encoder(folder, representation="mask").prompt == PROMPTS[PROMPT_DEFAULT]
    named = open_encoder(folder, prompt="triple")
    assert (named.representation, named.prompt) == ("mask", "{head} [MASK] {tail}")
    kept = open_encoder(folder, representation="entity_start", prompt="relation")
    assert (kept.representation, kept.prompt) == ("entity_start", PROMPTS["relation"])
    kept.save_pretrained(tmp_path)
    again = open_encoder(tmp_path, representation="cls")
    assert again.prompt == PROMPTS["relation"]  # it was in the input of the training
    other = open_encoder(tmp_path, prompt="is-of")
    assert (other.representation, other.prompt) == ("mask", PROMPTS["is-of"])
    open_encoder(folder, representation="cls+mask").save_pretrained(tmp_path)
    assert open_encoder(tmp_path, prompt="is-of").representation == "cls+mask"


# -- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", INPUTS)
def test_the_vector_is_the_hidden_state_at_the_mask(encoder: relpt.Encoder, data: relpt.Dataset, inputs: str) -> None:
    batch, width = sequences_of(encoder, data, inputs), encoder.config["hidden_size"]
    states = encoder.hidden_states(batch["ids"], np.diff(batch["cu_seqlens"]))
    want = np.concatenate([states[batch[name]] for name in ("head", "tail", "prompt_row")], axis=1)
    assert encoder.dim == want.shape[1] == 3 * width
    assert np.abs(encoder.encode(data, inputs=inputs) - want).max() <= 1e-6
    ids = batch["ids"].tolist()
    assert ids.count(encoder.tokenizer.token_to_id("[MASK]")) == len(data)


def test_what_the_prompt_says_in_each_setting(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    tokenizer, instance = encoder.tokenizer, data[0]
    names = {"C+T": ("person", "place"), "OnlyT": ("person", "place")}
    sep, roles = tokenizer.token_to_id("[SEP]"), [encoder.markers[role] for role in ("subject", "object")]
    for inputs in INPUTS:
        said = names.get(inputs, (instance.head_text, instance.tail_text))
        fill = [tokenizer.encode(text, add_special_tokens=False).ids for text in said]
        if inputs == "OnlyC":
            fill = [[tokenizer.token_to_id(token)] for token in roles]
        holes = {-1: fill[0], -2: fill[1]}
        want = [piece for hole in encoder._tokens["prompt"].tolist() for piece in holes.get(hole, [hole])]
        ids = sequences_of(encoder, data[:1], inputs)["ids"].tolist()
        assert ids[ids.index(sep) + 1 :] == [*want, sep], inputs


def test_a_vector_does_not_depend_on_its_neighbours(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    together = encoder.encode(data)
    assert np.abs(together - np.array([encoder.encode(instance) for instance in data])).max() <= 1e-6
    order = np.random.default_rng(0).permutation(len(data))
    assert np.abs(together[order] - encoder.encode(data[order])).max() <= 1e-6
    assert np.abs(together - np.roll(together, 1, 0)).max() > 1e-2


def test_all_parts_side_by_side(folder: Path, data: relpt.Dataset) -> None:
    prompt = PROMPTS[PROMPT_DEFAULT]
    whole = open_encoder(folder, representation="mask+mean+entity_start+cls").encode(data)
    parts = [open_encoder(folder, representation=r, prompt=prompt) for r in ("mask", "mean", "entity_start", "cls")]
    assert np.abs(whole - np.concatenate([part.encode(data) for part in parts], axis=1)).max() <= 1e-6


def test_the_window_is_counted_with_the_prompt(folder: Path, data: relpt.Dataset) -> None:
    encoder = open_encoder(folder, representation="mask")
    lengths = np.diff(sequences_of(encoder, data)["cu_seqlens"])
    limit = int(np.median(lengths))
    with pytest.warns(
        TruncationWarning, match=f"{(lengths > limit).sum()} sentences are longer than max_length={limit}"
    ):
        encoder.encode(data, max_length=limit)
    longest = f"{(lengths > limit).sum()} of 40 .*the longest needs {lengths.max()}"
    with pytest.warns(TruncationWarning, match=longest):
        data.tokenize(encoder, max_length=limit)
    with pytest.raises(
        ValueError, match=r"the markers and the prompt take .* raise max_length, or give a shorter prompt"
    ):
        encoder.encode(data, max_length=20)


# -- objectives and protocols -----------------------------------------------------------------------------------------


def weights_of(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def test_training_in_every_setting_goes_on_byte_for_byte(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    def trainer(**options: Any) -> relpt.CPTrainer:
        encoder = open_encoder(folder, representation="entity_start+mask")
        return relpt.CPTrainer(encoder, **TRAINING, input_mix=EVERY, **options)

    whole = trainer()
    history = whole.fit(data, checkpoint_dir=tmp_path, checkpoint_every=2)
    assert all(record["loss_mlm"] > 0 for record in history)
    resumed = trainer()
    resumed.fit(data, resume=tmp_path / "step-00000002")
    assert weights_of(resumed.encoder) == weights_of(whole.encoder)
    micro = trainer(micro_batch_pairs=2)
    micro.fit(data)
    for name, _ in whole.encoder._model.parameters():
        np.testing.assert_allclose(micro.encoder._model.get(name), whole.encoder._model.get(name), atol=2e-6)
    other = relpt.CPTrainer(open_encoder(folder, representation="entity_start+mask", prompt="triple"), **TRAINING)
    other.options["input_mix"] = EVERY
    with pytest.raises(ValueError, match=r"resume: prompt is '\{head\} \[MASK\] \{tail\}', but the checkpoint"):
        other.fit(data, resume=tmp_path / "step-00000002")


def test_training_shapes_the_mask(folder: Path, data: relpt.Dataset) -> None:
    encoder = open_encoder(folder, representation="mask")
    options = {**TRAINING, "max_steps": 40, "learning_rate": 2e-3, "mlm_weight": 0.0, "pairs_per_step": 12}
    history = relpt.CPTrainer(encoder, **options).fit(data)
    losses = [record["loss_cp"] for record in history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3


def test_the_loss_may_compare_a_part(folder: Path, data: relpt.Dataset) -> None:
    encoder = open_encoder(folder, representation="entity_start+mask")
    relpt.CPTrainer(encoder, **TRAINING, loss_representation="mask").fit(data)
    without = relpt.CPTrainer(open_encoder(folder), **TRAINING, loss_representation="mask")
    with pytest.raises(
        ValueError, match=r"reads the \[MASK\] of a prompt, and the input has no prompt; open the encoder"
    ):
        without.fit(data)


def test_few_shot_projection_and_hybrid(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = open_encoder(folder, representation="mask").fit_projection(data, inputs=INPUTS)
    hybrid = relpt.HybridEncoder(open_encoder(folder, representation="entity_start"), encoder)
    few_shot = relpt.FewShot(n_way=3, k_shot=2, episodes=50)
    hybrid.save_pretrained(tmp_path / "hybrid")
    again = relpt.HybridEncoder.from_pretrained(tmp_path / "hybrid", num_threads=2)
    for inputs in INPUTS:
        accuracy = few_shot.evaluate(hybrid, data, inputs=inputs).accuracy
        assert few_shot.evaluate(again, data, inputs=inputs).accuracy == accuracy
    table = relpt.EntityTable.from_corpus(open_encoder(folder, representation="entity_start", prompt="is-of"), data)
    assert table.encode(data).shape == (40, 64)


# -- files and the shell ----------------------------------------------------------------------------------------------


def test_a_saved_encoder_has_its_prompt(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    encoder = open_encoder(folder, representation="entity_start+mask", prompt="{tail}? [MASK] of {head}!")
    encoder.save_pretrained(tmp_path)
    card = json.loads((tmp_path / "relpt.json").read_text())
    assert (card["prompt"], card["representation"]) == ("{tail}? [MASK] of {head}!", "entity_start+mask")
    again = open_encoder(tmp_path)
    assert again.get_params() == encoder.get_params()
    assert again.encode(data).tobytes() == encoder.encode(data).tobytes()


def test_from_the_shell(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*words: Any) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return code, *capfd.readouterr()

    path, run_folder = tmp_path / "data.jsonl", tmp_path / "run"
    path.write_text("".join(json.dumps(record) + "\n" for record in tiny_dataset(6, 12)))
    fixed = ("--data", path, "--encoder", folder, "--pairs", 4, "--steps", 2, "--threads", 1, "-o", run_folder)
    code, _, err = run("pretrain", *fixed, "--prompt", "The relation is unknown.")
    assert (code, "has no [MASK]" in err) == (1, True)
    assert run("pretrain", *fixed, "--representation", "entity_start+mask", "--prompt", "triple")[0] == 0
    card = json.loads((run_folder / "relpt.json").read_text())
    assert (card["prompt"], card["representation"]) == ("{head} [MASK] {tail}", "entity_start+mask")
    few = ("--way", 3, "--episodes", 20, "--inputs", ",".join(INPUTS), "--threads", 1)
    code, out, _ = run("fewshot", "--model", run_folder, "--data", path, *few, "--json")
    assert [row["inputs"] for row in json.loads(out)["results"]] == list(INPUTS)
    encode = ("encode", path, "--model", folder, "--prompt", "relation", "--threads", 1, "-o", tmp_path / "x.npy")
    assert run(*encode)[0] == 0
    assert np.load(tmp_path / "x.npy").shape == (72, 32)
