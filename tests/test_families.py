"""BERT's relatives: what they compute (against transformers' figures, vectors/README.md), their files, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert, tiny_family
from safetensors.numpy import load_file, save_file
from vectors.make_families import BATCH, FOLDER, LOSSES, OPTIONS, core_of, parts

import relpt
from relpt import _core
from relpt.families import family_of
from relpt.weights import core_config, model_name

KINDS = tuple(tiny_family.CONFIGS)


def vectors(kind: str) -> dict[str, Any]:
    with np.load(FOLDER / f"{kind}.npz") as file:
        return {name: file[name] for name in file}


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in json.loads(str(vectors(kind)["shapes"])).items()}


def write(folder: Path, kind: str, **changes: Any) -> Path:
    """A folder of the kind, its configuration changed, its tensors not."""
    return tiny_family.write_folder(folder, tiny_family.config_of(kind, **changes), tiny_bert.values(shapes(kind), 0))


def opened(folder: Path, kind: str) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(write(folder, kind), num_threads=1)


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# -- what they compute ------------------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_losses_and_gradients(tmp_path: Path, kind: str) -> None:
    arrays = vectors(kind)
    encoder, trainer, sampler = parts(kind, shapes(kind), tmp_path)
    batch = sampler.batch(0)
    for name in BATCH:
        np.testing.assert_array_equal(batch[name], arrays[name], err_msg=name)
    hidden = encoder.hidden_states(arrays["ids"], np.diff(arrays["cu_seqlens"]))
    assert np.abs(hidden - arrays["hidden"]).max() <= 5e-6
    core = core_of(trainer)
    stats = core.gradients(sampler, 0)
    np.testing.assert_allclose([stats[name] for name in LOSSES], arrays["losses"], rtol=1e-5)
    family, total = family_of(encoder.config), float(stats["grad_norm"])
    names = {model_name(name, family): name for name, _ in encoder._model.parameters()}
    assert set(names) == set(shapes(kind))
    for theirs, name in names.items():
        want = arrays[f"gradient {theirs}"].astype(np.float64)
        rounding = 1e-7 * total if name.endswith("key.bias") else 0  # it has gradient 0 in exact arithmetic
        assert np.linalg.norm(core.get(0, name) - want) <= 1e-4 * np.linalg.norm(want) + rounding, theirs


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_are_small(kind: str) -> None:
    assert (FOLDER / f"{kind}.npz").stat().st_size < 60_000


def gradients(folder: Path, dead: str, dropout: float, **network: bool) -> np.ndarray:
    """Gradients of the tiny BERT with hidden dropout and the weights of one branch 0."""
    encoder = tiny_bert.encoder(folder)
    model = _core.Model(**core_config(encoder.config), **network)
    for name, shape in model.parameters():
        model.set(name, np.zeros(shape, np.float32) if dead and re.search(dead, name) else encoder._model.get(name))
    encoder._model = model
    trainer = relpt.CPTrainer(encoder, **{**OPTIONS, "dropout": dropout})
    options = {**trainer._core_options(OPTIONS["micro_batch_pairs"]), "attention_dropout": 0.0}
    core = _core.Trainer(**options)
    core.gradients(trainer._sampler(tiny_bert.dataset().tokenize(encoder, max_length=24)), 0)
    return np.asarray(core.get(0, "embeddings.word_embeddings.weight"))


@pytest.mark.core
@pytest.mark.parametrize(
    ("switch", "dead"),
    [("attended_dropout", ".attention.output.dense."), ("feed_forward_dropout", r"\d.output.dense.")],
)
def test_a_branch_without_dropout(tmp_path: Path, switch: str, dead: str) -> None:
    """Where the branch gives 0 its dropout does not matter, so that the switch is seen to turn off that one alone."""
    for branch in ("", dead):
        on, off = (gradients(tmp_path, branch, 0.3, **{switch: value}) for value in (True, False))
        assert np.array_equal(on, off) is bool(branch)
    on, off = (gradients(tmp_path, "", 0.0, **{switch: value}) for value in (True, False))
    np.testing.assert_array_equal(on, off)


def test_positions_before_the_first_tokens_do_not_count(tmp_path: Path) -> None:
    """RoBERTa's first token stands at the padding's number + 1."""
    encoder = opened(tmp_path, "roberta")
    data = tiny_bert.dataset(20)
    encoder.hidden_states(np.full(40, 9), np.array([40]))
    encoder.encode(data, max_length=40)
    with pytest.raises(ValueError, match="41 tokens, expected 1 to 40"):
        encoder.hidden_states(np.full(41, 9), np.array([41]))
    with pytest.raises(ValueError, match="max_length is 41, expected 16 to 40"):
        encoder.encode(data, max_length=41)
    with pytest.raises(ValueError, match="max_length is 41, expected 16 to the model's 40 positions"):
        relpt.CPTrainer(encoder, max_length=41, pairs_per_step=2).fit(data, show_progress_bar=False)
    encoder.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["model_max_length"] == 40
    for pad in (41, -2):
        write(tmp_path, "roberta", pad_token_id=pad)
        with pytest.raises(ValueError, match=f"pad_token_id is {pad}; expected"):
            relpt.Encoder.from_pretrained(tmp_path)


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_under_dropout(tmp_path: Path, kind: str) -> None:
    """The loss changes along the gradient as its norm says: masks stand at the same places forward and backward."""
    encoder, _, sampler = parts(kind, shapes(kind), tmp_path)
    trainer = relpt.CPTrainer(encoder, **{**OPTIONS, "dropout": 0.2})
    core, names = core_of(trainer), [name for name, _ in encoder._model.parameters()]
    norm = core.gradients(sampler, 0)["grad_norm"]
    direction = {name: core.get(0, name) / norm for name in names}
    losses, values = [], {name: encoder._model.get(name) for name in names}
    for step in (5e-3, -5e-3):
        for name in names:
            encoder._model.set(name, (values[name] + step * direction[name]).astype(np.float32))
        losses.append(core.gradients(sampler, 0)["loss"])
    assert (losses[0] - losses[1]) / 1e-2 == pytest.approx(norm, rel=0.02)


# -- their files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_under_the_folders_names(tmp_path: Path, kind: str) -> None:
    encoder = opened(tmp_path / "source", kind)
    saved = encoder.save_pretrained(tmp_path / "saved")
    source, written = (load_file(folder / "model.safetensors") for folder in (tmp_path / "source", saved))
    assert set(source) == set(written)
    for name, value in source.items():
        np.testing.assert_array_equal(value, written[name], err_msg=name)
    config = json.loads((saved / "config.json").read_text())
    own = tiny_family.config_of(kind)
    assert {name: config[name] for name in own} == own
    again = relpt.Encoder.from_pretrained(saved, num_threads=1)
    again.save_pretrained(tmp_path / "twice")
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "relpt.json"):
        assert (tmp_path / "twice" / file).read_bytes() == (saved / file).read_bytes(), file


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_what_was_half_precision_is_said_to_be_whole(tmp_path: Path, field: str) -> None:
    """transformers would round the tensors to it again."""
    encoder = relpt.Encoder.from_pretrained(write(tmp_path / "source", "roberta", **{field: "bfloat16"}))
    config = json.loads((encoder.save_pretrained(tmp_path / "saved") / "config.json").read_text())
    assert config[field] == "float32"


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_encoder_gets_a_head(tmp_path: Path, kind: str) -> None:
    """Without prefix and head, and with a tensor that relpt does not use, which is saved along."""
    encoder = opened(tmp_path / "whole", kind)
    family = family_of(encoder.config)

    def strip(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            value = tensors.pop(name)
            if name.startswith(family.prefix):
                tensors[name.removeprefix(family.prefix)] = value
        tensors["pooler.dense.bias"] = np.arange(16, dtype=np.float32)

    edit_tensors(write(tmp_path / "bare", kind), strip)
    bare = relpt.Encoder.from_pretrained(tmp_path / "bare", num_threads=1)
    for name, _ in encoder._model.parameters():
        if not name.startswith("cls."):
            np.testing.assert_array_equal(bare._model.get(name), encoder._model.get(name), err_msg=name)
    head = bare._model.get("cls.predictions.transform.dense.weight")
    assert 0 < head.std() < 2 * bare.config["initializer_range"]
    bare.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(saved) == {*shapes(kind), f"{family.prefix}pooler.dense.bias"}


def test_a_discriminator_gets_a_generators_head(tmp_path: Path) -> None:
    """ElectraForPreTraining has another head, which is saved along."""
    folder = write(tmp_path / "source", "electra")

    def exchange(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.startswith("generator_")]:
            del tensors[name]
        tensors["discriminator_predictions.dense.weight"] = np.ones((16, 16), np.float32)

    edit_tensors(folder, exchange)
    encoder = relpt.Encoder.from_pretrained(folder, num_threads=1, seed=3)
    assert encoder._model.get("cls.predictions.transform.dense.weight").shape == (12, 16)
    saved = load_file(encoder.save_pretrained(tmp_path / "saved") / "model.safetensors")
    assert set(saved) == {*shapes("electra"), "discriminator_predictions.dense.weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoders_copy_is_not_kept(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the matrix, though it is another one than the embeddings (which is said), nor the bias's second name."""
    folder, family = write(tmp_path / "source", kind), family_of({"model_type": kind})
    decoder, bias = family.decoder, np.arange(129, dtype=np.float32)

    def untie(tensors: dict[str, np.ndarray]) -> None:
        del tensors[model_name("cls.predictions.bias", family)]
        tensors.update({f"{decoder}.weight": np.ones((129, 12), np.float32), f"{decoder}.bias": bias})

    edit_tensors(folder, untie)
    encoder = relpt.Encoder.from_pretrained(folder, num_threads=1)
    assert f"{decoder}.weight is not the embeddings" in caplog.text
    np.testing.assert_array_equal(encoder._model.get("cls.predictions.bias"), bias)
    encoder.save_pretrained(tmp_path / "saved")
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(shapes(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_after_a_stop(tmp_path: Path, kind: str) -> None:
    data = tiny_bert.dataset()
    options = {**OPTIONS, "learning_rate": 1e-3}

    def trained(name: str, steps: tuple[int, ...]) -> relpt.Encoder:
        for stop in steps:
            encoder = opened(tmp_path / name, kind)
            trainer = relpt.CPTrainer(encoder, **options)
            corpus = data.tokenize(encoder, max_length=24)
            run = tmp_path / f"{name} run"
            callbacks = [lambda record, stop=stop: record["step"] == stop]
            trainer.fit(corpus, callbacks=callbacks, checkpoint_dir=run, resume=True, show_progress_bar=False)
        return encoder

    whole, parted = trained("whole", (99,)), trained("parted", (2, 99))
    for name, _ in whole._model.parameters():
        np.testing.assert_array_equal(whole._model.get(name), parted._model.get(name), err_msg=name)


# -- special tokens ---------------------------------------------------------------------------------------------------


def renamed(folder: Path, **files: dict[str, Any]) -> Path:
    """The tiny BERT with <s>, </s> and <mask> for [CLS], [SEP] and [MASK], and these further files."""
    tiny_bert.write_folder(folder)
    text = (folder / "tokenizer.json").read_text()
    for old, new in (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>")):
        text = text.replace(old, new)
    (folder / "tokenizer.json").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


NAMED = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": {"content": "<mask>", "lstrip": True}}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": NAMED},
        {"special_tokens_map": NAMED},
        {"special_tokens_map": {**NAMED, "cls_token": "<cls>"}, "tokenizer_config": {"cls_token": "<s>"}},
    ],
    ids=["config", "map", "config over map"],
)
def test_special_tokens_of_other_names(tmp_path: Path, files: dict[str, Any]) -> None:
    encoder = relpt.Encoder.from_pretrained(renamed(tmp_path / "source", **files), num_threads=1)
    plain = tiny_bert.encoder(tmp_path / "plain")
    data = tiny_bert.dataset(20)
    np.testing.assert_array_equal(encoder.encode(data, max_length=40), plain.encode(data, max_length=40))
    saved = encoder.save_pretrained(tmp_path / "saved")
    written = json.loads((saved / "tokenizer_config.json").read_text())
    roles = ("cls", "sep", "mask", "pad", "unk")
    assert [written[f"{role}_token"] for role in roles] == ["<s>", "</s>", "<mask>", "[PAD]", "[UNK]"]
    again = relpt.Encoder.from_pretrained(saved, num_threads=1)
    np.testing.assert_array_equal(again.encode(data, max_length=40), plain.encode(data, max_length=40))


def test_special_tokens_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(relpt.FormatError, match=r"no token \[CLS\] \(cls\)"):
        relpt.Encoder.from_pretrained(renamed(tmp_path))
    renamed(tmp_path, tokenizer_config={**NAMED, "sep_token": 3})
    with pytest.raises(relpt.FormatError, match=r"tokenizer_config.json: sep_token is 3; expected a text"):
        relpt.Encoder.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(relpt.FormatError, match=r"tokenizer_config\.json"):
        relpt.Encoder.from_pretrained(tmp_path)


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED = [
    ("distilbert", "activation", "relu"),
    ("distilbert", "activation", "gelu_new"),
    ("distilbert", "sinusoidal_pos_embds", True),
    ("distilbert", "dim", "16"),
    ("distilbert", "dim", 16.0),
    ("distilbert", "n_layers", 2**63),
    ("distilbert", "hidden_dim", 2**21),
    ("distilbert", "dropout", None),
    ("distilbert", "attention_dropout", float("nan")),
    ("roberta", "hidden_act", "gelu_fast"),
    ("roberta", "pad_token_id", None),
    ("roberta", "pad_token_id", -1),
    ("roberta", "pad_token_id", 1000),
    ("electra", "hidden_act", "swish"),
    ("electra", "embedding_size", "12"),
    ("electra", "embedding_size", 0),
    ("albert", "embedding_size", float("inf")),
    ("albert", "hidden_act", "gelu_new"),
    ("albert", "num_hidden_groups", 2),
    ("albert", "inner_group_num", 2),
]


@pytest.mark.parametrize(("kind", "field", "value"), REFUSED)
def test_a_configuration_that_is_not_computed(tmp_path: Path, kind: str, field: str, value: Any) -> None:
    write(tmp_path, kind, **{field: value})
    with pytest.raises(relpt.FormatError, match=rf"config\.json: {field} is {value!r}"):
        relpt.Encoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["bert", *KINDS])
@pytest.mark.parametrize(("field", "value"), [("is_decoder", True), ("position_embedding_type", "relative_key")])
def test_what_no_model_type_may_be(tmp_path: Path, kind: str, field: str, value: Any) -> None:
    if kind == "bert":
        tiny_bert.write_folder(tmp_path, **{field: value})
    else:
        write(tmp_path, kind, **{field: value})
    with pytest.raises(relpt.FormatError, match=rf"config\.json: {field} is {value!r}"):
        relpt.Encoder.from_pretrained(tmp_path)


def test_a_model_type_that_is_none(tmp_path: Path) -> None:
    tiny_bert.write_folder(tmp_path, model_type="gpt2")
    with pytest.raises(relpt.FormatError, match=rf"'gpt2'; relpt computes bert, {', '.join(KINDS)}$"):
        relpt.Encoder.from_pretrained(tmp_path)


def test_bert_has_token_types(tmp_path: Path) -> None:
    tiny_bert.write_folder(tmp_path, type_vocab_size=0)
    with pytest.raises(relpt.FormatError, match="type_vocab_size is 0; expected a whole number from 1"):
        relpt.Encoder.from_pretrained(tmp_path)


MISSING = [
    ("distilbert", "transformer.layer.1.ffn.lin2.weight", "DistilBERT"),
    ("roberta", "encoder.layer.0.attention.self.key.bias", "RoBERTa"),
    ("electra", "embeddings_project.weight", "ELECTRA"),
    ("albert", "encoder.embedding_hidden_mapping_in.bias", "ALBERT"),
    ("albert", "encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.weight", "ALBERT"),
]


@pytest.mark.parametrize(("kind", "name", "title"), MISSING)
def test_missing_tensors_have_the_folders_names(tmp_path: Path, kind: str, name: str, title: str) -> None:
    folder, prefix = write(tmp_path, kind), family_of({"model_type": kind}).prefix
    edit_tensors(folder, lambda tensors: tensors.pop(prefix + name))
    with pytest.raises(relpt.FormatError, match=f"1 tensors are missing: {name}; is this a {title} encoder"):
        relpt.Encoder.from_pretrained(folder)
    edit_tensors(folder, lambda tensors: tensors.update({name: np.ones((3, 3), np.float32)}))
    with pytest.raises(relpt.FormatError, match=rf"tensor {name} has shape \(3, 3\), config.json needs"):
        relpt.Encoder.from_pretrained(folder)


SURPLUS = [
    ("roberta", {"num_hidden_layers": 1}, "encoder.layer.1."),
    ("distilbert", {"n_layers": 1}, "transformer.layer.1."),
    ("albert", {}, "encoder.albert_layer_groups.1.albert_layers.0.ffn.weight"),
    ("electra", {}, "embeddings.entity_embeddings.weight"),
]


@pytest.mark.parametrize(("kind", "change", "name"), SURPLUS)
def test_weights_of_a_larger_network(tmp_path: Path, kind: str, change: dict[str, Any], name: str) -> None:
    folder, prefix = write(tmp_path, kind, **change), family_of({"model_type": kind}).prefix
    if not change:
        edit_tensors(folder, lambda tensors: tensors.update({prefix + name: np.ones(3, np.float32)}))
    with pytest.raises(relpt.FormatError, match=f"tensors of the encoder are not in the network .* {re.escape(name)}"):
        relpt.Encoder.from_pretrained(folder)
