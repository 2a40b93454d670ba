"""The job of `relpt pretrain` in PyTorch, as fast as it gets: the opponent of train_cpu.py and train_gpu.py.

Packed rows for every linear layer, scaled_dot_product_attention on runs of sequences of near-equal length (or, on a
GPU, on a jagged tensor: FlashAttention's form for any lengths), the MLM head on masked rows alone, fused AdamW; or, as
the published recipe does it, padded to the maximal length with the MLM head on every position. It trains on relpt's own
batches, so that both sides do the same work.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class PackedBatch:
    """relpt's batch with its sequences sorted by length; `chunks` are runs for attention."""

    def __init__(self, batch: dict, chunk: int = 8, pad_to: int | None = None) -> None:
        cu = batch["cu_seqlens"].astype(np.int64)
        lengths = np.diff(cu)
        self.order = np.argsort(-lengths, kind="stable")
        self.lengths = lengths[self.order]
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        old = np.concatenate([np.arange(cu[i], cu[i + 1]) for i in self.order])
        new_of_old = np.empty(len(old), np.int64)
        new_of_old[old] = np.arange(len(old))
        self.ids = torch.from_numpy(batch["ids"][old].astype(np.int64))
        self.positions = torch.from_numpy(batch["pos"][old].astype(np.int64))
        self.head, self.tail = (torch.from_numpy(new_of_old[batch[k]]) for k in ("head", "tail"))  # in sample order
        self.masked = torch.from_numpy(new_of_old[batch["mlm_row"]])
        self.label = torch.from_numpy(batch["mlm_label"].astype(np.int64))
        self.relation = torch.from_numpy(batch["relation"].astype(np.int64))
        self.partner = torch.arange(len(lengths)) ^ 1
        self.chunks, rows_all, back_all, at = [], [], [], 0
        for b in range(0, len(lengths), chunk):
            n = self.lengths[b : b + chunk]
            width = pad_to or int(n[0])
            inside = np.arange(width)[None] < n[:, None]
            rows = np.where(inside, starts[b : b + len(n), None] + np.arange(width)[None], starts[b])
            mask = None if inside.all() else torch.from_numpy(inside)[:, None, None, :]
            self.chunks.append((len(n), width, mask))
            rows_all.append(rows.ravel())
            back_all.append(np.flatnonzero(inside.ravel()) + at)
            at += inside.size
        self.rows = torch.from_numpy(np.concatenate(rows_all))
        self.back = torch.from_numpy(np.concatenate(back_all))
        self.ends, self.longest = torch.from_numpy(starts), int(self.lengths[0])

    def to(self, device: str) -> PackedBatch:
        """The same with its tensors on the device."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device, non_blocking=True))
        self.chunks = [(n, width, None if mask is None else mask.to(device)) for n, width, mask in self.chunks]
        return self


class Layer(nn.Module):
    """A post-norm layer on packed rows (T,H); attention on padded chunks."""

    def __init__(self, config: dict, jagged: bool) -> None:
        super().__init__()
        h, self.jagged = config["hidden_size"], jagged
        self.heads = config["num_attention_heads"]
        self.p, self.p_scores = config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]
        self.qkv, self.out = nn.Linear(h, 3 * h), nn.Linear(h, h)
        self.up, self.down = nn.Linear(h, config["intermediate_size"]), nn.Linear(config["intermediate_size"], h)
        self.norm1, self.norm2 = nn.LayerNorm(h, 1e-12), nn.LayerNorm(h, 1e-12)

    def forward(self, x: torch.Tensor, batch: PackedBatch, padded: bool) -> torch.Tensor:
        y = self.attend_jagged(self.qkv(x), batch) if self.jagged else self.attend_chunks(self.qkv(x), batch, padded)
        x = self.norm1(x + F.dropout(self.out(y), self.p))
        return self.norm2(x + F.dropout(self.down(F.gelu(self.up(x))), self.p))

    def attend_chunks(self, qkv: torch.Tensor, batch: PackedBatch, padded: bool) -> torch.Tensor:
        rows = qkv if padded else qkv.index_select(0, batch.rows)
        y = torch.cat(
            [
                self.attend(part, *chunk)
                for part, chunk in zip(
                    rows.split([n * width for n, width, _ in batch.chunks]), batch.chunks, strict=True
                )
            ]
        )
        return y if padded else y.index_select(0, batch.back)

    def attend_jagged(self, qkv: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        parts = qkv.view(len(qkv), 3, self.heads, -1).unbind(1)
        q, k, v = (
            torch.nested.nested_tensor_from_jagged(part, batch.ends, max_seqlen=batch.longest).transpose(1, 2)
            for part in parts
        )
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p_scores)
        return y.transpose(1, 2).values().reshape(len(qkv), -1)

    def attend(self, qkv: torch.Tensor, n: int, width: int, mask: torch.Tensor | None) -> torch.Tensor:
        q, k, v = qkv.view(n, width, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v, mask, self.p_scores)
        return y.transpose(1, 2).reshape(n * width, -1)


class Opponent(nn.Module):
    """BERT with an MLM head, trained on CP + MLM."""

    def __init__(
        self,
        folder: Path,
        *,
        padded_to: int | None,
        bf16: bool,
        learning_rate: float,
        device: str = "cpu",
        chunk: int = 8,
        jagged: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.device, self.chunk = device, chunk
        c = json.loads((folder / "config.json").read_text())
        h = c["hidden_size"]
        self.padded_to, self.bf16, self.p = padded_to, bf16, c["hidden_dropout_prob"]
        self.word, self.position = nn.Embedding(c["vocab_size"], h), nn.Embedding(c["max_position_embeddings"], h)
        self.segment, self.norm = nn.Embedding(c["type_vocab_size"], h), nn.LayerNorm(h, 1e-12)
        self.layers = nn.ModuleList(Layer(c, jagged) for _ in range(c["num_hidden_layers"]))
        self.mlm_dense, self.mlm_norm = nn.Linear(h, h), nn.LayerNorm(h, 1e-12)
        self.mlm_bias = nn.Parameter(torch.zeros(c["vocab_size"]))
        self.read(load_file(str(folder / "model.safetensors")))
        self.to(device)
        if compiled:
            for layer in self.layers:
                layer.compile(dynamic=True)
        weights = [w for w in self.parameters() if w.ndim > 1]
        others = [w for w in self.parameters() if w.ndim == 1]
        groups = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)

    @torch.no_grad()
    def read(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copies a checkpoint's tensors; the MLM head keeps its initial values where there is none."""
        w = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
        for module, name in ((self.word, "word"), (self.position, "position"), (self.segment, "token_type")):
            module.weight.copy_(w[f"embeddings.{name}_embeddings.weight"])
        for kind in ("weight", "bias"):
            getattr(self.norm, kind).copy_(w[f"embeddings.LayerNorm.{kind}"])
            for i, layer in enumerate(self.layers):
                b, a = f"encoder.layer.{i}.", f"encoder.layer.{i}.attention."
                parts = [w[f"{a}self.{name}.{kind}"] for name in ("query", "key", "value")]
                getattr(layer.qkv, kind).copy_(torch.cat(parts))
                for module, name in (
                    (layer.out, f"{a}output.dense"),
                    (layer.norm1, f"{a}output.LayerNorm"),
                    (layer.up, f"{b}intermediate.dense"),
                    (layer.down, f"{b}output.dense"),
                    (layer.norm2, f"{b}output.LayerNorm"),
                ):
                    getattr(module, kind).copy_(w[f"{name}.{kind}"])

    def hidden(self, batch: PackedBatch) -> torch.Tensor:
        """(T,H) on packed rows, or (padded rows, H)."""
        padded = self.padded_to is not None
        ids, positions = (
            (batch.ids[batch.rows], batch.positions[batch.rows]) if padded else (batch.ids, batch.positions)
        )
        x = self.norm(self.word(ids) + self.position(positions) + self.segment.weight[0])
        x = F.dropout(x, self.p)
        for layer in self.layers:
            x = layer(x, batch, padded)
        return x

    def mlm_loss(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        if self.padded_to is None:
            rows, target = x[batch.masked], batch.label
        else:  # every position, the others ignored by the loss
            rows, target = x, torch.full((len(x),), -100, device=x.device)
            target[batch.back[batch.masked]] = batch.label
        rows = self.mlm_norm(F.gelu(self.mlm_dense(rows)))
        return F.cross_entropy(F.linear(rows, self.word.weight, self.mlm_bias).float(), target)

    def cp_loss(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        place = batch.back if self.padded_to is not None else torch.arange(len(x), device=x.device)
        z = F.normalize(torch.cat([x[place[batch.head]], x[place[batch.tail]]], 1).float(), dim=1)
        s = z @ z.T / 0.05
        n = len(z)
        positive = torch.zeros(n, n, dtype=torch.bool, device=z.device)
        positive[torch.arange(n, device=z.device), batch.partner] = True
        same = batch.relation[:, None] == batch.relation[None]
        return F.cross_entropy(s.masked_fill(same & ~positive, -torch.inf), batch.partner)

    def step(self, arrays: dict) -> float:
        """One update on a batch of relpt's sampler; the loss."""
        batch = PackedBatch(arrays, self.chunk, self.padded_to).to(self.device)
        with torch.autocast(self.device, torch.bfloat16, self.bf16):
            x = self.hidden(batch)
            mlm = self.mlm_loss(x, batch)
        loss = self.cp_loss(x, batch) + mlm
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
