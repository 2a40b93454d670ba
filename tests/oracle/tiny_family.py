"""Small random models of BERT's relatives, in folders of Hugging Face's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from oracle import tiny_bert
from safetensors.numpy import save_file

import relpt

# The fields of each model type's config.json that relpt reads, but for the vocabulary's size; odd ones on purpose.
CONFIGS: dict[str, dict[str, Any]] = {
    "distilbert": {
        "activation": "gelu",
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 20,
        "max_position_embeddings": 40,
        "sinusoidal_pos_embds": False,
        "initializer_range": 0.03,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "pad_token_id": 0,
    },
    "roberta": {
        "hidden_act": "gelu",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 42,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.03,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 1,
    },
    "electra": {
        "hidden_act": "gelu",
        "embedding_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.03,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    },
    "albert": {
        "hidden_act": "gelu",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "embedding_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.03,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    },
}


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    """config.json of a model type."""
    return {"model_type": kind, "vocab_size": len(tiny_bert.vocabulary()), **CONFIGS[kind], **changes}


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A folder of the configuration, the tensors by the names they shall have, and the tiny BERT's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tiny_bert.tokenizer_json())
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "mask", "pad", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def open_encoder(
    folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], seed: int = 0, **options: Any
) -> relpt.Encoder:
    """The encoder of a folder that is written for it, with random weights of the shapes."""
    write_folder(folder, config, tiny_bert.values(shapes, seed))
    return relpt.Encoder.from_pretrained(folder, num_threads=1, **options)
