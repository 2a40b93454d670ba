"""Inputs for every operation: one generator per operation, each yielding cases of plain and of awkward sizes.

A case is the arguments of one call. Outputs that the contract overwrites come filled with NaN, those it adds to with
random numbers, so that a result tells which of the two was done. Everything is seeded by the case's own name.
"""

# ruff: noqa: E741 (I and O are the names in ops.h)

import dataclasses
import functools
import itertools
import zlib

import numpy as np

from . import formulas
from .harness import RELU, TANH, AdamWStep, Dropout, Same, SGDStep, Xent


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """`rtol` is relative to the largest value of the row (last axis), or, when there is an `atol` (for all outputs or
    by output), to each element itself; rtol = 0 asks for the same bytes. Of bits of bfloat16 neighbours are equal then.
    What the `rooms` hold in the end is not said."""

    op: str
    name: str
    arguments: dict
    rtol: float = 1e-5
    atol: float | dict | None = None
    rooms: tuple = ()

    @property
    def id(self):
        return f"{self.op}-{self.name}"

    @functools.cached_property
    def scratch(self):
        """The sizes of an rp_extent, no more than this case needs."""
        a = self.arguments
        rows = max(a.get(size, 0) for size in "TRSG")
        cu_seqlens = a.get("cu_seqlens")
        longest = int(np.diff(cu_seqlens).max(initial=0)) if cu_seqlens is not None else 0
        widest = max(a.get("H", 0), a.get("I", 0), a.get("O", 0), a.get("F", 0), 3 * a.get("A", 0) * a.get("D", 0))
        weight = a.get("I", 0) * a.get("O", 0) + a.get("H", 0) * a.get("F", 0)
        if "qkv_weight" in a:
            weight = a["qkv_weight"].size
        return rows, widest, weight, longest, a.get("D", 0)

    def run(self, device):
        return device.call(self.op, rooms=self.rooms, **self.arguments)

    def check(self, got, want, what):
        want = {name: value for name, value in want.items() if name not in self.rooms}
        assert got.keys() == want.keys()
        for name, expected in want.items():
            atol = self.atol[name] if isinstance(self.atol, dict) and expected.dtype.kind == "f" else self.atol
            self._check_output(got[name], expected, atol, f"{what}: {name}")

    def _check_output(self, got, want, atol, what):
        assert got.shape == want.shape
        if got.dtype == np.uint16 and self.rtol > 0:
            got, want = (formulas.widen(bits)["out"].astype(np.float64) for bits in (got, want))
            assert (abs(got - want) <= 2.0**-7 * abs(want) + self.rtol).all(), f"{what} differs"
            return
        if got.dtype.kind in "iu" or self.rtol == 0:
            assert np.array_equal(got, want), f"{what} differs"
            return
        if got.size == 0:
            return
        want = want.astype(np.float64)
        assert np.isfinite(want).all(), f"{what}: the expected values are not finite"
        assert np.isfinite(got).all(), f"{what} is not finite"
        if atol is None:
            bound = np.broadcast_to(self.rtol * np.abs(want).max(axis=-1, keepdims=True), want.shape)
        else:
            bound = self.rtol * np.abs(want) + atol
        excess = np.abs(got - want) - bound
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        assert excess[worst] <= 0, f"{what}{list(map(int, worst))} is {got[worst]}, expected {want[worst]}"


class Draw:
    """Random arrays, a function of the case's name."""

    def __init__(self, name):
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def normal(self, *shape, scale=1.0, shift=0.0):
        return (scale * self.rng.standard_normal(shape) + shift).astype(np.float32)

    def integers(self, high, *shape):
        return self.rng.integers(0, high, shape).astype(np.int32)


def empty(*shape):
    """An output to be overwritten."""
    return np.full(shape, np.nan, np.float32)


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def dropout(p, lengths):
    """A dropout descriptor for a packed batch; the samples' numbers are not those of the sequences."""
    if p == 0:
        return Dropout(p=0.0, step=None)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    pos = np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else np.zeros(0)
    sample = (np.arange(len(lengths)) * 7 + 5) % 1009
    return Dropout(p, sample=sample.astype(np.int32), sequence=sequence.astype(np.int32), pos=pos.astype(np.int32))


# Lengths of the sequences of a batch. 300 tokens and more make a back end use all its threads.
ONE = (1,)
SHORT = (3, 1, 9)
MIXED = (5, 130, 1, 64, 17, 16, 33)
MANY = tuple(1 + (i * 37) % 40 for i in range(30))


def linear():
    for T, I, O in [
        (1, 1, 1),
        (5, 7, 3),
        (33, 17, 31),
        (1, 768, 5),
        (130, 64, 96),
        (257, 40, 72),
        (35, 2500, 40),  # more than a panel of the sum,
        (2100, 33, 50),
        (18, 5, 2100),  # of columns
        (0, 8, 4),
        (4, 8, 0),
    ]:
        size, d = f"T{T}-I{I}-O{O}", Draw(f"linear{T},{I},{O}")
        sizes = dict(T=T, I=I, O=O)
        inp, weight, bias, dout = d.normal(T, I), d.normal(O, I), d.normal(O), d.normal(T, O)
        forward = dict(out=empty(T, O), inp=inp, weight=weight, **sizes)
        yield Case("linear_forward", size, dict(forward, bias=bias))
        yield Case("linear_forward", f"{size}-no-bias", dict(forward, bias=None))
        dweight, dbias = d.normal(O, I), d.normal(O)
        backward = dict(dout=dout, inp=inp, weight=weight, **sizes)
        full = dict(dinp=empty(T, I), dweight=dweight, dbias=dbias, accumulate=0)
        yield Case("linear_backward", size, backward | full)
        yield Case("linear_backward", f"{size}-accumulate", backward | full | dict(dinp=d.normal(T, I), accumulate=1))
        if T == 33:
            for left_out in ("dinp", "dweight", "dbias"):
                yield Case("linear_backward", f"{size}-no-{left_out}", backward | full | {left_out: None})
        coarse = dict(act=empty(T, O), pre=empty(T, O), inp=inp, weight=weight, bias=bias, **sizes)
        yield Case("linear_gelu_forward", size, coarse)
        yield Case("linear_gelu_forward", f"{size}-alias", dict(coarse, pre=Same("act")), rooms=("pre",))


def embed():
    # few ids, so that tokens share them
    for T, H, V in [(1, 1, 1), (7, 5, 3), (40, 33, 6), (300, 131, 50), (700, 20, 2), (64, 1030, 1), (0, 8, 4)]:
        d = Draw(f"embed{T},{H}")
        P = 11
        index = dict(ids=d.integers(V, T), pos=d.integers(P, T), T=T, H=H)
        tables = dict(word=d.normal(V, H), position=d.normal(P, H), type=d.normal(H))
        yield Case("embed_forward", f"T{T}-H{H}", dict(out=empty(T, H), **tables, **index))
        grads = dict(dword=d.normal(V, H), dposition=d.normal(P, H), dtype=d.normal(H))
        yield Case("embed_backward", f"T{T}-H{H}", dict(grads, dout=d.normal(T, H), **index))


def dropout_and_add():
    for lengths, H, p in [
        (ONE, 1, 0.5),
        (SHORT, 33, 0.1),
        (MIXED, 100, 0.25),
        (MANY, 99, 0.1),
        (MIXED, 16, 0),
        ((), 8, 0.1),
    ]:
        T = sum(lengths)
        inp = Draw(f"dropout{T},{H}").normal(T, H)
        arguments = dict(d=dropout(p, lengths), T=T, H=H)
        name = f"T{T}-H{H}-p{p}"
        yield Case("dropout_forward", name, dict(out=empty(T, H), inp=inp, **arguments), 1e-6, 0.0)
        yield Case("dropout_forward", f"{name}-alias", dict(out=Same("inp"), inp=inp, **arguments), 1e-6, 0.0)
    for N in [0, 1, 17, 1000, 40003]:
        d = Draw(f"add{N}")
        a, b = d.normal(N), d.normal(N)
        yield Case("add_forward", f"N{N}", dict(out=empty(N), a=a, b=b, N=N), rtol=0)
        yield Case("add_forward", f"N{N}-alias-a", dict(out=Same("a"), a=a, b=b, N=N), rtol=0)
        yield Case("add_forward", f"N{N}-alias-b", dict(out=Same("b"), a=a, b=b, N=N), rtol=0)


def _layernorm_pair(name, inp, d, eps=1e-12, rtol=1e-5):
    T, H = inp.shape
    gamma, beta = d.normal(H, scale=0.3, shift=1.0), d.normal(H)
    out = dict(out=empty(T, H), mean=empty(T), rstd=empty(T))
    forward = dict(out, inp=inp, gamma=gamma, beta=beta, eps=eps, T=T, H=H)
    yield Case("layernorm_forward", name, forward, rtol)
    yield Case("layernorm_forward", f"{name}-alias", dict(forward, out=Same("inp")), rtol)
    mean = inp.astype(np.float64).mean(axis=1)
    rstd = 1 / np.sqrt(inp.astype(np.float64).var(axis=1) + eps)
    saved = dict(mean=mean.astype(np.float32), rstd=rstd.astype(np.float32), gamma=gamma)
    grads = dict(dinp=empty(T, H), dgamma=d.normal(H), dbeta=d.normal(H), dout=d.normal(T, H))
    yield Case("layernorm_backward", name, dict(grads, inp=inp, **saved, T=T, H=H), rtol)


def layernorm():
    for T, H in [(1, 4), (5, 7), (33, 64), (9, 769), (40, 300), (6, 600), (5, 1030), (401, 101), (0, 16)]:
        d = Draw(f"layernorm{T},{H}")
        yield from _layernorm_pair(f"T{T}-H{H}", d.normal(T, H), d)
    d = Draw("layernorm special")
    # mean 1000, deviation 1: mean(x^2) - mean(x)^2 would lose the variance; float32 holds the mean to 3e-5
    yield from _layernorm_pair("far-from-zero", d.normal(20, 64, shift=1000.0), d, rtol=2e-4)
    yield from _layernorm_pair("large", d.normal(20, 64, scale=1e8), d)
    constant = np.full((3, 48), 2.5, np.float32)  # variance 0, exactly in every summation order
    yield from _layernorm_pair("constant-rows", constant, d, eps=1e-5)


def residual_layernorm():
    for lengths, H, p in [
        (ONE, 8, 0.0),
        (SHORT, 33, 0.1),
        (MIXED, 64, 0.1),
        (MANY, 99, 0.0),
        (SHORT, 1032, 0.1),
        ((), 8, 0.1),
    ]:
        T = sum(lengths)
        name, d = f"T{T}-H{H}-p{p}", Draw(f"residual{T},{H}")
        inp, residual, gamma, beta = d.normal(T, H), d.normal(T, H), d.normal(H), d.normal(H)
        rest = dict(d=dropout(p, lengths), T=T, H=H)
        forward = dict(out=empty(T, H), sum=empty(T, H), mean=empty(T), rstd=empty(T), inp=inp, residual=residual)
        forward |= dict(gamma=gamma, beta=beta, eps=1e-12, **rest)
        yield Case("residual_layernorm_forward", name, forward)
        yield Case("residual_layernorm_forward", f"{name}-alias", dict(forward, sum=Same("inp")))
        yield Case("residual_layernorm_forward", f"{name}-unkept", dict(forward, sum=None), rooms=("sum",))
        total = d.normal(T, H)
        saved = dict(mean=total.mean(axis=1), rstd=1 / total.std(axis=1), sum=total, gamma=gamma)
        grads = dict(dinp=empty(T, H), dresidual=empty(T, H), dgamma=d.normal(H), dbeta=d.normal(H))
        yield Case("residual_layernorm_backward", name, dict(grads, dout=d.normal(T, H), **saved, **rest))


def gelu():
    special = np.float32([0.0, -0.0, 1e-30, -1e-30, 5.5, -5.5, 13.0, -13.0, 60.0, -60.0, 1e10, -1e10])
    inputs = {f"N{n}": Draw(f"gelu{n}").normal(n, scale=3.0) for n in (0, 1, 31, 1000, 50001)}
    inputs |= {"special": special, "sweep": np.linspace(-12, 12, 4801, dtype=np.float32)}
    for name, inp in inputs.items():
        N = len(inp)
        dout = Draw(f"dgelu{name}").normal(N)
        # (1 + erf) / 2 in float32 has an absolute error of about 1e-7, times |x| < 6 where it is not 0 or 1
        yield Case("gelu_forward", name, dict(out=empty(N), inp=inp, N=N), 1e-5, 5e-7)
        yield Case("gelu_forward", f"{name}-alias", dict(out=Same("inp"), inp=inp, N=N), 1e-5, 5e-7)
        yield Case("gelu_backward", name, dict(dinp=empty(N), dout=dout, inp=inp, N=N), 1e-5, 2e-6)
        yield Case("gelu_backward", f"{name}-alias", dict(dinp=Same("dout"), dout=dout, inp=inp, N=N), 1e-5, 2e-6)


def narrow():
    halfway = np.uint32([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0xBF818000]).view(np.float32)  # ties, and next
    extreme = np.float32([0.0, -0.0, 3.4e38, -3.4e38, np.inf, -np.inf, 1e-30, 1e-38])
    inputs = {f"N{n}": Draw(f"narrow{n}").normal(n, scale=3.0) for n in (0, 1, 31, 1000, 50001)}
    for name, inp in (inputs | {"ties": halfway, "extreme": extreme}).items():
        N = len(inp)
        yield Case("narrow", name, dict(kept=np.zeros(N, np.uint16), inp=inp, N=N), rtol=0)
        yield Case("widen", name, dict(out=empty(N), kept=formulas.narrow(inp)["kept"], N=N), rtol=0)


def attention_saved(arguments):
    """out and lse of the forward pass, in float64, for the backward cases (a mask needs no saving)."""
    return {name: value.astype(np.float32) for name, value in formulas.attention_forward(out=None, **arguments).items()}


def asking(draw, lengths, share):
    """cu_queries and query_pos: of each sequence all tokens, or a share of them drawn at random (maybe none)."""
    places = [np.arange(n) if share == 1 else np.flatnonzero(draw.rng.random(n) < share) for n in lengths]
    return offsets([len(p) for p in places]), np.concatenate([*places, []]).astype(np.int32)


def attention():
    plain = [
        (ONE, 1, 1),
        (ONE, 3, 8),
        (SHORT, 2, 5),
        (MIXED, 2, 16),
        (MIXED, 3, 20),
        (MANY, 4, 64),
        ((515,), 1, 16),
        ((70, 3), 2, 100),
        (SHORT, 1, 130),
        ((1, 1, 1, 1), 2, 7),
        ((), 2, 8),
    ]
    cases = [(lengths, A, D, p, 1.0, 1e-5, None) for (lengths, A, D), p in itertools.product(plain, (0.0, 0.1))]
    # Scores of several hundred overflow exp without the maximum taken off; their float32 error grows with them.
    cases.append((SHORT, 2, 16, 0.0, 12.0, 1e-3, 2e-3))
    cases.append((tuple(range(1, 34)), 1, 6, 0.5, 1.0, 1e-5, None))
    for (lengths, A, D, p, scale, rtol, atol), share in itertools.product(cases, (1, 0.3)):
        T, S, H = sum(lengths), len(lengths), A * D
        name = f"S{S}-T{T}-A{A}-D{D}-p{p}-x{scale:g}" + ("" if share == 1 else "-some")
        draw = Draw(f"attention{name}")
        cu_queries, query_pos = asking(draw, lengths, share)
        R, (q_stride, kv_stride) = len(query_pos), (H, 2 * H + 3) if share == 1 else (2 * H, H)
        inputs = dict(
            q=draw.normal(R, q_stride) * scale, k=draw.normal(T, kv_stride) * scale, v=draw.normal(T, kv_stride)
        )
        inputs = {key: value.astype(np.float32) for key, value in inputs.items()}
        rest = dict(cu_seqlens=offsets(lengths), cu_queries=cu_queries, query_pos=query_pos, d=dropout(p, lengths))
        rest |= dict(S=S, R=R, A=A, D=D, q_stride=q_stride, kv_stride=kv_stride)
        yield Case("attention_forward", name, dict(out=empty(R, H), lse=empty(A, R), **inputs, **rest), rtol, atol)
        grads = dict(dq=draw.normal(R, q_stride), dk=draw.normal(T, kv_stride), dv=draw.normal(T, kv_stride))
        saved = attention_saved({**inputs, **rest})
        # A query of one key has no gradient but rounding: no row's own size measures the errors of dq and dk.
        arguments = dict(**grads, dout=draw.normal(R, H), **saved, **inputs, **rest)
        yield Case("attention_backward", name, arguments, rtol, atol or 1e-5)


def feed_forward_of(T, H, F):
    name, d = f"T{T}-H{H}-F{F}", Draw(f"feed forward{T},{H},{F}")
    up, down = d.normal(F, H, scale=H**-0.5), d.normal(H, F, scale=F**-0.5)
    inp, sizes, room = d.normal(T, H), dict(T=T, H=H, F=F), dict(act=empty(T, F))
    forward = dict(out=empty(T, H), pre=empty(T, F), inp=inp, up_weight=up, up_bias=d.normal(F), **sizes, **room)
    forward |= dict(down_weight=down, down_bias=d.normal(H))
    gradients = dict(dup_weight=d.normal(F, H), dup_bias=d.normal(F))
    gradients |= dict(ddown_weight=d.normal(H, F), ddown_bias=d.normal(H))
    backward = dict(dinp=d.normal(T, H), **gradients, dact=empty(T, F), dout=d.normal(T, H), inp=inp)
    backward |= dict(up_weight=up, down_weight=down, **sizes, **room)
    pre = formulas.linear_forward(inp, up, forward["up_bias"])["out"].astype(np.float32)
    kept = np.zeros((T, F), np.uint16)
    yield Case("feed_forward_forward", name, dict(forward, kept=None, keep=1), 3e-5, rooms=("act",))
    yield Case("feed_forward_forward", f"{name}-kept", dict(forward, kept=kept, keep=1), 3e-5, rooms=("pre", "act"))
    nothing = dict(forward, pre=None, kept=None, keep=0)
    yield Case("feed_forward_forward", f"{name}-nothing", nothing, 3e-5, rooms=("act",))
    bits, rooms = formulas.narrow(pre)["kept"], ("act", "dact")
    yield Case("feed_forward_backward", name, dict(backward, pre=pre, kept=None), 3e-5, 1e-4, rooms)
    yield Case("feed_forward_backward", f"{name}-kept", dict(backward, pre=None, kept=bits), 3e-5, 1e-4, rooms)


def feed_forward():
    for sizes in [(1, 1, 1), (5, 7, 3), (33, 16, 40), (130, 24, 96), (300, 8, 20), (20, 16, 8), (0, 8, 4)]:
        yield from feed_forward_of(*sizes)


def _self_attention(name, lengths, A, D, p, share):
    T, S, H = sum(lengths), len(lengths), A * D
    d = Draw(f"self-attention{name}")
    cu_seqlens = offsets(lengths)
    cu_queries, query_pos = asking(d, lengths, share)
    R, numbers = len(query_pos), (2 * T + len(query_pos)) * H
    rows = np.repeat(cu_seqlens[:-1], np.diff(cu_queries)) + query_pos
    inp = d.normal(T, H)
    rest = dict(inp=inp, asking=inp[rows], cu_seqlens=cu_seqlens, cu_queries=cu_queries, query_pos=query_pos)
    rest |= dict(d=dropout(p, lengths), S=S, T=T, R=R, A=A, D=D)
    weights = dict(qkv_weight=d.normal(3 * H, H, scale=H**-0.5), out_weight=d.normal(H, H, scale=H**-0.5))
    forward = dict(out=empty(R, H), lse=empty(A, R), attended=empty(R, H), qkv=empty(numbers), **rest, **weights)
    forward |= dict(qkv_bias=d.normal(3 * H), out_bias=d.normal(H))
    gradients = dict(dqkv_weight=d.normal(3 * H, H), dqkv_bias=d.normal(3 * H), dout_weight=d.normal(H, H))
    gradients |= dict(dout_bias=d.normal(H), dasking=d.normal(R, H), dinp=None if R == T else empty(T, H))
    backward = dict(**gradients, dqkv=empty(numbers), dattended=empty(R, H), attended=empty(R, H), lse=empty(A, R))
    backward |= dict(dout=d.normal(R, H), **rest, **weights)
    saved = formulas.self_attention_forward(**forward, kept=None, keep=1)["qkv"].astype(np.float32)
    return forward, backward, saved


def self_attention():
    plain = [(ONE, 1, 1), (SHORT, 2, 5), (MIXED, 2, 16), (MANY, 3, 8), ((70, 3), 1, 40), (SHORT, 1, 130), ((), 2, 8)]
    for (lengths, A, D), p, share in itertools.product(plain, (0.0, 0.1), (1, 0.3)):
        name = f"S{len(lengths)}-T{sum(lengths)}-A{A}-D{D}-p{p}" + ("" if share == 1 else "-some")
        forward, backward, saved = _self_attention(name, lengths, A, D, p, share)
        bits = formulas.narrow(saved)["kept"]
        yield Case("self_attention_forward", name, dict(forward, kept=None, keep=1), 3e-5, 1e-5, ("attended",))
        nothing = dict(forward, kept=None, keep=0)
        yield Case("self_attention_forward", f"{name}-nothing", nothing, 3e-5, 1e-5, ("attended", "qkv"))
        # A number between two of bfloat16 may be rounded to either, and then it is a little of all that follows.
        rooms = ("attended", "qkv")
        yield Case(
            "self_attention_forward", f"{name}-kept", dict(forward, kept=np.zeros_like(bits), keep=1), 1e-2, 1e-2, rooms
        )
        rooms = ("attended", "dattended", "dqkv", "qkv")
        yield Case("self_attention_backward", name, dict(backward, qkv=saved, kept=None), 3e-5, 1e-4, rooms)
        again = dict(backward, qkv=np.full_like(saved, np.nan), kept=bits)
        yield Case("self_attention_backward", f"{name}-kept", again, 3e-5, 1e-4, rooms)


def rows():
    for R, T, H, stride in [(0, 4, 8, 8), (1, 1, 1, 1), (6, 5, 7, 7), (9, 20, 33, 100), (500, 60, 131, 256)]:
        d = Draw(f"rows{R},{T},{H}")
        rest = dict(stride=stride, rows=d.integers(T, R), R=R, H=H)
        name = f"R{R}-H{H}-stride{stride}"
        wide = d.normal(R, stride)  # what stands beside the column block has to stay
        yield Case("rows_gather", name, dict(out=wide, inp=d.normal(T, H), **rest), rtol=0)
        yield Case("rows_scatter_add", name, dict(dinp=d.normal(T, H), dout=wide, **rest), rtol=0)


def rows_dot():
    for R, H, stride, inp_stride in [(0, 4, 1, 4), (1, 1, 1, 1), (7, 33, 2, 33), (50, 8, 1, 21), (300, 131, 2, 262)]:
        d = Draw(f"rows_dot{R},{H}")
        rest = dict(stride=stride, a=d.normal(R, inp_stride), b=d.normal(R, inp_stride))
        rest |= dict(inp_stride=inp_stride, R=R, H=H)
        name, wide = f"R{R}-H{H}-stride{stride}-{inp_stride}", d.normal(R, stride)
        yield Case("rows_dot_forward", name, dict(out=wide, **rest), atol=1e-5 * H**0.5)
        da, db = d.normal(R, inp_stride), d.normal(R, inp_stride)  # what stands beside the rows has to stay
        yield Case("rows_dot_backward", name, dict(da=da, db=db, dout=wide, **rest), rtol=0)


def mean():
    for lengths, H, stride in [(ONE, 1, 1), (SHORT, 7, 9), (MIXED, 33, 33), (MANY, 131, 300), ((), 8, 8)]:
        S, T = len(lengths), sum(lengths)
        d = Draw(f"mean{T},{H}")
        bounds = offsets(lengths)
        # Whole sequences, and of each the rows from its middle to its last.
        parts = {"": (bounds[:-1], bounds[1:]), "-part": (bounds[:-1] + np.array(lengths, np.int32) // 2, bounds[1:])}
        for part, (first, end) in parts.items():
            rest = dict(stride=stride, first=first.astype(np.int32), end=end.astype(np.int32), S=S, H=H)
            name, wide = f"S{S}-T{T}-H{H}-stride{stride}{part}", d.normal(S, stride)
            yield Case("mean_forward", name, dict(out=wide, inp=d.normal(T, H), **rest))
            yield Case("mean_backward", name, dict(dinp=d.normal(T, H), dout=wide, **rest))


def normalize():
    for R, H in [(0, 8), (1, 1), (5, 7), (33, 100), (300, 259)]:
        d = Draw(f"normalize{R},{H}")
        inp = d.normal(R, H)
        if R > 4:
            inp[1] *= 1e-14  # shorter than 1e-12, which takes the place of its norm
            inp[2] = 0.0
            inp[3] *= 1e-6
        name = f"R{R}-H{H}"
        yield Case("normalize_forward", name, dict(out=empty(R, H), norm=empty(R), inp=inp, R=R, H=H), atol=0.0)
        norm = np.maximum(np.linalg.norm(inp.astype(np.float64), axis=1), 1e-12)
        out = (inp / norm[:, None]).astype(np.float32)
        rest = dict(dout=d.normal(R, H), out=out, norm=norm.astype(np.float32), R=R, H=H)
        yield Case("normalize_backward", name, dict(dinp=empty(R, H), **rest))
        yield Case("normalize_backward", f"{name}-alias", dict(dinp=Same("dout"), **rest))


def activation():
    inputs = {f"N{n}": Draw(f"activation{n}").normal(n, scale=2.0) for n in (0, 1, 31, 40_001)}
    inputs["special"] = np.float32([0.0, -0.0, 1e-30, -1e-30, 9.5, -9.5, 100.0, -100.0])
    for (name, inp), (function, kind) in itertools.product(inputs.items(), {"tanh": TANH, "relu": RELU}.items()):
        N, name = len(inp), f"{function}-{name}"
        dout, rest = Draw(f"d{name}").normal(N), dict(N=N, kind=kind)
        yield Case("activation_forward", name, dict(out=empty(N), inp=inp, **rest), 1e-6, 1e-7)
        yield Case("activation_forward", f"{name}-alias", dict(out=Same("inp"), inp=inp, **rest), 1e-6, 1e-7)
        out = np.tanh(inp) if kind == TANH else np.maximum(inp, 0)
        # 1 - out^2 loses what out has lost where tanh is nearly 1
        yield Case("activation_backward", name, dict(dinp=empty(N), dout=dout, out=out, **rest), 1e-5, 5e-7)
        yield Case(
            "activation_backward", f"{name}-alias", dict(dinp=Same("dout"), dout=dout, out=out, **rest), 1e-5, 5e-7
        )


def window():
    for lengths, W, H in [
        (ONE, 1, 1),
        (ONE, 3, 5),
        (SHORT, 3, 7),
        (SHORT, 4, 2),
        (MIXED, 5, 33),
        (MANY, 2, 65),
        ((), 3, 8),
    ]:
        S, T = len(lengths), sum(lengths)
        d, name = Draw(f"window{T},{W},{H}"), f"S{S}-T{T}-W{W}-H{H}"
        rest = dict(cu_seqlens=offsets(lengths), S=S, W=W, H=H)
        yield Case("window_forward", name, dict(out=empty(T, W, H), inp=d.normal(T, H), **rest), rtol=0)
        yield Case("window_backward", name, dict(dinp=empty(T, H), dout=d.normal(T, W, H), **rest))


def segment_max():
    pieces = (2, 0, 1, 0, 0, 5, 7, 0)  # some of them without a row
    for lengths, H in [(ONE, 1), (SHORT, 5), (pieces, 7), (MIXED, 33), (MANY, 230), ((0, 0), 4), ((), 8)]:
        G, T = len(lengths), sum(lengths)
        d, name = Draw(f"segment max{G},{T},{H}"), f"G{G}-T{T}-H{H}"
        inp = np.round(d.normal(T, H), 1)  # so that some are equal
        inp[1::4] -= 100.0  # and some segments have numbers below 0 alone
        rest = dict(cu_segments=offsets(lengths), G=G, H=H)
        row = np.full((G, H), -7, np.int32)
        yield Case("segment_max_forward", name, dict(out=empty(G, H), row=row, inp=inp, **rest), rtol=0)
        row = formulas.segment_max_forward(inp=inp, **rest)["row"]
        yield Case("segment_max_backward", name, dict(dinp=empty(T, H), dout=d.normal(G, H), row=row, **rest), rtol=0)


def _xent(name, logits, x, rtol=2e-5, error=1e-6):
    """`error`: of z = scale * logits where it is largest, in float32; it is the error of -log p, and of p - 1."""
    R, C = logits.shape
    outputs = dict(loss=empty(R), correct=np.full(R, -7, np.int32))
    atol = dict(logits=error * x.scale * x.weight, loss=5 * error)
    return Case("softmax_xent", name, dict(logits=logits, **outputs, x=x, R=R, C=C), rtol, atol)


def _pairs(d, R):
    """Row r's partner is column r ^ 1, itself is skipped: the in-batch loss over pairs."""
    index = np.arange(R, dtype=np.int32)
    group = d.integers(max(2, R // 4), (R + 1) // 2).repeat(2)[:R]  # partners share their group
    return dict(target=index ^ 1, skip=index, row_group=group, col_group=group)


def softmax_xent():
    for R, C in [(0, 5), (1, 1), (3, 1), (7, 33), (20, 1000), (130, 257)]:
        d = Draw(f"xent{R},{C}")
        target = d.integers(C, R)
        target[1::5] = -1  # rows that are not counted
        yield _xent(f"plain-R{R}-C{C}", d.normal(R, C, scale=2.0), Xent(target, scale=1.0, weight=0.25))
        skip = np.where((np.arange(R) % 2 == 0) & (C > 1), (target + 1) % C, -1).astype(np.int32)
        x = Xent(target, skip=skip, scale=1.5, weight=1.0)
        yield _xent(f"skip-R{R}-C{C}", d.normal(R, C), x)
    for R, supervised in itertools.product((2, 8, 64, 200), (0, 1)):
        d = Draw(f"pairs{R}")
        cosine = np.tanh(d.normal(R, R, scale=0.5))
        x = Xent(**_pairs(d, R), supervised=supervised, scale=20.0, weight=1.0 / R)
        yield _xent(f"{'supervised' if supervised else 'pairs'}-R{R}", cosine, x)
    for smoothing in (0.1, 0.6):
        d = Draw(f"smoothing{smoothing}")
        plain = Xent(d.integers(33, 9), scale=1.5, weight=0.2, smoothing=smoothing)
        yield _xent(f"smoothed-{smoothing}", d.normal(9, 33, scale=2.0), plain)
        masked = Xent(**_pairs(d, 24), supervised=1, scale=5.0, weight=1 / 24, smoothing=smoothing)
        yield _xent(f"smoothed-supervised-{smoothing}", np.tanh(d.normal(24, 24)), masked)
    yield from _xent_special()


def _xent_special():
    d = Draw("xent special")
    target = d.integers(40, 12)
    yield _xent("huge-logits", d.normal(12, 40, scale=1e4), Xent(target, scale=2.0), error=5e-3)
    ties = np.zeros((4, 6), np.float32)  # the first of equals wins: right, wrong, wrong, right once 0 is skipped
    x = Xent(np.int32([0, 1, 5, 1]), skip=np.int32([-1, -1, -1, 0]))
    yield _xent("ties", ties, x)
    alone = Xent(np.int32([2, 0]), row_group=np.int32([4, 4]), col_group=np.int32([4, 4, 4]))
    yield _xent("target-is-the-only-candidate", d.normal(2, 3), alone)
    none = Xent(np.int32([-1, -1]), skip=np.int32([0, 1]))
    yield _xent("no-row-counts", d.normal(2, 3), none)
    mixed = Xent(np.int32([-1, 3, 0, -1, 1]), row_group=d.integers(2, 5), col_group=d.integers(2, 9), supervised=1)
    yield _xent("supervised-uncounted-rows", d.normal(5, 9), mixed)
    unknown = Xent(np.int32([0, 1, 2]), row_group=np.int32([-1, -1, 3]), col_group=np.int32([-1, -1, 3, 3]))
    yield _xent("negative-groups-match-none", d.normal(3, 4), unknown)


def adamw():
    for N in [0, 1, 31, 1000, 100003]:
        d = Draw(f"adamw{N}")
        inp = d.normal(N, scale=0.5)
        yield Case("sum_squares", f"N{N}", dict(out=np.full(1, np.nan), inp=inp, N=N), 1e-12)
        for name, h in {
            "first-step": AdamWStep(),
            "late-clipped": AdamWStep(lr=0.05, correction1=1.0, correction2=1.0, grad_scale=0.125, weight_decay=0.1),
            "no-decay": AdamWStep(weight_decay=0.0, beta2=0.98, eps=1e-6, correction1=0.19, correction2=0.0396),
        }.items():
            state = dict(param=d.normal(N), m=d.normal(N, scale=0.1), v=d.normal(N, scale=0.1) ** 2)
            yield Case("adamw_update", f"N{N}-{name}", dict(state, grad=d.normal(N), h=h, N=N))
    zeros = {name: np.zeros(20, np.float32) for name in ("m", "v", "grad")}
    param = Draw("adamw zero").normal(20)
    yield Case("adamw_update", "zero-gradient", dict(param=param, **zeros, h=AdamWStep(), N=20))


def sgd():
    for N, (name, h) in itertools.product(
        [0, 1, 31, 100_003],
        {
            "plain": SGDStep(momentum=0.0, weight_decay=0.0),
            "momentum": SGDStep(grad_scale=0.125),
            "decay": SGDStep(momentum=0.5, weight_decay=0.2, lr=0.05),
        }.items(),
    ):
        d = Draw(f"sgd{N}{name}")
        rest = dict(param=d.normal(N), grad=d.normal(N), h=h, N=N)
        yield Case("sgd_update", f"N{N}-{name}", dict(rest, m=d.normal(N, scale=0.1)))
        yield Case("sgd_update", f"N{N}-{name}-no-momentum", dict(rest, m=None))


@functools.cache
def all_cases():
    families = (linear, embed, dropout_and_add, layernorm, residual_layernorm, gelu, attention, rows, rows_dot, mean)
    families += (
        feed_forward,
        self_attention,
        narrow,
        normalize,
        activation,
        window,
        segment_max,
        softmax_xent,
        adamw,
        sgd,
    )
    return tuple(case for family in families for case in family())


def cases_of(*ops):
    return [case for case in all_cases() if case.op in ops]
