"""The job of `relpt pretrain` in PyTorch, as fast as it gets: the opponent of train_cpu.py and train_gpu.py.

Packed rows for every linear layer, scaled_dot_product_attention on runs of sequences of near-equal length (or, on a
GPU, on a jagged tensor: FlashAttention's form for any lengths), the MLM head on masked rows alone, fused AdamW. Two
other forms: buckets of sequences of near-equal length, each padded to its longest and run through all layers by itself,
which is what one writes without packing; and as the published recipe does it, padded to the maximal length with the MLM
head on every position. It trains on relpt's own batches, so that both sides do the same work; in micro-batches, whose
pairs are contrasted with those of the same one alone, it does a little less.
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
        self.padded = pad_to is not None
        self.ends, self.longest = torch.from_numpy(starts), int(self.lengths[0])

    def states(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Rows of the encoder's output x for tokens of the batch."""
        return x[self.back[tokens] if self.padded else tokens]

    def to(self, device: str) -> PackedBatch:
        """The same with its tensors on the device."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device, non_blocking=True))
        self.chunks = [(n, width, None if mask is None else mask.to(device)) for n, width, mask in self.chunks]
        return self


def micro_batches(batch: dict, pairs: int) -> list[dict]:
    """relpt's batch cut into batches of so many pairs; the last one may have fewer."""
    cu, found = batch["cu_seqlens"].astype(np.int64), []
    for first in range(0, len(cu) - 1, 2 * pairs):
        ends = cu[first : first + 2 * pairs + 1]
        tokens, samples = slice(ends[0], ends[-1]), slice(first, first + 2 * pairs)
        inside = (batch["mlm_row"] >= ends[0]) & (batch["mlm_row"] < ends[-1])
        part = {name: batch[name][tokens] for name in ("ids", "pos")}
        part |= {name: batch[name][samples] - ends[0] for name in ("head", "tail")}
        part |= {"mlm_row": batch["mlm_row"][inside] - ends[0], "mlm_label": batch["mlm_label"][inside]}
        part |= {"relation": batch["relation"][samples], "cu_seqlens": ends - ends[0]}
        found.append(part)
    return found


def buckets(batch: dict, size: int) -> list[PackedBatch]:
    """Batches of `size` sequences of near-equal length, each padded to its longest, with their samples at the end."""
    cu = batch["cu_seqlens"].astype(np.int64)
    lengths, found = np.diff(cu), []
    for members in np.array_split(np.argsort(-lengths, kind="stable"), -(-len(lengths) // size)):
        rows = np.concatenate([np.arange(cu[i], cu[i + 1]) for i in members])
        place = np.full(cu[-1], -1)
        place[rows] = np.arange(len(rows))
        part = {name: batch[name][rows] for name in ("ids", "pos")}
        part |= {name: place[batch[name][members]] for name in ("head", "tail")}
        masked = place[batch["mlm_row"]]
        part |= {"mlm_row": masked[masked >= 0], "mlm_label": batch["mlm_label"][masked >= 0]}
        part |= {"relation": batch["relation"][members], "cu_seqlens": np.cumsum([0, *lengths[members]])}
        found.append(PackedBatch(part, len(members), int(lengths[members].max())))
        found[-1].samples = torch.from_numpy(members)
    return found


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
        q, k, v = (  # contiguous, which FlashAttention makes them anyway and the other forms ask for
            torch.nested.nested_tensor_from_jagged(part.contiguous(), batch.ends, max_seqlen=batch.longest).transpose(
                1, 2
            )
            for part in qkv.view(len(qkv), 3, self.heads, -1).unbind(1)
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
        bucket: int | None = None,
        jagged: bool = False,
        compiled: bool = False,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        self.device, self.chunk, self.bucket, self.at_once = device, chunk, bucket, at_once
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
        padded = batch.padded
        ids, positions = (
            (batch.ids[batch.rows], batch.positions[batch.rows]) if padded else (batch.ids, batch.positions)
        )
        x = self.norm(self.word(ids) + self.position(positions) + self.segment.weight[0])
        x = F.dropout(x, self.p)
        for layer in self.layers:
            x = layer(x, batch, padded)
        return x

    def mlm_loss(self, found: list[tuple[torch.Tensor, PackedBatch]]) -> torch.Tensor:
        rows, targets = [], []
        for x, batch in found:
            if self.padded_to is None:
                rows.append(batch.states(x, batch.masked))
                targets.append(batch.label)
            else:  # every position, the others ignored by the loss
                rows.append(x)
                targets.append(torch.full((len(x),), -100, device=x.device))
                targets[-1][batch.back[batch.masked]] = batch.label
        x = self.mlm_norm(F.gelu(self.mlm_dense(torch.cat(rows))))
        return F.cross_entropy(F.linear(x, self.word.weight, self.mlm_bias).float(), torch.cat(targets))

    def cp_loss(self, found: list[tuple[torch.Tensor, PackedBatch]]) -> torch.Tensor:
        markers = [torch.cat([batch.states(x, batch.head), batch.states(x, batch.tail)], 1) for x, batch in found]
        z = F.normalize(torch.cat(markers).float(), dim=1)
        relation = torch.cat([batch.relation for _, batch in found])
        if self.bucket is not None:  # back to the order of the samples
            order = torch.argsort(torch.cat([batch.samples for _, batch in found]))
            z, relation = z[order], relation[order]
        s = z @ z.T / 0.05
        n = len(z)
        partner = torch.arange(n, device=z.device) ^ 1
        positive = torch.zeros(n, n, dtype=torch.bool, device=z.device)
        positive[torch.arange(n, device=z.device), partner] = True
        same = relation[:, None] == relation[None]
        return F.cross_entropy(s.masked_fill(same & ~positive, -torch.inf), partner)

    def losses(self, arrays: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """CP's, the mean over the samples, and MLM's, over the masked tokens."""
        if self.bucket is None:
            batches = [PackedBatch(arrays, self.chunk, self.padded_to).to(self.device)]
        else:
            batches = [batch.to(self.device) for batch in buckets(arrays, self.bucket)]
        with torch.autocast(self.device, torch.bfloat16, self.bf16):
            found = [(self.hidden(batch), batch) for batch in batches]
            mlm = self.mlm_loss(found)
        return self.cp_loss(found), mlm

    def step(self, arrays: dict) -> float:
        """One update on a batch of relpt's sampler; the loss."""
        loss: torch.Tensor | float = 0.0
        for part in micro_batches(arrays, self.at_once) if self.at_once else [arrays]:
            cp, mlm = self.losses(part)
            samples, masked = (len(part[name]) / len(arrays[name]) for name in ("relation", "mlm_label"))
            mean = samples * cp + masked * mlm
            mean.backward()
            loss = loss + mean.detach()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
