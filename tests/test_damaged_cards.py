"""relpt.json, hybrid.json, graph.json and history.jsonl that say what cannot be: each names its file and the field."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt.files import read_json
from relpt.loop import compare_cards

PLACES = ("head_start", "head_end", "tail_start", "tail_end")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"), hidden=16, layers=1)


@pytest.fixture
def encoder(folder: Path) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, markers="typed", types=["person"], num_threads=1)


def refuses(read: Callable[[Path], Any], path: Path, changed: dict[str, Any], message: str) -> None:
    """Reading the file's folder with these fields of the card changed is a FormatError that names the file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(relpt.FormatError, match=rf"{re.escape(str(path))}: .*{message}"):
        read(path.parent)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"typed_markers": {"person": 5}}, "markers of 'person' are 5"),
        ({"typed_markers": {"person": {place: [1] for place in PLACES}}}, "markers of 'person' are"),
        ({"typed_markers": {"person": {place: [] for place in PLACES}}}, "markers of 'person' are"),
        ({"typed_markers": 5}, "typed_markers"),
        ({"markers": {"head_start": ["[E1]"]}}, "markers is"),
        ({"marker_style": ["typed"]}, "marker_style is"),
        ({"marker_style": "none"}, "marker_style is 'none'; expected one of plain"),
        ({"marker_order": 5}, "marker_order is 5"),
        ({"prompt": ["[MASK]"]}, "prompt is"),
        ({"prompt": "nothing to fill"}, "has no .MASK."),
        ({"representation": None}, "representation is None"),
        ({"representation": "entity_end"}, "'entity_end' is unknown"),
        ({"projection": [1]}, "projection is"),
    ],
)
def test_encoders(encoder: relpt.Encoder, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    encoder.save_pretrained(tmp_path)
    refuses(relpt.Encoder.from_pretrained, tmp_path / "relpt.json", changed, message)


@pytest.fixture(scope="module")
def fitted(folder: Path) -> relpt.Classifier:
    encoder = relpt.Encoder.from_pretrained(folder, num_threads=1)
    return relpt.Classifier(encoder, epochs=1).fit(tiny_dataset(2, 3), show_progress_bar=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": {"adam_betas": 0.9}}, "adam_betas is 0.9; expected two numbers"),
        ({"options": {"adam_betas": "ab"}}, "adam_betas is 'ab'"),
        ({"options": {"frozen": 5}}, "'int' object is not iterable"),
        ({"options": {"frozen": "0"}}, "frozen names part '0'"),
        ({"options": {"bags": ["one"]}}, "bags is"),
        ({"options": {"epochs": 1.5}}, "epochs is 1.5"),
        ({"options": {"representation": 5}}, "representation is 5"),
        ({"labels": [["r0"], "r1"]}, "labels is no list of distinct names"),
        ({"labels": ["r0", "r0"]}, "labels is no list of distinct names"),
        ({"inputs": ["C+M"]}, "inputs is"),
    ],
)
def test_classifiers(fitted: relpt.Classifier, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = fitted.save_pretrained(tmp_path) / "relpt.json"
    card = json.loads(path.read_text())["classifier"]
    refuses(relpt.Classifier.from_pretrained, path, {"classifier": card | changed}, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoders": [{"kind": ["Encoder"]}, {"kind": "Encoder"}]}, "kind is none of"),
        ({"encoders": [{"kind": "Encoder", "dtype": 5}, {"kind": "Encoder"}]}, "dtype is 5"),
        ({"encoders": []}, "two encoders or more"),
        ({"weights": ["1", "1"]}, "weights is"),
        ({"weights": [1, [1]]}, "weights is"),
        ({"weights": [1]}, "weights is .*expected 2 numbers"),
        ({"weights": [1, -1]}, "weights is .*expected 2 numbers"),
    ],
)
def test_hybrids(encoder: relpt.Encoder, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    relpt.HybridEncoder(encoder, encoder).save_pretrained(tmp_path / "hybrid")
    refuses(relpt.HybridEncoder.from_pretrained, tmp_path / "hybrid" / "hybrid.json", changed, message)


@pytest.fixture(scope="module")
def graph() -> relpt.GraphEmbeddings:
    return relpt.GraphEmbeddings(dim=4, epochs=1).fit([("a", "r", "b"), ("b", "r", "c")], show_progress_bar=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"entities": ["a", ["b"], "c"]}, "entities is no list of distinct names"),
        ({"entities": ["a", "b", 3]}, "entities is no list of distinct names"),
        ({"entities": ["a", "b", "b"]}, "entities is no list of distinct names"),
        ({"relations": [5]}, "relations is no list of distinct names"),
        ({"entities": ["a", "b", "\ud800"]}, "holds half of a surrogate pair"),
        ({"options": {"dim": 2**63}}, "options: "),
        ({"options": {"negatives": "3"}}, "negatives is '3'"),
    ],
)
def test_graphs(graph: relpt.GraphEmbeddings, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = graph.save(tmp_path / "graph") / "graph.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(relpt.FormatError, match=rf"graph\.(json|safetensors): .*{message}"):
        relpt.GraphEmbeddings.load(path.parent)


def test_a_graph_of_a_huge_dim_takes_no_memory(graph: relpt.GraphEmbeddings, tmp_path: Path) -> None:
    path = graph.save(tmp_path / "graph") / "graph.json"
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, limit[1]))
    try:
        changed = {"options": {"dim": 2**31 - 1}}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        with pytest.raises(relpt.FormatError, match="entities is no float32 tensor of shape"):
            relpt.GraphEmbeddings.load(path.parent)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


@pytest.mark.parametrize("triple", [(3, 0, 0), (0, 1, 0), (0, 0, -1)])
def test_triples_of_a_graph(graph: relpt.GraphEmbeddings, tmp_path: Path, triple: tuple[int, int, int]) -> None:
    path = graph.save(tmp_path / "graph") / "graph.safetensors"
    save_file(load_file(path) | {"triples": np.array([triple], np.int32)}, path)
    with pytest.raises(relpt.FormatError, match=r"graph\.safetensors: triples has rows beyond"):
        relpt.GraphEmbeddings.load(path.parent)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": None}, "options is missing or no object"),
        ({"encoder": []}, "encoder is missing or no object"),
        ({"data": "hash"}, "data is missing or no object"),
        ({"target": 5}, "target is missing or no object"),
        ({"options": {}}, "options.micro_batch_pairs is None"),
        ({"options": {"micro_batch_pairs": "4"}}, "options.micro_batch_pairs is '4'"),
    ],
)
def test_checkpoints(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    card = {"options": {"micro_batch_pairs": 4}, "encoder": {}, "data": {"hash": "x"}}
    (tmp_path / "relpt.json").write_text(json.dumps(card))
    assert compare_cards(card, tmp_path) == 4
    refuses(lambda folder: compare_cards(card, folder), tmp_path / "relpt.json", changed, message)
    (tmp_path / "relpt.json").write_text("[]")
    with pytest.raises(relpt.FormatError, match=r"relpt\.json: holds no JSON object"):
        compare_cards(card, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"loss": "\xff"}', "is no valid JSON"),
        (b"5", "is no record of a step"),
        (b"[1]", "is no record of a step"),
        (b'{"loss": 1', "is no valid JSON"),
        (rb'{"note": "\ud800"}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_histories(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.5}\r\n' + line + b"\n")
    with pytest.raises(relpt.FormatError, match=rf"history\.jsonl, line 2: .*{message}"):
        relpt.History.read(path)
    path.write_bytes(b'{"step": 1, "loss": 2.5}\r\n\n')
    assert relpt.History.read(path).records == [{"step": 1, "loss": 2.5}]


def test_halves_of_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(r'["\ud83d\ude00", "\\ud800"]')  # a whole pair, and a backslash
    assert read_json(path) == ["\U0001f600", r"\ud800"]
    path.write_text(r'{"name": "\uD83D"}')
    with pytest.raises(relpt.FormatError, match=r"card\.json: .*half of a surrogate pair, '\\ud83d'"):
        read_json(path)
