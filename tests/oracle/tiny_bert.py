"""A BERT of a few thousand weights, and sentences for it: all from NumPy's generator by a seed, nothing stored.

Its weights are far from a fresh initialisation (every bias and LayerNorm has values of its own), so that a formula that
leaves one out, or takes another one, shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import relpt

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = 110
RELATIONS = ("born in", "works for", "part of", "married to", "capital of")
TYPES = ("person", "place", "work of art")

# What a test of the core's arithmetic pins, so that other defaults do not touch it: the published form of the loss, and
# dropout as the tiny BERT's configuration says. Tests add what they vary.
PINNED: dict[str, Any] = {
    "similarity": "cosine",
    "symmetric": True,
    "mask_same_relation": True,
    "positives": "pair",
    "relation_sampling": "share",
    "distinct_relations": False,
    "pairs_per_relation": 1,
    "blank_as": "blank",
    "dropout": None,
    "adam_betas": (0.9, 0.999),
    "adam_eps": 1e-8,
    "mlm_weight": 1.0,
}

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 129,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 56,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}


def vocabulary(unused: int = 9) -> list[str]:
    """[PAD], [unused0] …, the other special tokens, words of the types' names, and w0 … w109."""
    types = sorted({word for name in TYPES for word in name.split()})
    words = [f"w{i}" for i in range(WORDS)]
    return [SPECIAL[0], *(f"[unused{i}]" for i in range(unused)), *SPECIAL[1:], *types, *words]


def tokenizer_json(unused: int = 9) -> str:
    """tokenizer.json of a WordPiece tokenizer over the vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = {token: number for number, token in enumerate(vocabulary(unused))}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(list(SPECIAL))
    ends = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    return str(made.to_str())


def shapes(config: dict[str, Any], *, head: bool = True, pooler: bool = False) -> dict[str, tuple[int, ...]]:
    """Names without "bert." and shapes of BertForMaskedLM's parameters, as transformers has them."""
    h, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (v, h),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], h),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], h),
    }

    def norm(stem: str) -> None:
        found.update({f"{stem}.weight": (h,), f"{stem}.bias": (h,)})

    def dense(stem: str, out: int, inp: int) -> None:
        found.update({f"{stem}.weight": (out, inp), f"{stem}.bias": (out,)})

    norm("embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        stem = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            dense(f"{stem}attention.self.{name}", h, h)
        dense(f"{stem}attention.output.dense", h, h)
        norm(f"{stem}attention.output.LayerNorm")
        dense(f"{stem}intermediate.dense", f, h)
        dense(f"{stem}output.dense", h, f)
        norm(f"{stem}output.LayerNorm")
    if pooler:
        dense("pooler.dense", h, h)
    if head:
        dense("cls.predictions.transform.dense", h, h)
        norm("cls.predictions.transform.LayerNorm")
        found["cls.predictions.bias"] = (v,)
    return found


def tensors(config: dict[str, Any], seed: int = 0, **parts: bool) -> dict[str, np.ndarray]:
    """Random values of all parameters, float32."""
    return values(shapes(config, **parts), seed)


def values(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Random values of parameters of these names and shapes, float32."""
    made = {}
    for number, (name, shape) in enumerate(shapes.items()):
        value = np.random.default_rng([seed, number]).standard_normal(shape)
        if len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.2 * value
        elif len(shape) == 1:
            value *= 0.2
        else:
            value *= 0.6 if "embeddings." in name else 1 / np.sqrt(shape[1])
        made[name] = value.astype(np.float32)
    return made


def write_folder(
    folder: Path,
    values: dict[str, np.ndarray] | None = None,
    *,
    seed: int = 0,
    unused: int = 9,
    prefix: str = "bert.",
    **changes: Any,
) -> Path:
    """A Hugging Face folder of the tiny BERT, its configuration changed, ``prefix`` before the encoder's names."""
    config = {**CONFIG, "vocab_size": len(vocabulary(unused)), **changes}
    values = tensors(config, seed) if values is None else values
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer_json(unused))
    named = {name if name.startswith("cls.") else prefix + name: value for name, value in values.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    return folder


def encoder(
    folder: Path,
    *,
    representation: str = "entity_start",
    num_threads: int = 1,
    dtype: str = "float32",
    form: dict[str, Any] | None = None,
    **options: Any,
) -> relpt.Encoder:
    """The tiny BERT opened by relpt, from a folder that is written for it; ``form``: of prompt and markers."""
    write_folder(folder, **options)
    return relpt.Encoder.from_pretrained(
        folder, representation=representation, num_threads=num_threads, dtype=dtype, **(form or {})
    )


def records(n: int = 60, seed: int = 0, relations: int = len(RELATIONS), longest: int = 18) -> list[dict[str, Any]]:
    """Sentences of mixed lengths in random words, some of which tell the relation; mentions in either order."""
    rng = np.random.default_rng([seed, n])
    made = []
    for i in range(n):
        relation = int(rng.integers(relations)) if i >= 2 * relations else i % relations
        count = int(rng.integers(6, longest + 1))
        telling, other = relation * 7 + rng.integers(7, size=count), rng.integers(WORDS, size=count)
        words = [f"w{number}" for number in np.where(rng.random(count) < 0.4, telling, other)]
        first = int(rng.integers(0, count - 4))
        second = int(rng.integers(first + 2, count - 1))
        spans = [(first, first + 1 + int(rng.integers(2))), (second, second + 1 + int(rng.integers(2)))]
        head, tail = spans if rng.random() < 0.6 else spans[::-1]
        record: dict[str, Any] = {"token": words, "relation": RELATIONS[relation]}
        for side, (start, stop) in (("h", head), ("t", tail)):
            kind = TYPES[int(rng.integers(len(TYPES)))]
            record[side] = {"name": " ".join(words[start:stop]), "pos": [start, stop], "type": kind}
        made.append(record)
    return made


def dataset(n: int = 60, **options: Any) -> relpt.Dataset:
    """The sentences as a Dataset."""
    return relpt.load(records(n, **options))
