"""Backward passes of the reference against central differences of its forward passes.

Results are float32, so a difference over a step h is off by about 2**-24 |out| / h from rounding and by h^2 f'''/6
from curvature. Two steps, h and 2h, extrapolated (4 D(h) - D(2h)) / 3, leave h^4 of the latter: with h = 2**-5 both
are near 1e-6 where values and derivatives are of order 1. Maps that are linear take h = 1/2, without curvature.
The tolerance of 2e-4 of the largest gradient stands an order above that; a wrong formula is off by its own size.
"""

# ruff: noqa: E741 (I and O are the names in ops.h)

import numpy as np
import pytest

from .cases import Draw, asking, dropout, empty, offsets
from .harness import RELU, TANH, Device, Xent

pytestmark = pytest.mark.core

TOLERANCE = 2e-4
CURVED, LINEAR = 2.0**-5, 0.5


@pytest.fixture(scope="module")
def ref():
    with Device("ref") as device:
        device.set_scratch((2048, 256, 1 << 16, 64, 64))
        yield device


def numeric_gradient(loss, array, h):
    """d loss / d array, element by element; loss takes an array like `array`."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):

        def slope(step, index=index):
            up, down = array.copy(), array.copy()
            up[index] += np.float32(step)
            down[index] -= np.float32(step)
            # float32 may have rounded the step: divide by the one that was taken
            return (loss(up) - loss(down)) / (np.float64(up[index]) - np.float64(down[index]))

        gradient[index] = slope(h) if h == LINEAR else (4 * slope(h) - slope(2 * h)) / 3
    return gradient


def check(forward, inputs, gradients, dout, h, out="out"):
    """`forward(**inputs)` gives the outputs; `gradients` {input: its analytic gradient} for the loss <dout, out>."""
    for name, analytic in gradients.items():

        def loss(value, name=name):
            return float((dout.astype(np.float64) * forward(**{**inputs, name: value})[out]).sum())

        numeric = numeric_gradient(loss, inputs[name], h)
        assert np.abs(numeric).max() > 1e-3, f"d{name}: a gradient of nothing proves nothing"
        error = np.abs(numeric - analytic).max()
        assert error <= TOLERANCE * np.abs(numeric).max(), f"d{name} is off by {error}: {analytic} for {numeric}"


def zeros(array):
    return np.zeros_like(array)


@pytest.mark.parametrize("T", [1, 6])
def test_linear(ref, T):
    I, O, d = 5, 3, Draw("grad linear")
    sizes = dict(T=T, I=I, O=O)
    inputs = dict(inp=d.normal(T, I), weight=d.normal(O, I), bias=d.normal(O))
    dout = d.normal(T, O)
    grads = dict(dinp=empty(T, I), dweight=np.zeros((O, I), np.float32), dbias=np.zeros(O, np.float32))
    given = dict(dout=dout, inp=inputs["inp"], weight=inputs["weight"])
    got = ref.call("linear_backward", **grads, **given, accumulate=0, **sizes)
    check(
        lambda **x: ref.call("linear_forward", out=empty(T, O), **x, **sizes),
        inputs,
        dict(inp=got["dinp"], weight=got["dweight"], bias=got["dbias"]),
        dout,
        LINEAR,
    )


def test_embed(ref):
    T, H, d = 7, 4, Draw("grad embed")
    index = dict(ids=d.integers(3, T), pos=d.integers(4, T), T=T, H=H)
    inputs = dict(word=d.normal(3, H), position=d.normal(4, H), type=d.normal(H))
    dout = d.normal(T, H)
    got = ref.call("embed_backward", **{f"d{name}": zeros(value) for name, value in inputs.items()}, dout=dout, **index)
    gradients = {name: got[f"d{name}"] for name in inputs}
    check(lambda **x: ref.call("embed_forward", out=empty(T, H), **x, **index), inputs, gradients, dout, LINEAR)


def test_dropout_is_its_own_backward(ref):
    lengths, H, d = (3, 4), 6, Draw("grad dropout")
    T = sum(lengths)
    rest = dict(d=dropout(0.4, lengths), T=T, H=H)
    dout = d.normal(T, H)
    got = ref.call("dropout_forward", out=empty(T, H), inp=dout, **rest)["out"]
    inp = d.normal(T, H)

    def forward(inp):
        return ref.call("dropout_forward", out=empty(T, H), inp=inp, **rest)

    check(forward, dict(inp=inp), dict(inp=got), dout, LINEAR)


def test_gelu(ref):
    inp = np.linspace(-5, 5, 81, dtype=np.float32)
    dout = Draw("grad gelu").normal(81, shift=1.0)
    got = ref.call("gelu_backward", dinp=empty(81), dout=dout, inp=inp, N=81)["dinp"]

    def forward(inp):
        return ref.call("gelu_forward", out=empty(81), inp=inp, N=81)

    check(forward, dict(inp=inp), dict(inp=got), dout, CURVED)


@pytest.mark.parametrize(("T", "H"), [(1, 5), (4, 8)])
def test_layernorm(ref, T, H):
    d = Draw(f"grad layernorm{T}")
    rest = dict(eps=1e-5, T=T, H=H)
    inputs = dict(inp=d.normal(T, H), gamma=d.normal(H), beta=d.normal(H))
    dout = d.normal(T, H)

    def forward(**x):
        return ref.call("layernorm_forward", out=empty(T, H), mean=empty(T), rstd=empty(T), **x, **rest)

    saved = forward(**inputs)
    grads = dict(dinp=empty(T, H), dgamma=zeros(inputs["gamma"]), dbeta=zeros(inputs["beta"]))
    given = dict(inp=inputs["inp"], mean=saved["mean"], rstd=saved["rstd"], gamma=inputs["gamma"])
    got = ref.call("layernorm_backward", **grads, dout=dout, **given, T=T, H=H)
    gradients = dict(inp=got["dinp"], gamma=got["dgamma"], beta=got["dbeta"])
    check(forward, inputs, gradients, dout, CURVED)


def test_residual_layernorm(ref):
    lengths, H, d = (2, 3), 6, Draw("grad residual")
    T = sum(lengths)
    rest = dict(d=dropout(0.3, lengths), T=T, H=H)
    inputs = dict(inp=d.normal(T, H), residual=d.normal(T, H), gamma=d.normal(H), beta=d.normal(H))
    dout = d.normal(T, H)

    def forward(**x):
        outputs = dict(out=empty(T, H), sum=empty(T, H), mean=empty(T), rstd=empty(T))
        return ref.call("residual_layernorm_forward", **outputs, **x, eps=1e-5, **rest)

    saved = forward(**inputs)
    del saved["out"]
    grads = dict(dinp=empty(T, H), dresidual=empty(T, H), dgamma=np.zeros(H, np.float32), dbeta=np.zeros(H, np.float32))
    got = ref.call("residual_layernorm_backward", **grads, dout=dout, **saved, gamma=inputs["gamma"], **rest)
    check(forward, inputs, {name: got[f"d{name}"] for name in inputs}, dout, CURVED)


@pytest.mark.parametrize("share", [1, 0.5])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("lengths", "A", "D"), [((2,), 1, 3), ((5, 1, 2), 2, 3)])
def test_attention(ref, lengths, A, D, p, share):
    d = Draw(f"grad attention{lengths}")
    T, H, (cu_queries, query_pos) = sum(lengths), A * D, asking(d, lengths, share)
    R = len(query_pos)
    rest = dict(cu_seqlens=offsets(lengths), cu_queries=cu_queries, query_pos=query_pos, d=dropout(p, lengths))
    rest |= dict(S=len(lengths), R=R, A=A, D=D, q_stride=H, kv_stride=H)
    inputs = dict(q=d.normal(R, H), k=d.normal(T, H), v=d.normal(T, H))
    dout = d.normal(R, H)

    def forward(**inputs):
        return ref.call("attention_forward", out=empty(R, H), lse=empty(A, R), **inputs, **rest)

    saved, grads = forward(**inputs), dict(dq=empty(R, H), dk=empty(T, H), dv=empty(T, H))
    got = ref.call("attention_backward", **grads, dout=dout, **saved, **inputs, **rest)
    check(forward, inputs, {name: got[f"d{name}"] for name in inputs}, dout, CURVED)


def test_rows(ref):
    T, R, H, stride, d = 4, 6, 3, 5, Draw("grad rows")
    rest = dict(stride=stride, rows=d.integers(T, R), R=R, H=H)
    dout, inp = d.normal(R, stride), d.normal(T, H)
    got = ref.call("rows_scatter_add", dinp=zeros(inp), dout=dout, **rest)["dinp"]
    wide = np.zeros((R, stride), np.float32)
    check(lambda inp: ref.call("rows_gather", out=wide, inp=inp, **rest), dict(inp=inp), dict(inp=got), dout, LINEAR)


def test_mean(ref):
    lengths, H, stride, d = (3, 1, 5), 3, 4, Draw("grad mean")
    first, end = np.array([1, 3, 5], np.int32), np.array([3, 4, 8], np.int32)
    rest = dict(stride=stride, first=first, end=end, S=len(lengths), H=H)
    dout, inp = d.normal(len(lengths), stride), d.normal(sum(lengths), H)
    got = ref.call("mean_backward", dinp=zeros(inp), dout=dout, **rest)["dinp"]
    wide = np.zeros((len(lengths), stride), np.float32)
    check(lambda inp: ref.call("mean_forward", out=wide, inp=inp, **rest), dict(inp=inp), dict(inp=got), dout, LINEAR)


def test_normalize(ref):
    R, H, d = 4, 6, Draw("grad normalize")
    inputs, dout = dict(inp=d.normal(R, H)), d.normal(R, H)

    def forward(inp):
        return ref.call("normalize_forward", out=empty(R, H), norm=empty(R), inp=inp, R=R, H=H)

    got = ref.call("normalize_backward", dinp=empty(R, H), dout=dout, **forward(**inputs), R=R, H=H)
    check(forward, inputs, dict(inp=got["dinp"]), dout, CURVED)


def test_rows_dot(ref):
    R, H, stride, d = 4, 5, 2, Draw("grad rows_dot")
    rest = dict(stride=stride, inp_stride=H, R=R, H=H)
    inputs, dout = dict(a=d.normal(R, H), b=d.normal(R, H)), d.normal(R, stride)
    got = ref.call("rows_dot_backward", da=empty(R, H), db=empty(R, H), dout=dout, **inputs, **rest)
    wide = np.zeros((R, stride), np.float32)
    gradients = dict(a=got["da"], b=got["db"])
    check(lambda **x: ref.call("rows_dot_forward", out=wide, **x, **rest), inputs, gradients, dout, LINEAR)


@pytest.mark.parametrize(("kind", "h"), [(TANH, CURVED), (RELU, 2.0**-7)], ids=["tanh", "relu"])
def test_activation(ref, kind, h):
    inp = np.linspace(-3, 3, 62, dtype=np.float32)  # no kink within a step of one of them
    dout = Draw("grad activation").normal(62, shift=1.0)

    def forward(inp):
        return ref.call("activation_forward", out=empty(62), inp=inp, N=62, kind=kind)

    out = forward(inp)["out"]
    got = ref.call("activation_backward", dinp=empty(62), dout=dout, out=out, N=62, kind=kind)["dinp"]
    check(forward, dict(inp=inp), dict(inp=got), dout, h)


@pytest.mark.parametrize("W", [1, 2, 3, 5])
def test_window(ref, W):
    lengths, H, d = (4, 1, 2), 3, Draw("grad window")
    T, rest = sum(lengths), dict(cu_seqlens=offsets(lengths), S=len(lengths), W=W, H=H)
    dout = d.normal(T, W, H)
    got = ref.call("window_backward", dinp=empty(T, H), dout=dout, **rest)["dinp"]

    def forward(inp):
        return ref.call("window_forward", out=empty(T, W, H), inp=inp, **rest)

    check(forward, dict(inp=d.normal(T, H)), dict(inp=got), dout, LINEAR)


def test_segment_max(ref):
    lengths, H, d = (3, 0, 1, 4), 3, Draw("grad segment max")
    G, T = len(lengths), sum(lengths)
    rest = dict(cu_segments=offsets(lengths), G=G, H=H)
    inp = d.rng.permutation(T * H).reshape(T, H).astype(np.float32)  # no two within a step of each other
    dout = d.normal(G, H)

    def forward(inp):
        return ref.call("segment_max_forward", out=empty(G, H), row=np.zeros((G, H), np.int32), inp=inp, **rest)

    row = forward(inp)["row"]
    got = ref.call("segment_max_backward", dinp=empty(T, H), dout=dout, row=row, **rest)["dinp"]
    check(forward, dict(inp=inp), dict(inp=got), dout, 2.0**-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("supervised", [0, 1])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_softmax_xent(ref, masked, supervised, smoothing):
    R, C, d = 6, 9, Draw("grad xent")
    target = np.int32([3, 0, -1, 8, 5, 1])
    groups = dict(row_group=d.integers(3, R), col_group=d.integers(3, C)) if masked else {}
    skip = np.int32([0, 1, 2, -1, 4, 2]) if masked else None
    x = Xent(target, skip=skip, **groups, supervised=supervised, scale=1.7, weight=0.5, smoothing=smoothing)

    def forward(logits):
        outputs = dict(loss=empty(R), correct=np.zeros(R, np.int32))
        return ref.call("softmax_xent", logits=logits, **outputs, x=x, R=R, C=C)

    logits = d.normal(R, C)
    dout = np.full(R, x.weight, np.float32)  # the loss itself is not weighted, its gradient is
    check(forward, dict(logits=logits), dict(logits=forward(logits)["logits"]), dout, CURVED, out="loss")
