"""Hidden states and files against transformers: what it computes, and what it opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert

import relpt
from relpt.weights import find_folder

pytestmark = pytest.mark.oracle
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers() -> Any:
    module = pytest.importorskip("transformers")
    module.logging.set_verbosity_error()
    return module


def padded_states(torch: Any, model: Any, sequences: list[list[int]], size: int = 32) -> np.ndarray:
    """Hidden states (T, H) of the sequences, one after another, through padded batches."""
    states = []
    for first in range(0, len(sequences), size):
        part = sequences[first : first + size]
        longest = max(map(len, part))
        ids = torch.tensor([s + [0] * (longest - len(s)) for s in part])
        mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in part])
        with torch.no_grad():
            states.append(model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].double().numpy())
    return np.concatenate(states)


def worst(encoder: relpt.Encoder, sequences: list[list[int]], want: np.ndarray) -> float:
    got = encoder.hidden_states(np.concatenate(sequences), np.array([len(s) for s in sequences]))
    assert got.dtype == np.float32
    assert got.shape == want.shape
    return float(np.abs(got - want).max())


@pytest.fixture(scope="module")
def minilm(torch: Any, transformers: Any) -> tuple[relpt.Encoder, Any]:
    encoder = relpt.Encoder.from_pretrained("minilm", num_threads=2)
    folder = find_folder("minilm")
    return encoder, transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()


def real_sentences(encoder: relpt.Encoder) -> list[list[int]]:
    """Sentences of the sample corpus: alone, in twos and in tens, so that lengths run from 9 to some 300 pieces."""
    texts = [instance.text for instance in relpt.load_sample("train")]
    joined = texts[:90] + [" ".join(texts[i : i + 2]) for i in range(90, 110, 2)]
    joined += [" ".join(texts[i : i + 10]) for i in range(110, 140, 10)]
    tokenizer = encoder.tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(joined)]


@pytest.mark.weights
def test_hidden_states_of_minilm(torch: Any, minilm: tuple[relpt.Encoder, Any]) -> None:
    encoder, model = minilm
    sequences = real_sentences(encoder)
    lengths = [len(s) for s in sequences]
    assert min(lengths) < 20
    assert max(lengths) > 200
    off = worst(encoder, sequences, padded_states(torch, model, sequences))
    print(f"{len(sequences)} sentences, {sum(lengths)} tokens: off by at most {off:.2e}")
    assert off <= TOLERANCE


@pytest.mark.weights
def test_relation_vectors_of_minilm(torch: Any, minilm: tuple[relpt.Encoder, Any]) -> None:
    """The vector of ``encode`` is transformers' hidden state at the two start markers of the marked sentence, or the
    mean of those between the markers."""
    encoder, model = minilm
    data = relpt.load_sample("unseen")[:40]
    marks = {name: encoder.tokenizer.token_to_id(token) for name, token in encoder.markers.items()}
    plain = lambda text: encoder.tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    sequences = []
    for instance in data:
        places = [(*instance.head, "head"), (*instance.tail, "tail")]
        ids, end = [encoder.tokenizer.token_to_id("[CLS]")], 0
        for start, stop, name in sorted(places):
            ids += plain(instance.text[end:start])
            ids += [marks[f"{name}_start"], *plain(instance.text[start:stop]), marks[f"{name}_end"]]
            end = stop
        sequences.append([*ids, *plain(instance.text[end:]), encoder.tokenizer.token_to_id("[SEP]")])
    states, first = padded_states(torch, model, sequences), 0
    want = []
    for ids in sequences:
        want.append(np.concatenate([states[first + ids.index(marks[name])] for name in ("head_start", "tail_start")]))
        first += len(ids)
    assert np.abs(encoder.encode(data) - np.array(want)).max() <= TOLERANCE
    first, want = 0, []
    for ids in sequences:
        bounds = [(ids.index(marks[f"{side}_start"]) + 1, ids.index(marks[f"{side}_end"])) for side in ("head", "tail")]
        want.append(np.concatenate([states[first + start : first + end].mean(0) for start, end in bounds]))
        first += len(ids)
    means = relpt.Encoder.from_pretrained("minilm", representation="mention_mean", num_threads=2)
    assert np.abs(means.encode(data) - np.array(want)).max() <= TOLERANCE


@pytest.mark.weights
@pytest.mark.parametrize("prompt", ["relation", "between", "{tail}, or: is [MASK] ({head}, {tail})?"])
def test_mask_vectors_of_minilm(torch: Any, minilm: tuple[relpt.Encoder, Any], prompt: str) -> None:
    """The vector of "mask" is transformers' hidden state at the [MASK] of marked sentence and filled prompt."""
    _, model = minilm
    encoder = relpt.Encoder.from_pretrained("minilm", representation="mask", prompt=prompt, num_threads=2)
    data, tokenizer = relpt.load_sample("unseen")[:20], encoder.tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    marks = {name: tokenizer.token_to_id(token) for name, token in encoder.markers.items()}
    cls, sep, mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    sequences = []
    for instance in data:
        places = [(*instance.head, "head"), (*instance.tail, "tail")]
        ids, end = [cls], 0
        for start, stop, name in sorted(places):
            ids += tokenizer.encode(instance.text[end:start], add_special_tokens=False).ids
            mention = tokenizer.encode(instance.text[start:stop], add_special_tokens=False).ids
            ids += [marks[f"{name}_start"], *mention, marks[f"{name}_end"]]
            end = stop
        ids += [*tokenizer.encode(instance.text[end:], add_special_tokens=False).ids, sep]
        text = encoder.prompt.format(head=instance.head_text, tail=instance.tail_text)
        sequences.append([*ids, *tokenizer.encode(text, add_special_tokens=False).ids, sep])
        assert sequences[-1].count(mask) == 1
    states, first, want = padded_states(torch, model, sequences), 0, []
    for ids in sequences:
        want.append(states[first + ids.index(mask)])
        first += len(ids)
    assert np.abs(encoder.encode(data) - np.array(want)).max() <= TOLERANCE


def tiny_sequences(vocab_size: int, lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, length).tolist() for length in lengths]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_size": 39, "num_attention_heads": 3, "intermediate_size": 53, "num_hidden_layers": 3},
        {"hidden_size": 8, "num_attention_heads": 8, "intermediate_size": 130, "num_hidden_layers": 1},
        {"layer_norm_eps": 1e-2},
        {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3},  # off when encoding
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()) or "plain",
)
def test_hidden_states_of_any_shape(torch: Any, transformers: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    encoder = tiny_bert.encoder(tmp_path, **changes)
    model = transformers.BertModel.from_pretrained(tmp_path).eval()
    sequences = tiny_sequences(encoder.config["vocab_size"], [1, 2, 3, 8, 9, 15, 16, 17, 31, 32, 33, 48])
    assert worst(encoder, sequences, padded_states(torch, model, sequences)) <= TOLERANCE


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("pooler", [True, False])
def test_transformers_opens_what_was_saved(
    torch: Any, transformers: Any, tmp_path: Path, prefix: str, head: bool, pooler: bool
) -> None:
    values = tiny_bert.tensors(tiny_bert.CONFIG, head=head, pooler=pooler)
    encoder = tiny_bert.encoder(tmp_path / "source", values=values, prefix=prefix)
    sequences = tiny_sequences(encoder.config["vocab_size"], [5, 20, 48])
    encoder.save_pretrained(tmp_path / "saved")
    opened, report = transformers.AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert all(name.startswith("pooler.") for name in report["missing_keys"]), report
    assert pooler is not bool(report["missing_keys"])
    assert worst(encoder, sequences, padded_states(torch, opened.eval(), sequences)) <= TOLERANCE
    if pooler:
        np.testing.assert_array_equal(opened.pooler.dense.weight.detach().numpy(), values["pooler.dense.weight"])
    whole, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"], report
    again = relpt.Encoder.from_pretrained(tmp_path / "saved", num_threads=1)
    for name, parameter in whole.named_parameters():
        mine = again._model.get(name.removeprefix("bert."))
        np.testing.assert_array_equal(parameter.detach().numpy(), mine, err_msg=name)


def test_models_written_by_transformers_are_opened(torch: Any, transformers: Any, tmp_path: Path) -> None:
    """BertModel (no prefix, no head) and BertForMaskedLM (prefix, head), float32 and bfloat16."""
    config = transformers.BertConfig(**tiny_bert.CONFIG)
    torch.manual_seed(0)
    for kind, dtype in (
        ("BertModel", torch.float32),
        ("BertForMaskedLM", torch.float32),
        ("BertForPreTraining", torch.float32),
        ("BertModel", torch.bfloat16),
        ("BertForMaskedLM", torch.float16),
    ):
        folder = tmp_path / f"{kind}-{dtype}"
        model = getattr(transformers, kind)(config).to(dtype).eval()
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(tiny_bert.tokenizer_json())
        encoder = relpt.Encoder.from_pretrained(folder, num_threads=1)
        for name, parameter in model.named_parameters():
            plain = name.removeprefix("bert.")
            if plain.startswith(("pooler.", "cls.seq_relationship.")):
                continue
            np.testing.assert_array_equal(encoder._model.get(plain), parameter.detach().float().numpy(), err_msg=name)
        bare = (model if kind == "BertModel" else model.bert).float()
        sequences = tiny_sequences(encoder.config["vocab_size"], [5, 20, 48])
        assert worst(encoder, sequences, padded_states(torch, bare, sequences)) <= TOLERANCE


def test_auto_tokenizer_opens_the_folder(transformers: Any, tmp_path: Path) -> None:
    for unused in (9, 0):  # markers that the vocabulary has, and added ones
        folder = tmp_path / str(unused)
        encoder = tiny_bert.encoder(folder / "source", unused=unused)
        encoder.save_pretrained(folder / "saved")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "saved")
        text = "w1 w2 person, w3 zzz"
        assert tokenizer(text)["input_ids"] == encoder.tokenizer.encode(text).ids
        card = json.loads((folder / "saved" / "relpt.json").read_text())
        for token in card["markers"].values():
            assert tokenizer.convert_tokens_to_ids(token) == encoder.tokenizer.token_to_id(token)
            assert len(tokenizer.encode(token, add_special_tokens=False)) == 1 or unused
        assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.cls_token) == ("[MASK]", "[PAD]", "[CLS]")
        model = transformers.AutoModel.from_pretrained(folder / "saved")
        assert model.config.vocab_size == encoder.config["vocab_size"] >= len(tokenizer)
