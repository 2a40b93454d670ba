"""BERT's relatives against transformers: hidden states, every gradient, and the files both ways."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_family_tokenizers
from oracle import tiny_bert, tiny_family
from test_oracle_encoder import TOLERANCE, padded_states, tiny_sequences, worst
from test_oracle_trainer import BASE, compare_gradients

import relpt
from relpt import _core
from relpt.families import family_of
from relpt.weights import model_name

pytestmark = pytest.mark.oracle
KINDS = tuple(tiny_family.CONFIGS)
# Of each model type, what else its configuration may say.
SHAPES: dict[str, list[dict[str, Any]]] = {
    "distilbert": [{}, {"dim": 39, "n_heads": 3, "hidden_dim": 53, "n_layers": 3}, {"dropout": 0.3}],
    "roberta": [{}, {"pad_token_id": 0, "type_vocab_size": 2, "max_position_embeddings": 45}, {"layer_norm_eps": 1e-2}],
    "albert": [{}, {"embedding_size": 67, "num_hidden_layers": 1}, {"embedding_size": 16, "num_hidden_layers": 4}],
    "electra": [{}, {"embedding_size": 67}, {"embedding_size": 16}, {"embedding_size": 67, "layer_norm_eps": 1e-2}],
}


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers() -> Any:
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    return module


@pytest.fixture(scope="module")
def oracle(torch: Any, transformers: Any) -> Any:
    from oracle import torch_model

    return torch_model


def made(oracle: Any, folder: Path, kind: str, changes: dict[str, Any], **options: Any) -> relpt.Encoder:
    config = tiny_family.config_of(kind, **changes)
    return tiny_family.open_encoder(folder, config, oracle.shapes_of(config), **options)


def sequences_of(encoder: relpt.Encoder, lengths: list[int]) -> list[list[int]]:
    """Random ids but for the padding's, which has a position of its own in RoBERTa."""
    pad = encoder.config["pad_token_id"]
    return [[pad + 1 if i == pad else i for i in s] for s in tiny_sequences(encoder.config["vocab_size"], lengths)]


@pytest.mark.parametrize(("kind", "changes"), [(kind, changes) for kind in KINDS for changes in SHAPES[kind]])
def test_hidden_states(
    oracle: Any, torch: Any, transformers: Any, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    encoder = made(oracle, tmp_path, kind, changes)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    sequences = sequences_of(encoder, [1, 2, 3, 8, 9, 15, 16, 17, 31, 32, 33, 38])
    off = worst(encoder, sequences, padded_states(torch, model, sequences))
    print(f"{kind}: off by at most {off:.2e}")
    assert off <= TOLERANCE


@pytest.mark.parametrize("representation", ["entity_start", "cls+mean", "mention_mean"])
@pytest.mark.parametrize(("kind", "changes"), [(kind, changes) for kind in KINDS for changes in SHAPES[kind]])
def test_every_gradient(oracle: Any, tmp_path: Path, kind: str, changes: dict[str, Any], representation: str) -> None:
    encoder = made(oracle, tmp_path, kind, changes, representation=representation)
    options = {**BASE, "temperature": 0.2, "dropout": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", relpt.TruncationWarning)
        trainer = relpt.CPTrainer(encoder, **options)
        sampler = trainer._sampler(tiny_bert.dataset().tokenize(encoder, max_length=options["max_length"]))
    core = _core.Trainer(**trainer._core_options(trainer._micro_batch_pairs()))
    model = oracle.TorchModel(encoder)
    stats, batch = core.gradients(sampler, 0), sampler.batch(0)
    want = oracle.TorchTrainer(model, trainer.options, trainer._warmup()).gradients(batch)
    for key in ("loss", "loss_cp", "loss_mlm"):
        assert stats[key] == pytest.approx(want[key], rel=1e-5), key
    offenders = compare_gradients(core, model)
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_what_was_saved(
    oracle: Any, torch: Any, transformers: Any, tmp_path: Path, kind: str
) -> None:
    encoder = made(oracle, tmp_path / "source", kind, {})
    encoder.save_pretrained(tmp_path / "saved")
    sequences = sequences_of(encoder, [5, 20, 38])
    opened, report = transformers.AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert all(name.startswith("pooler.") for name in report["missing_keys"]), report
    assert worst(encoder, sequences, padded_states(torch, opened.eval(), sequences)) <= TOLERANCE
    whole, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    again = relpt.Encoder.from_pretrained(tmp_path / "saved", num_threads=1)
    family = family_of(encoder.config)
    mine = {model_name(name, family): again._model.get(name) for name, _ in again._model.parameters()}
    for name, parameter in whole.named_parameters():
        np.testing.assert_array_equal(parameter.detach().numpy(), mine.pop(name), err_msg=name)
    assert not mine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_head", [True, False])
def test_what_transformers_wrote_is_opened(oracle: Any, torch: Any, tmp_path: Path, kind: str, with_head: bool) -> None:
    torch.manual_seed(0)
    config = tiny_family.config_of(kind)
    model = oracle.fresh_model(config).eval()
    written = model if with_head else model.base_model
    written.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tiny_bert.tokenizer_json())
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "mask")}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    encoder = relpt.Encoder.from_pretrained(tmp_path, num_threads=1)
    sequences = sequences_of(encoder, [5, 20, 38])
    assert worst(encoder, sequences, padded_states(torch, model.base_model, sequences)) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer_gives_the_model_what_it_takes(
    oracle: Any, torch: Any, transformers: Any, tmp_path: Path, kind: str
) -> None:
    encoder = made(oracle, tmp_path / "source", kind, {})
    encoder.save_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    model = transformers.AutoModel.from_pretrained(tmp_path / "saved").eval()
    given = tokenizer("w1 w2 person, w3", return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state[0].numpy()
    ids = given["input_ids"][0].numpy()
    assert ids.tolist() == encoder.tokenizer.encode("w1 w2 person, w3").ids
    assert np.abs(encoder.hidden_states(ids, np.array([len(ids)])) - states).max() <= TOLERANCE
    assert tokenizer.mask_token == "[MASK]"


def test_robertas_own_tokenizer(torch: Any, transformers: Any, tmp_path: Path) -> None:
    """vocab.json and merges.txt as transformers reads them, and what relpt saves of them as AutoTokenizer does."""
    trained = test_family_tokenizers.train()
    source = test_family_tokenizers.write(tmp_path / "source", trained, whole=False)
    encoder = relpt.Encoder.from_pretrained(source, num_threads=1)
    saved = encoder.save_pretrained(tmp_path / "saved")
    own = transformers.RobertaTokenizer.from_pretrained(source)
    auto = transformers.AutoTokenizer.from_pretrained(saved)
    for text in (*test_family_tokenizers.SENTENCES, "  two blanks,\ta tab 東京 "):
        ids = encoder.tokenizer.encode(text).ids
        assert own(text)["input_ids"] == ids
        assert auto(text)["input_ids"] == ids
    assert (auto.mask_token, auto.pad_token, auto.cls_token) == ("<mask>", "<pad>", "<s>")
    model = transformers.AutoModel.from_pretrained(saved).eval()
    sequences = [encoder.tokenizer.encode(text).ids for text in test_family_tokenizers.SENTENCES]
    assert worst(encoder, sequences, padded_states(torch, model, sequences)) <= TOLERANCE


def test_a_discriminator_of_transformers(oracle: Any, torch: Any, transformers: Any, tmp_path: Path) -> None:
    """ElectraForPreTraining is opened, and its own head is there again in what is saved."""
    torch.manual_seed(0)
    fields = tiny_family.config_of("electra")
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = transformers.ElectraForPreTraining(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tiny_bert.tokenizer_json())
    encoder = relpt.Encoder.from_pretrained(tmp_path, num_threads=1)
    sequences = sequences_of(encoder, [5, 20, 38])
    assert worst(encoder, sequences, padded_states(torch, model.electra, sequences)) <= TOLERANCE
    encoder.save_pretrained(tmp_path / "saved")
    again, report = transformers.ElectraForPreTraining.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"], report
    for (name, old), new in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(old, new), name
