"""Documents with coreference chains: what becomes of them, and a run on it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_bert

import relpt
from relpt.objectives import EP

DOCUMENT: dict[str, Any] = {
    "id": "d1",
    "sentences": [
        ["Ada", "met", "Charles", "in", "London", "."],
        ["He", "wrote", "to", "her", "."],
        ["The", "weather", "was", "fine", "."],
        ["Later", "Ada", "and", "Charles", "left", "that", "town", "near", "London", "."],
    ],
    "coref": [
        [[0, 2, 3], [1, 0, 1], [3, 3, 4]],  # Charles
        [[0, 0, 1], [1, 3, 4], [3, 1, 2]],  # Ada
        [[0, 4, 5], [3, 5, 9]],  # London, that town near London
    ],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DOCUMENT), **changes}


def described(data: relpt.Dataset) -> list[tuple[str, str, str, str]]:
    return [(i.head_name or "", i.head_id or "", i.tail_name or "", i.tail_id or "") for i in data]


def test_every_two_chains_of_a_sentence_give_an_instance(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "relpt"):
        data = relpt.load([DOCUMENT])
    town = "that town near London"
    assert described(data) == [
        ("Ada", "d1#0", "Charles", "d1#1"),
        ("Ada", "d1#0", "London", "d1#2"),
        ("Charles", "d1#1", "London", "d1#2"),
        ("her", "d1#0", "He", "d1#1"),
        ("Ada", "d1#0", "Charles", "d1#1"),
        ("Ada", "d1#0", town, "d1#2"),
        ("Charles", "d1#1", town, "d1#2"),
    ]
    assert data.labels == []
    assert "read as coref, token spans, 7 instances" in caplog.text
    assert "1 sentences with fewer than two chains, which give no instance" in caplog.text


def test_chains_on_which_systems_differ_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    charles, ada, london = DOCUMENT["coref"]
    both = {"a": [charles, ada, london], "b": [ada[::-1], charles[:2], london]}
    with caplog.at_level(logging.INFO, "relpt"):
        data = relpt.load([changed(coref=both)])
    assert {(head, tail) for _, head, _, tail in described(data)} == {("d1#0", "d1#1")}
    assert [i.tail_name for i in data] == ["London", "that town near London"]
    assert "2 chains on which the systems do not agree, left out" in caplog.text


def test_overlapping_mentions_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    inner = [[3, 8, 9], [0, 0, 1]]
    with caplog.at_level(logging.INFO, "relpt"):
        data = relpt.load([changed(coref=[DOCUMENT["coref"][2], inner])])
    assert described(data) == [("Ada", "d1#0", "London", "d1#1")]
    assert "1 pairs of chains whose mentions overlap, left out" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "id: expected the document's name"),
        ({"coref": [[[0, 0, 9]]]}, r"coref\[0\]: mention \[0, 0, 9\] lies outside its sentence, which has 6 tokens"),
        ({"coref": [[[0, 2, 2]]]}, r"coref\[0\]: mention \[0, 2, 2\] lies outside its sentence"),
        ({"coref": {"a": [], "b": [[[4, 0, 1]]]}}, r"coref\.b\[0\]: mention \[4, 0, 1\] is in no sentence .* 0 to 3"),
        ({"coref": [[[0, 1]]]}, r"coref\[0\]: expected mentions \[sentence, start, end\], got \[0, 1\]"),
        ({"coref": [[]]}, r"coref\[0\]: expected a list of mentions"),
        ({"coref": {}}, "coref: expected the chains of at least one system, got none"),
        ({"coref": 3}, "coref: expected a list of chains, got a whole number"),
        ({"sentences": ["Ada met"]}, "sentences: expected a list of lists of tokens"),
        ({"sentences": [["Ada", 3]]}, r"sentences\[0\]: expected tokens as strings"),
    ],
)
def test_bad_documents(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(relpt.FormatError, match=said):
        relpt.load([changed(**changes)])


def test_training_on_chains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each document has its own pairs, which EP draws together; one that stands alone is left out, and counted."""
    rng = np.random.default_rng(0)
    documents = []
    for number in range(8):
        sentences = [[f"w{word}" for word in rng.integers(0, tiny_bert.WORDS, 9)] for _ in range(4)]
        chains = [[[s, side * 5, side * 5 + 1] for s in range(4)] for side in range(2)]
        documents.append({"id": number, "sentences": sentences, "coref": chains})
    alone = {"id": 8, "sentences": documents[0]["sentences"][:1], "coref": [[[0, 0, 1]], [[0, 5, 6]]]}
    data = relpt.load([*documents, alone])
    assert len(data) == 33
    encoder = tiny_bert.encoder(tmp_path)
    options = {"pairs_per_step": 6, "max_length": 32, "max_steps": 120, "learning_rate": 3e-3, "p_blank": 0.0}
    history = relpt.Trainer(encoder, objectives=[EP(temperature=0.2)], **options).fit(data, show_progress_bar=False)
    assert history["loss_ep"][-10:].mean() < 0.5 * history["loss_ep"][:3].mean()
    assert "1 of 33 sentences are left out: no other sentence has their pair of entities (8 pairs" in caplog.text
