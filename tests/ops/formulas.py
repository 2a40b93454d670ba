"""The operations as plain NumPy formulas in float64, written from the contracts in ops.h.

Each takes the arguments of a call (and ignores what it does not need) and returns {output: array}.
"""

import itertools
import math

import numpy as np

from . import philox
from .harness import TANH


def wide(array):
    return np.asarray(array, np.float64)


# -- linear, embedding, dropout ------------------------------------------------------------------------------------


def linear_forward(inp, weight, bias, **_):
    out = wide(inp) @ wide(weight).T
    return {"out": out if bias is None else out + wide(bias)}


def linear_backward(dinp, dweight, dbias, dout, inp, weight, accumulate, **_):
    out = {}
    if dinp is not None:
        out["dinp"] = wide(dout) @ wide(weight) + (wide(dinp) if accumulate else 0.0)
    if dweight is not None:
        out["dweight"] = wide(dweight) + wide(dout).T @ wide(inp)
    if dbias is not None:
        out["dbias"] = wide(dbias) + wide(dout).sum(axis=0)
    return out


def linear_gelu_forward(inp, weight, bias, **_):
    pre = linear_forward(inp, weight, bias)["out"]
    return {"pre": pre, "act": gelu_forward(pre)["out"]}


def embed_forward(ids, pos, word, position, type, **_):
    return {"out": wide(word)[ids] + wide(position)[pos] + wide(type)}


def embed_backward(dword, dposition, dtype, dout, ids, pos, **_):
    dword, dposition = wide(dword).copy(), wide(dposition).copy()
    np.add.at(dword, ids, wide(dout))
    np.add.at(dposition, pos, wide(dout))
    return {"dword": dword, "dposition": dposition, "dtype": wide(dtype) + wide(dout).sum(axis=0)}


def dropout_mask(d, T, H):
    """(T,H) of 0 and 1 / (1 - p)."""
    if d.threshold == 0:
        return np.ones((T, H))
    masks = [philox.keep(d, d.sample[d.sequence[t]], [d.pos[t]], H)[0] for t in range(T)]
    return np.array(masks).reshape(T, H)


def dropout_forward(inp, d, T, H, **_):
    return {"out": wide(inp) * dropout_mask(d, T, H)}


def add_forward(a, b, **_):
    return {"out": a + b}  # one rounding: the same float32 everywhere


# -- layer normalisation -------------------------------------------------------------------------------------------


def layernorm_forward(inp, gamma, beta, eps, **_):
    x = wide(inp)
    mean, rstd = x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + np.float32(eps))
    return {"out": (x - mean[:, None]) * rstd[:, None] * wide(gamma) + wide(beta), "mean": mean, "rstd": rstd}


def layernorm_backward(dgamma, dbeta, dout, inp, mean, rstd, gamma, H, **_):
    """By the Jacobian of the normalisation of each row: rstd (1 - 1/H - n n^T / H)."""
    n = (wide(inp) - wide(mean)[:, None]) * wide(rstd)[:, None]
    dn = wide(dout) * wide(gamma)
    jacobian = np.eye(H) - 1 / H - n[:, :, None] * n[:, None, :] / H
    return {
        "dinp": np.einsum("tij,tj->ti", jacobian, dn) * wide(rstd)[:, None],
        "dgamma": wide(dgamma) + (wide(dout) * n).sum(axis=0),
        "dbeta": wide(dbeta) + wide(dout).sum(axis=0),
    }


def residual_layernorm_forward(inp, residual, gamma, beta, d, eps, T, H, **_):
    total = dropout_forward(inp, d, T, H)["out"] + wide(residual)
    return {"sum": total, **layernorm_forward(total, gamma, beta, eps)}


def residual_layernorm_backward(dgamma, dbeta, dout, sum, mean, rstd, gamma, d, T, H, **_):
    grads = layernorm_backward(dgamma, dbeta, dout, sum, mean, rstd, gamma, H)
    dresidual = grads.pop("dinp")
    return {"dinp": dresidual * dropout_mask(d, T, H), "dresidual": dresidual, **grads}


# -- GELU ----------------------------------------------------------------------------------------------------------


def normal_cdf(x):
    return np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[np.float64])(x)


def gelu_forward(inp, **_):
    return {"out": wide(inp) * normal_cdf(wide(inp))}


def narrow(inp, **_):
    """The nearest of the two neighbours with zeros in the lower half, at a tie the even one."""
    bits = inp.view(np.uint32)
    below = bits & np.uint32(0xFFFF0000)
    lower, upper = wide(below.view(np.float32)), wide((below + np.uint32(0x10000)).view(np.float32))
    upper = np.where(np.isfinite(upper), upper, np.copysign(2.0**128, wide(inp)))  # beyond the largest stands infinity
    with np.errstate(invalid="ignore"):
        down, up = abs(wide(inp) - lower), abs(upper - wide(inp))
    even = (below >> 16) % 2 == 0
    kept = (
        np.where(np.isinf(inp) | (down < up) | ((down == up) & even), below, below + np.uint32(0x10000)) >> 16
    ).astype(np.uint16)
    return {"kept": kept, "inp": widen(kept)["out"]}


def widen(kept, **_):
    return {"out": (kept.astype(np.uint32) << 16).view(np.float32)}


def gelu_backward(dout, inp, **_):
    x = wide(inp)
    return {"dinp": wide(dout) * (normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))}


# -- attention -----------------------------------------------------------------------------------------------------


def _heads(q, k, v, cu_seqlens, cu_queries, query_pos, d, S, A, D):
    """For each head of each sequence: its queries, its tokens, its columns, q (m,D), k, v (n,D) and the mask (m,n)."""
    for s in range(S):
        asking, tokens = slice(*cu_queries[s : s + 2]), slice(*cu_seqlens[s : s + 2])
        for a in range(A):
            columns = slice(a * D, (a + 1) * D)
            sample = 0 if d.sample is None else d.sample[s]
            mask = philox.keep(d, sample, a * 65536 + query_pos[asking].astype(np.int64), tokens.stop - tokens.start)
            parts = (wide(rows[:, columns]) for rows in (q[asking], k[tokens], v[tokens]))
            yield a, asking, tokens, columns, *parts, mask


def attention_forward(out, q, k, v, cu_seqlens, cu_queries, query_pos, d, S, R, A, D, **_):
    out, lse = np.empty((R, A * D)), np.empty((A, R))
    heads = _heads(q, k, v, cu_seqlens, cu_queries, query_pos, d, S, A, D)
    for a, asking, _tokens, columns, x, y, z, mask in heads:
        scores = x @ y.T / math.sqrt(D)
        largest = scores.max(axis=1, keepdims=True)
        weights = np.exp(scores - largest)
        total = weights.sum(axis=1, keepdims=True)
        out[asking, columns] = (weights / total * mask) @ z
        lse[a, asking] = (largest + np.log(total))[:, 0]
    return {"out": out, "lse": lse}


def attention_backward(dq, dk, dv, dout, q, k, v, cu_seqlens, cu_queries, query_pos, d, S, A, D, **_):
    """From the inputs alone, without out and lse."""
    dq, dk, dv = (wide(x).copy() for x in (dq, dk, dv))  # what stands beside the columns stays
    heads = _heads(q, k, v, cu_seqlens, cu_queries, query_pos, d, S, A, D)
    for _a, asking, tokens, columns, x, y, z, mask in heads:
        scores = x @ y.T / math.sqrt(D)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        g = wide(dout[asking, columns])
        dp = g @ z.T * mask
        ds = p * (dp - (p * dp).sum(axis=1, keepdims=True)) / math.sqrt(D)
        dq[asking, columns], dk[tokens, columns], dv[tokens, columns] = ds @ y, ds.T @ x, (p * mask).T @ g
    return {"dq": dq, "dk": dk, "dv": dv}


# -- layers --------------------------------------------------------------------------------------------------------


def kept_or(values, kept):
    """What a backward pass reads: {"kept": bits}, and the values that they stand for; or the values as they are."""
    if kept is None:
        return {}, values
    bits = narrow(np.asarray(values, np.float32))["kept"]
    return {"kept": bits}, wide(widen(bits)["out"])


def feed_forward_forward(pre, kept, inp, up_weight, up_bias, down_weight, down_bias, keep, **_):
    values = linear_forward(inp, up_weight, up_bias)["out"]
    found = {} if not keep else {"pre": values} if kept is None else kept_or(values, kept)[0]
    return {**linear_forward(gelu_forward(values)["out"], down_weight, down_bias), **found}


def feed_forward_backward(
    dinp, dup_weight, dup_bias, ddown_weight, ddown_bias, dout, inp, pre, kept, up_weight, down_weight, **_
):
    values = wide(pre if kept is None else widen(kept)["out"])
    down = linear_backward(
        np.zeros_like(values), ddown_weight, ddown_bias, dout, gelu_forward(values)["out"], down_weight, 0
    )
    dpre = gelu_backward(down["dinp"], values)["dinp"]
    up = linear_backward(dinp, dup_weight, dup_bias, dpre, inp, up_weight, 1)
    gradients = {"dup_weight": up["dweight"], "dup_bias": up["dbias"]}
    return {"dinp": up["dinp"], **gradients, "ddown_weight": down["dweight"], "ddown_bias": down["dbias"]}


def _parts(values, T, R, H):
    """Queries, keys and values, views of their buffer."""
    if R < T:
        pairs = values[: T * 2 * H].reshape(T, 2 * H)
        return values[T * 2 * H :].reshape(R, H), pairs[:, :H], pairs[:, H:]
    columns = values.reshape(T, 3 * H)
    return columns[:, :H], columns[:, H : 2 * H], columns[:, 2 * H :]


def self_attention_forward(
    out, qkv, kept, inp, asking, qkv_weight, qkv_bias, out_weight, out_bias, T, R, A, D, keep, **rest
):
    H, values = A * D, np.zeros((2 * T + R) * A * D)
    for part, rows, i in zip(_parts(values, T, R, H), (asking, inp, inp), range(3), strict=True):
        block = slice(i * H, (i + 1) * H)
        part[:] = linear_forward(rows, qkv_weight[block], qkv_bias[block])["out"]
    found, values = kept_or(values, kept)
    q, k, v = _parts(values, T, R, H)
    attended = attention_forward(out, q, k, v, R=R, A=A, D=D, **rest)
    saved = {"lse": attended["lse"], **({} if not keep else {"qkv": values} if kept is None else found)}
    return {**linear_forward(attended["out"], out_weight, out_bias), **saved}


def self_attention_backward(
    dinp, dasking, dqkv_weight, dqkv_bias, dout_weight, dout_bias, qkv, kept, dout, inp, asking, qkv_weight, out_weight,
    T, R, A, D, **rest,
):  # fmt: skip
    H = A * D
    rest = {name: value for name, value in rest.items() if name not in ("lse", "dqkv", "dattended", "attended")}
    q, k, v = _parts(wide(qkv if kept is None else widen(kept)["out"]), T, R, H)
    attended = attention_forward(dout, q, k, v, R=R, A=A, D=D, **rest)
    out = linear_backward(np.zeros((R, H)), dout_weight, dout_bias, dout, attended["out"], out_weight, 0)
    zeros = (np.zeros((rows, H)) for rows in (R, T, T))
    d = attention_backward(*zeros, dout=out["dinp"], q=q, k=k, v=v, A=A, D=D, **rest)
    through = {name: d[name] @ wide(qkv_weight[i * H : (i + 1) * H]) for i, name in enumerate(("dq", "dk", "dv"))}
    pairs = through["dk"] + through["dv"]
    found = {
        "dqkv_weight": wide(dqkv_weight)
        + np.concatenate([d[name].T @ wide(rows) for name, rows in (("dq", asking), ("dk", inp), ("dv", inp))]),
        "dqkv_bias": wide(dqkv_bias) + np.concatenate([d[name].sum(axis=0) for name in ("dq", "dk", "dv")]),
        "dasking": wide(dasking) + through["dq"] + (pairs if R == T else 0),
        "dout_weight": out["dweight"],
        "dout_bias": out["dbias"],
        "lse": attended["lse"],
    }
    return found if R == T else {**found, "dinp": pairs}


# -- rows ----------------------------------------------------------------------------------------------------------


def rows_gather(out, inp, rows, H, **_):
    out = out.copy()
    out[:, :H] = inp[rows]
    return {"out": out}


def rows_scatter_add(dinp, dout, rows, H, **_):
    dinp = dinp.copy()
    for r, row in enumerate(rows):  # float32, in this order
        dinp[row] += dout[r, :H]
    return {"dinp": dinp}


def rows_dot_forward(out, a, b, H, **_):
    out = wide(out).copy()
    out[:, 0] = (wide(a)[:, :H] * wide(b)[:, :H]).sum(axis=1)
    return {"out": out}


def rows_dot_backward(da, db, dout, a, b, H, **_):
    da, db = da.copy(), db.copy()
    da[:, :H], db[:, :H] = dout[:, :1] * b[:, :H], dout[:, :1] * a[:, :H]
    return {"da": da, "db": db}


def mean_forward(out, inp, first, end, S, H, **_):
    out = wide(out).copy()
    for s in range(S):
        out[s, :H] = wide(inp[first[s] : end[s]]).mean(axis=0)
    return {"out": out}


def mean_backward(dinp, dout, first, end, S, H, **_):
    dinp = wide(dinp).copy()
    for s in range(S):
        dinp[first[s] : end[s]] += wide(dout[s, :H]) / (end[s] - first[s])
    return {"dinp": dinp}


def normalize_forward(inp, **_):
    norm = np.maximum(np.sqrt((wide(inp) ** 2).sum(axis=1)), 1e-12)
    return {"out": wide(inp) / norm[:, None], "norm": norm}


def normalize_backward(dout, out, norm, **_):
    along = (wide(out) * wide(dout)).sum(axis=1, keepdims=True)
    return {"dinp": (wide(dout) - wide(out) * along) / wide(norm)[:, None]}


# -- convolution and pooling ---------------------------------------------------------------------------------------


def activation_forward(inp, kind, **_):
    return {"out": np.tanh(wide(inp)) if kind == TANH else np.maximum(wide(inp), 0)}


def activation_backward(dout, out, kind, **_):
    return {"dinp": wide(dout) * (1 - wide(out) ** 2 if kind == TANH else wide(out) > 0)}


def _windows(cu_seqlens, S, W):
    """int (T,W): the row at each place of each row's window, T where there is none."""
    rows = np.full((cu_seqlens[S], W), cu_seqlens[S], np.int64)
    for first, end in itertools.pairwise(cu_seqlens):
        padded = np.concatenate([np.full(W, cu_seqlens[S]), np.arange(first, end), np.full(W, cu_seqlens[S])])
        for t in range(first, end):
            begin = t - first + W - (W - 1) // 2
            rows[t] = padded[begin : begin + W]
    return rows


def window_forward(inp, cu_seqlens, S, W, H, **_):
    return {"out": np.concatenate([inp, np.zeros((1, H), np.float32)])[_windows(cu_seqlens, S, W)]}


def window_backward(dout, cu_seqlens, S, W, H, **_):
    dinp = np.zeros((len(dout) + 1, H))
    np.add.at(dinp, _windows(cu_seqlens, S, W), wide(dout))
    return {"dinp": dinp[:-1]}


def segment_max_forward(inp, cu_segments, H, **_):
    parts = [(first, inp[first:end]) for first, end in itertools.pairwise(cu_segments)]
    row = [first + part.argmax(axis=0) if len(part) else np.full(H, -1) for first, part in parts]
    out = [part.max(axis=0) if len(part) else np.zeros(H, np.float32) for _, part in parts]
    return {"out": np.array(out).reshape(-1, H), "row": np.array(row).reshape(-1, H).astype(np.int32)}


def segment_max_backward(dinp, dout, row, H, **_):
    dinp = np.zeros_like(dinp)
    g, h = np.nonzero(row >= 0)
    dinp[row[g, h], h] = dout[g, h]
    return {"dinp": dinp}


# -- losses and optimiser ------------------------------------------------------------------------------------------


def xent_sets(x, R, C):
    """(candidates, positives): bool (R,C) each, of the rows that are counted."""
    target = np.arange(C) == np.asarray(x.target)[:, None]
    candidates, positives = np.ones((R, C), bool), target.copy()
    if x.skip is not None:
        candidates &= np.arange(C) != np.asarray(x.skip)[:, None]
    if x.row_group is not None:
        row_group = np.asarray(x.row_group)[:, None]
        same = (row_group == np.asarray(x.col_group)) & (row_group >= 0)
        if x.supervised:
            positives |= same & candidates
        else:
            candidates &= ~same | target
    counted = (np.asarray(x.target) >= 0)[:, None]
    return candidates & counted, positives & counted


def softmax_xent(logits, x, R, C, **_):
    candidates, positives = xent_sets(x, R, C)
    out = {"logits": np.zeros((R, C)), "loss": np.zeros(R), "correct": np.zeros(R, np.int32)}
    for r in range(R):
        chosen = np.flatnonzero(candidates[r])
        if len(chosen) == 0:
            continue
        z = np.float64(np.float32(x.scale)) * wide(logits[r, chosen])
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        smoothing = np.float64(np.float32(x.smoothing))
        q = (1 - smoothing) * positives[r, chosen] / positives[r].sum() + smoothing / len(chosen)  # what is wanted
        out["loss"][r] = -(q * log_p).sum()
        out["correct"][r] = positives[r, chosen[np.argmax(z)]]
        out["logits"][r, chosen] = x.weight * x.scale * (np.exp(log_p) - q)
    return out


def sum_squares(inp, **_):
    return {"out": np.array([math.fsum(wide(inp) ** 2)])}


def adamw_update(param, m, v, grad, h, **_):
    value = {name: np.float64(np.float32(number)) for name, number in vars(h).items()}
    g = value["grad_scale"] * wide(grad)
    m = value["beta1"] * wide(m) + (1 - value["beta1"]) * g
    v = value["beta2"] * wide(v) + (1 - value["beta2"]) * g**2
    step = (m / value["correction1"]) / (np.sqrt(v / value["correction2"]) + value["eps"])
    return {"param": wide(param) * (1 - value["lr"] * value["weight_decay"]) - value["lr"] * step, "m": m, "v": v}


def sgd_update(param, m, grad, h, **_):
    value = {name: np.float64(np.float32(number)) for name, number in vars(h).items()}
    g = value["grad_scale"] * wide(grad) + value["weight_decay"] * wide(param)
    if m is None:
        return {"param": wide(param) - value["lr"] * g}
    m = value["momentum"] * wide(m) + g
    return {"param": wide(param) - value["lr"] * m, "m": m}
