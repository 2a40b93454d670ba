"""Small made-up encoders and labelled sentences, for tests that need no real weights."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

_WORDS = (
    "a about after again all also and another around as at away back before began between both built by came city "
    "close day down early end every family far few first for found from gave great group had hand he her high his "
    "house idea in into it its kept known land large last later left letter light little lived long made man many "
    "met more most moved much name near never new night no of old on once one only open or other out over own part "
    "people place point river said same saw school sea second several she side small some soon stood story taken the "
    "their then there they things this three time to together told took town two under until up used very war was "
    "water way well went were when where which while who with woman wood word work world would wrote year young"
)
WORDS = tuple(_WORDS.split())
# Each relation has words of its own, so that it can be learned.
CUES = (
    ("born", "birth", "cradle"),
    ("died", "death", "buried"),
    ("married", "wife", "wedding"),
    ("founded", "founder", "opened"),
    ("painted", "canvas", "brush"),
    ("taught", "pupil", "lessons"),
    ("owned", "owner", "bought"),
    ("played", "stage", "actor"),
)
_NAMES = (
    "Anna Bruno Clara David Emma Felix Greta Hugo Irene Jonas Karla Lukas Maria Nils Olga Peter Rosa Simon Thea Viktor "
    "Ashford Brunswick Calder Dover Elmira Fairfax Glenwood Halden Ithaca Juneau Kendal Lisburn Monroe Newport Orleans"
)
NAMES = tuple(_NAMES.split())
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _vocabulary(words: Sequence[str], unused: int) -> list[str]:
    plain = [word.lower() for word in (*words, *NAMES, *(cue for cues in CUES for cue in cues))]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{letter}" for letter in letters), *".,;:!?()[]'\"-/", *plain]
    return list(dict.fromkeys([*SPECIAL, *(f"[unused{i}]" for i in range(unused)), *pieces]))


def _tensors(config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Random weights under the names of transformers' BertModel, without pooler and MLM head."""
    rng = np.random.default_rng(seed)
    h, f = config["hidden_size"], config["intermediate_size"]
    tensors: dict[str, np.ndarray] = {}

    def matrix(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, 0.05, shape).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        tensors[f"{name}.bias"] = rng.normal(0, 0.02, rows).astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = (1 + rng.normal(0, 0.05, h)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.02, h).astype(np.float32)

    matrix("embeddings.word_embeddings", config["vocab_size"], h)
    matrix("embeddings.position_embeddings", config["max_position_embeddings"], h)
    matrix("embeddings.token_type_embeddings", config["type_vocab_size"], h)
    norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{name}", h, h)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", f, h)
        linear(f"{layer}.output.dense", h, f)
        norm(f"{layer}.output.LayerNorm")
    return tensors


def tiny_encoder_folder(
    path: str | Path,
    *,
    vocab_words: Sequence[str] = WORDS,
    unused: int = 10,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
) -> Path:
    """A Hugging Face folder of a small BERT with random weights and a lower-case WordPiece tokenizer.

    Args:
        path: the folder to make.
        vocab_words: words of the vocabulary, beside names, cue words, letters and punctuation.
        unused: how many [unusedN] pieces the vocabulary has.
        hidden, layers, heads: sizes; the feed-forward layer is twice as wide as hidden.
        seed: of the weights.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate(_vocabulary(vocab_words, unused))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": len(vocabulary),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 128,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(_tensors(config, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny_dataset(n_relations: int = 4, per_relation: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    """Labelled records that ``relpt.load`` reads: made-up sentences, all different, with types, relations r0, r1, …"""
    rng = random.Random(seed)
    records = []
    for relation in range(n_relations):
        cues = CUES[relation % len(CUES)]
        for i in range(per_relation):
            head, tail = rng.sample(NAMES, 2)
            left, middle, right = (" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(3))
            before = f"{left.capitalize()} "
            between = f" {middle} {rng.choice(cues)} "
            first, second = (head, tail) if rng.random() < 0.7 else (tail, head)
            text = f"{before}{first}{between}{second} {right} {i}."
            spans = {
                first: [len(before), len(before) + len(first)],
                second: [len(before + first + between), len(before + first + between + second)],
            }
            records.append(
                {
                    "text": text,
                    "h": {"name": head, "pos": spans[head], "type": "person"},
                    "t": {"name": tail, "pos": spans[tail], "type": "place"},
                    "relation": f"r{relation}",
                }
            )
    return records


def write_jsonl(path: str | Path, records: list[dict[str, Any]]) -> Path:
    """The records as a JSON Lines file."""
    path = Path(path)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
