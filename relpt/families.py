"""What sets BERT's relatives apart from it: names of fields and tensors in their folders, and parts of the network.

relpt's own names are BERT's, of config.json's fields and of tensors alike. A new relative is a row of ``FAMILIES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CONFIG", "FAMILIES", "Family", "family_of"]

# config.json's fields that shape the network, with BERT's defaults.
CONFIG: Final[dict[str, Any]] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
# Fields of which relpt computes one value alone.
_COMPUTED: Final = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
_BERTS_TOKENS: Final = {"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "pad": "[PAD]", "unk": "[UNK]"}
_LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Family:
    """A ``model_type`` of Hugging Face's.

    Attributes:
        title: its name in messages.
        architecture: transformers' class with a head for masked words, as which it is saved.
        prefix: of the encoder's tensors in a model with a head.
        heads: what the names of tensors outside the encoder begin with.
        fields: the folder's names of config.json's fields, where they differ.
        defaults: of fields, where they differ.
        fixed: values of fields that the folder's config.json does not have.
        computed: further fields of which relpt computes one value alone.
        network: what the core's Model is told beside the fields of CONFIG, from the configuration.
        layer: the folder's name of a layer, {} its number where it has one.
        stems: the folder's names of tensors without layer and ".weight" or ".bias", where they differ.
        tokens: special tokens by role, where the tokenizer's files do not say.
        decoder: what the MLM head's copy of the embeddings and its bias are called where they are stored once more.
        model_inputs: what transformers' tokenizer gives the model; None for its default.
    """

    title: str
    architecture: str
    prefix: str
    heads: tuple[str, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    network: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    layer: str = "encoder.layer.{}"
    stems: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=lambda: _BERTS_TOKENS)
    decoder: str = "cls.predictions.decoder"
    model_inputs: tuple[str, ...] | None = None

    def field_name(self, name: str) -> str:
        """The folder's name of a field of config.json."""
        return self.fields.get(name, name)

    def all_defaults(self) -> dict[str, Any]:
        """The numbers among the fields, with what a config.json without them means."""
        numbers = {**CONFIG, **self.defaults, **self.fixed}
        return {name: value for name, value in numbers.items() if name not in self.all_computed()}

    def all_computed(self) -> dict[str, Any]:
        """The fields of which one value alone is computed, by relpt's names."""
        return {**_COMPUTED, **self.computed}

    def tensor_name(self, name: str) -> str:
        """The folder's name of a parameter, without the prefix."""
        stem, _, kind = name.rpartition(".")
        if layer := _LAYER.fullmatch(stem):
            return f"{self.layer.format(layer[1])}.{self.stems.get(layer[2], layer[2])}.{kind}"
        return f"{self.stems.get(stem, stem)}.{kind}"

    def prefixed(self, name: str) -> str:
        """The name in a saved model with a head, of a tensor by the folder's name."""
        return name if name.startswith(self.heads) else self.prefix + name


FAMILIES: Final[dict[str, Family]] = {
    "bert": Family(title="BERT", architecture="BertForMaskedLM", prefix="bert.", heads=("cls.",)),
    "distilbert": Family(
        title="DistilBERT",
        architecture="DistilBertForMaskedLM",
        prefix="distilbert.",
        heads=("vocab_", "pre_classifier.", "classifier.", "qa_outputs."),
        fields={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "hidden_act": "activation",
        },
        defaults={"num_hidden_layers": 6},
        fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
        computed={"sinusoidal_pos_embds": False},
        network=lambda config: {"attended_dropout": False},
        layer="transformer.layer.{}",
        stems={
            "attention.self.query": "attention.q_lin",
            "attention.self.key": "attention.k_lin",
            "attention.self.value": "attention.v_lin",
            "attention.output.dense": "attention.out_lin",
            "attention.output.LayerNorm": "sa_layer_norm",
            "intermediate.dense": "ffn.lin1",
            "output.dense": "ffn.lin2",
            "output.LayerNorm": "output_layer_norm",
            "cls.predictions.transform.dense": "vocab_transform",
            "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
            "cls.predictions": "vocab_projector",
        },
        decoder="vocab_projector",
        model_inputs=("input_ids", "attention_mask"),
    ),
    "roberta": Family(
        title="RoBERTa",
        architecture="RobertaForMaskedLM",
        prefix="roberta.",
        heads=("lm_head.", "classifier.", "qa_outputs."),
        defaults={"vocab_size": 50265, "pad_token_id": 1},
        network=lambda config: {"position_offset": config["pad_token_id"] + 1},
        stems={
            "cls.predictions.transform.dense": "lm_head.dense",
            "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
            "cls.predictions": "lm_head",
        },
        tokens={"cls": "<s>", "sep": "</s>", "mask": "<mask>", "pad": "<pad>", "unk": "<unk>"},
        decoder="lm_head.decoder",
        model_inputs=("input_ids", "attention_mask"),
    ),
    "electra": Family(
        title="ELECTRA",
        architecture="ElectraForMaskedLM",
        prefix="electra.",
        heads=("generator_", "discriminator_predictions.", "classifier.", "qa_outputs."),
        defaults={
            "embedding_size": 128,
            "hidden_size": 256,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
        },
        network=lambda config: {
            "embedding_size": config["embedding_size"],
            "embedding_projection": config["embedding_size"] != config["hidden_size"],
        },
        stems={
            "cls.predictions.transform.dense": "generator_predictions.dense",
            "cls.predictions.transform.LayerNorm": "generator_predictions.LayerNorm",
            "cls.predictions": "generator_lm_head",
        },
        decoder="generator_lm_head",
    ),
    "albert": Family(
        title="ALBERT",
        architecture="AlbertForMaskedLM",
        prefix="albert.",
        heads=("predictions.", "sop_classifier.", "classifier.", "qa_outputs."),
        defaults={
            "vocab_size": 30000,
            "embedding_size": 128,
            "hidden_size": 4096,
            "num_attention_heads": 64,
            "intermediate_size": 16384,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "hidden_act": "gelu_new",
        },
        computed={"num_hidden_groups": 1, "inner_group_num": 1},
        network=lambda config: {
            "embedding_size": config["embedding_size"],
            "embedding_projection": True,
            "shared_layers": True,
            "feed_forward_dropout": False,
        },
        layer="encoder.albert_layer_groups.0.albert_layers.0",
        stems={
            "embeddings_project": "encoder.embedding_hidden_mapping_in",
            "attention.self.query": "attention.query",
            "attention.self.key": "attention.key",
            "attention.self.value": "attention.value",
            "attention.output.dense": "attention.dense",
            "attention.output.LayerNorm": "attention.LayerNorm",
            "intermediate.dense": "ffn",
            "output.dense": "ffn_output",
            "output.LayerNorm": "full_layer_layer_norm",
            "cls.predictions.transform.dense": "predictions.dense",
            "cls.predictions.transform.LayerNorm": "predictions.LayerNorm",
            "cls.predictions": "predictions",
        },
        tokens={"cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]", "pad": "<pad>", "unk": "<unk>"},
        decoder="predictions.decoder",
    ),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a configuration; its model_type is one of FAMILIES, or missing (BERT)."""
    return FAMILIES[config.get("model_type") or "bert"]
