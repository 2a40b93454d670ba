"""What relpt's trainer computes, by PyTorch's autograd and transformers' models, from the sampler's batches.

Nothing here is shared with the core: sequences are padded, attention is transformers', the losses are written as the
papers print them, gradients are autograd's, and the optimiser is torch.optim.AdamW.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu
from transformers import AutoConfig, AutoModelForMaskedLM, PretrainedConfig

import relpt
from relpt.families import family_of
from relpt.weights import folder_config, model_name

# The head for masked words, of the model with its encoder left out.
HEADS: dict[str, Any] = {
    "bert": lambda model, x: model.cls(x),
    "roberta": lambda model, x: model.lm_head(x),
    "electra": lambda model, x: model.generator_lm_head(model.generator_predictions(x)),
    "albert": lambda model, x: model.predictions(x),
    "distilbert": lambda model, x: model.vocab_projector(model.vocab_layer_norm(gelu(model.vocab_transform(x)))),
}


def config_of(encoder: relpt.Encoder) -> PretrainedConfig:
    """transformers' configuration of an encoder, attention written out."""
    fields = folder_config(encoder.config)
    config = AutoConfig.for_model(fields.pop("model_type", "bert"), **fields)
    config.tie_word_embeddings = True
    config._attn_implementation = "eager"
    return config


def fresh_model(config: dict[str, Any]) -> Any:
    """transformers' model for masked words of a config.json, with the weights of its own initialisation."""
    fields = {name: value for name, value in config.items() if name != "model_type"}
    return AutoModelForMaskedLM.from_config(AutoConfig.for_model(config["model_type"], **fields))


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of its parameters."""
    return {name: tuple(parameter.shape) for name, parameter in fresh_model(config).named_parameters()}


class TorchModel:
    """transformers' model for masked words with an encoder's weights, and CP + MLM on batches of ``_core.Sampler``."""

    def __init__(self, encoder: relpt.Encoder, dtype: torch.dtype = torch.float64) -> None:
        config = config_of(encoder)
        self.model = AutoModelForMaskedLM.from_config(config).to(dtype).eval()
        self.head = HEADS[config.model_type]
        self.representation = encoder.representation
        family = family_of(encoder.config)
        self.names = {model_name(name, family): name for name, _ in encoder._model.parameters()}
        left = dict(self.names)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.from_numpy(encoder._model.get(left.pop(name))).to(dtype))
        assert not left, f"transformers has no parameter {sorted(left)}"

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Parameters under relpt's names."""
        return {self.names[name]: value for name, value in self.model.named_parameters()}

    def hidden(self, batch: dict[str, Any]) -> Tensor:
        """Hidden states (T, H) of a packed batch, through a padded one."""
        ends = torch.tensor(batch["cu_seqlens"], dtype=torch.long)
        lengths = ends[1:] - ends[:-1]
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor(batch["ids"], dtype=torch.long)
        states: Tensor = self.model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states[mask]

    def represent(self, hidden: Tensor, batch: dict[str, Any]) -> Tensor:
        """Relation vectors (S, dim)."""
        spans = list(itertools.pairwise(batch["cu_seqlens"].tolist()))
        rows = {name: torch.tensor(batch[name], dtype=torch.long) for name in ("head", "tail", "prompt_row")}

        def mentions(side: str) -> Tensor:
            bounds = zip(batch[f"{side}_first"], batch[f"{side}_end"], strict=True)
            return torch.stack([hidden[first:end].mean(0) for first, end in bounds])

        parts = {
            "entity_start": lambda: torch.cat([hidden[rows["head"]], hidden[rows["tail"]]], 1),
            "cls": lambda: torch.stack([hidden[a] for a, _ in spans]),
            "mask": lambda: hidden[rows["prompt_row"]],
            "mean": lambda: torch.stack([hidden[a:b].mean(0) for a, b in spans]),
            "mention_mean": lambda: torch.cat([mentions("head"), mentions("tail")], 1),
        }
        return torch.cat([parts[name]() for name in self.representation.split("+")], 1)

    def mlm(self, hidden: Tensor, batch: dict[str, Any]) -> Tensor:
        """Mean cross-entropy over the masked words; 0 without one."""
        if not len(batch["mlm_row"]):
            return hidden.sum() * 0
        logits = self.head(self.model, hidden[torch.tensor(batch["mlm_row"], dtype=torch.long)])
        loss: Tensor = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["mlm_label"], dtype=torch.long))
        return loss

    def losses(self, batch: dict[str, Any], options: dict[str, Any]) -> dict[str, Tensor]:
        """Loss, its parts and the accuracy, under the options of a CPTrainer."""
        hidden = self.hidden(batch)
        names = ("similarity", "temperature", "symmetric", "mask_same_relation", "positives")
        form = {name: options[name] for name in names}
        cp, accuracy, largest = contrastive(self.represent(hidden, batch), batch["relation"], **form)
        mlm = self.mlm(hidden, batch) if options["mlm_weight"] > 0 else hidden.sum() * 0
        total = options["cp_weight"] * cp + options["mlm_weight"] * mlm
        return {"loss": total, "loss_cp": cp, "loss_mlm": mlm, "accuracy": accuracy, "largest_logit": largest}


def contrastive(
    vectors: Tensor,
    relation: np.ndarray,
    *,
    similarity: str,
    temperature: float,
    symmetric: bool,
    mask_same_relation: bool,
    positives: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss over the anchors, the share of anchors whose most similar candidate is a positive, the largest logit.

    Samples 2i and 2i + 1 are pair i. Symmetric: every sample is an anchor, all other samples its candidates; else the
    first ones are anchors and the second ones candidates.
    """
    if similarity == "cosine":
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    group, number = torch.tensor(relation), torch.arange(len(vectors))
    anchors, columns = (number, number) if symmetric else (number[0::2], number[1::2])
    z = vectors[anchors] @ vectors[columns].T / temperature
    partner = columns[None, :] == (anchors[:, None] ^ 1)
    itself = columns[None, :] == anchors[:, None]
    same = group[anchors][:, None] == group[columns][None, :]
    supervised = positives == "relation"
    left_out = itself | (same & ~partner if mask_same_relation and not supervised else torch.zeros_like(same))
    log_p = torch.log_softmax(z.masked_fill(left_out, -torch.inf), 1)
    wanted = same & ~itself if supervised else partner
    loss = -torch.where(wanted, log_p, 0).sum(1) / wanted.sum(1)
    nearest = z.masked_fill(left_out, -torch.inf).argmax(1, keepdim=True)
    right = wanted.gather(1, nearest)
    return loss.mean(), right.double().mean(), z.abs().max()


def schedule_factor(kind: str, step: int, warmup: int, max_steps: int) -> float:
    """The learning rate's factor at step 0, 1, …: up to 1 over the warm-up, then as the kind says."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, max_steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + float(np.cos(np.pi * done)))}[kind]


class TorchTrainer:
    """AdamW with clipping, decay groups and schedule, one step at a time."""

    def __init__(self, model: TorchModel, options: dict[str, Any], warmup: int) -> None:
        self.model, self.options, self.warmup = model, options, warmup
        named = model.parameters()
        spared = {name for name in named if name.endswith("bias") or "LayerNorm" in name}
        groups = [
            {"params": [v for k, v in named.items() if k not in spared], "weight_decay": options["weight_decay"]},
            {"params": [v for k, v in named.items() if k in spared], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=options["learning_rate"], betas=tuple(options["adam_betas"]), eps=options["adam_eps"]
        )

    def gradients(self, batch: dict[str, Any]) -> dict[str, float]:
        """Losses, and gradients in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.model.losses(batch, self.options)
        losses["loss"].backward()
        return {name: float(value.detach()) for name, value in losses.items()}

    def step(self, batch: dict[str, Any], step: int) -> dict[str, float]:
        """One update; step counts from 0."""
        stats = self.gradients(batch)
        o = self.options
        limit = o["max_grad_norm"] or float("inf")
        used = [p for p in self.model.parameters().values() if p.grad is not None]
        stats["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(used, limit))
        factor = schedule_factor(o["schedule"], step, self.warmup, o["max_steps"])
        stats["lr"] = o["learning_rate"] * factor
        for group in self.optimizer.param_groups:
            group["lr"] = stats["lr"]
        self.optimizer.step()
        return stats
