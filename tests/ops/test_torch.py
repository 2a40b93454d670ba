"""The reference back end against live PyTorch in float64: an oracle that nobody here has written."""

# ruff: noqa: E741 (I and O are the names in ops.h)

import itertools

import numpy as np
import pytest

from .cases import MIXED, SHORT, Draw, asking, empty, offsets
from .harness import RELU, TANH, AdamWStep, Device, Dropout, SGDStep, Xent

pytestmark = [pytest.mark.oracle, pytest.mark.core]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def ref():
    with Device("ref") as device:
        device.set_scratch((2048, 1024, 1 << 20, 256, 64))
        yield device


def leaf(torch, array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def assert_same(got, want, rtol=2e-6):
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= rtol * np.abs(want).max()


def test_linear(torch, ref):
    T, I, O, d = 40, 65, 33, Draw("torch linear")
    inp, weight, bias, dout = d.normal(T, I), d.normal(O, I), d.normal(O), d.normal(T, O)
    x, w, b = (leaf(torch, value) for value in (inp, weight, bias))
    want = torch.nn.functional.linear(x, w, b)
    want.backward(torch.tensor(dout, dtype=torch.float64))
    got = ref.call("linear_forward", out=empty(T, O), inp=inp, weight=weight, bias=bias, T=T, I=I, O=O)
    assert_same(got["out"], want)
    grads = dict(dinp=empty(T, I), dweight=np.zeros_like(weight), dbias=np.zeros_like(bias))
    got = ref.call("linear_backward", **grads, dout=dout, inp=inp, weight=weight, T=T, I=I, O=O, accumulate=0)
    for name, tensor in (("dinp", x), ("dweight", w), ("dbias", b)):
        assert_same(got[name], tensor.grad)


def test_embedding(torch, ref):
    T, H, V, d = 50, 24, 7, Draw("torch embed")
    ids, pos = d.integers(V, T), d.integers(9, T)
    tables = dict(word=d.normal(V, H), position=d.normal(9, H), type=d.normal(H))
    word, position, kind = (leaf(torch, value) for value in tables.values())
    want = word[torch.tensor(ids)] + position[torch.tensor(pos)] + kind
    dout = d.normal(T, H)
    want.backward(torch.tensor(dout, dtype=torch.float64))
    index = dict(ids=ids, pos=pos, T=T, H=H)
    assert_same(ref.call("embed_forward", out=empty(T, H), **tables, **index)["out"], want)
    zeros = {f"d{name}": np.zeros_like(value) for name, value in tables.items()}
    got = ref.call("embed_backward", **zeros, dout=dout, **index)
    for name, tensor in (("dword", word), ("dposition", position), ("dtype", kind)):
        assert_same(got[name], tensor.grad)


@pytest.mark.parametrize("H", [7, 96])
def test_layernorm(torch, ref, H):
    T, eps, d = 31, 1e-5, Draw("torch layernorm")
    inp, gamma, beta, dout = d.normal(T, H, scale=2, shift=1), d.normal(H), d.normal(H), d.normal(T, H)
    x, g, b = (leaf(torch, value) for value in (inp, gamma, beta))
    want = torch.nn.functional.layer_norm(x, (H,), g, b, eps)
    want.backward(torch.tensor(dout, dtype=torch.float64))
    outputs = dict(out=empty(T, H), mean=empty(T), rstd=empty(T))
    got = ref.call("layernorm_forward", **outputs, inp=inp, gamma=gamma, beta=beta, eps=eps, T=T, H=H)
    assert_same(got.pop("out"), want)
    grads = dict(dinp=empty(T, H), dgamma=np.zeros_like(gamma), dbeta=np.zeros_like(beta), dout=dout)
    got = ref.call("layernorm_backward", **grads, inp=inp, **got, gamma=gamma, T=T, H=H)
    for name, tensor in (("dinp", x), ("dgamma", g), ("dbeta", b)):
        assert_same(got[name], tensor.grad)


def test_gelu(torch, ref):
    inp = np.linspace(-9, 9, 2001, dtype=np.float32)
    dout = Draw("torch gelu").normal(2001)
    x = leaf(torch, inp)
    want = torch.nn.functional.gelu(x, approximate="none")
    want.backward(torch.tensor(dout, dtype=torch.float64))
    assert_same(ref.call("gelu_forward", out=empty(2001), inp=inp, N=2001)["out"], want)
    assert_same(ref.call("gelu_backward", dinp=empty(2001), dout=dout, inp=inp, N=2001)["dinp"], x.grad)


@pytest.mark.parametrize(("lengths", "A", "D"), [((1,), 1, 4), (SHORT, 3, 5), (MIXED, 2, 32)])
def test_attention(torch, ref, lengths, A, D):
    d, cu_seqlens, T, H = Draw("torch attention"), offsets(lengths), sum(lengths), A * D
    qkv, dout = d.normal(T, 3 * H), d.normal(T, H)
    x = leaf(torch, qkv)
    parts = []
    for first, end in itertools.pairwise(cu_seqlens):
        q, k, v = x[first:end].reshape(end - first, 3, A, D).permute(1, 2, 0, 3)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        parts.append(out.transpose(0, 1).reshape(end - first, H))
    want = torch.cat(parts)
    want.backward(torch.tensor(dout, dtype=torch.float64))
    rest = {name: np.ascontiguousarray(part) for name, part in zip("qkv", np.split(qkv, 3, axis=1), strict=True)}
    rest |= dict(cu_seqlens=cu_seqlens, cu_queries=cu_seqlens, query_pos=asking(d, lengths, 1)[1], d=Dropout())
    rest |= dict(S=len(lengths), R=T, A=A, D=D, q_stride=H, kv_stride=H)
    got = ref.call("attention_forward", out=empty(T, H), lse=empty(A, T), **rest)
    assert_same(got["out"], want)
    grads = dict(dq=empty(T, H), dk=empty(T, H), dv=empty(T, H))
    got = ref.call("attention_backward", **grads, dout=dout, **got, **rest)
    assert_same(np.hstack([got[name] for name in grads]), x.grad)


def test_normalize(torch, ref):
    R, H, d = 20, 33, Draw("torch normalize")
    inp, dout = d.normal(R, H), d.normal(R, H)
    x = leaf(torch, inp)
    want = torch.nn.functional.normalize(x, eps=1e-12)
    want.backward(torch.tensor(dout, dtype=torch.float64))
    got = ref.call("normalize_forward", out=empty(R, H), norm=empty(R), inp=inp, R=R, H=H)
    assert_same(got["out"], want)
    assert_same(ref.call("normalize_backward", dinp=empty(R, H), dout=dout, **got, R=R, H=H)["dinp"], x.grad)


def run_xent(ref, logits, x):
    R, C = logits.shape
    return ref.call("softmax_xent", logits=logits, loss=empty(R), correct=np.zeros(R, np.int32), x=x, R=R, C=C)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(torch, ref, smoothing):
    R, C, d = 25, 300, Draw("torch xent")
    logits, target = d.normal(R, C, scale=2), d.integers(C, R)
    target[::6] = -1
    z = leaf(torch, logits)
    options = {"ignore_index": -1, "reduction": "none", "label_smoothing": float(np.float32(smoothing))}
    want = torch.nn.functional.cross_entropy(1.3 * z, torch.tensor(target).long(), **options)
    (0.2 * want.sum()).backward()
    got = run_xent(ref, logits, Xent(target, scale=1.3, weight=0.2, smoothing=smoothing))
    assert_same(got["loss"], want)
    assert_same(got["logits"], z.grad)
    assert np.array_equal(got["correct"], (logits.argmax(axis=1) == target).astype(np.int32))


@pytest.mark.parametrize("supervised", [0, 1])
def test_contrastive_losses(torch, ref, supervised):
    """InfoNCE with masked negatives, and L_out of Khosla et al. in the form of their published code."""
    R, scale, d = 24, 10.0, Draw("torch contrastive")
    index = np.arange(R, dtype=np.int32)
    group = (index // 2 % 5).astype(np.int32)
    cosine = np.tanh(d.normal(R, R))
    x = Xent(index ^ 1, index, group, group, supervised, scale=scale, weight=1 / R)
    z = leaf(torch, cosine)
    same = torch.tensor(group[:, None] == group)
    others = ~torch.eye(R, dtype=torch.bool)
    partner = torch.nn.functional.one_hot(torch.tensor(index ^ 1).long(), R).bool()
    candidates = others if supervised else others & (~same | partner)
    log_p = scale * z - torch.logsumexp((scale * z).masked_fill(~candidates, -torch.inf), dim=1, keepdim=True)
    positives = ((same & others) if supervised else partner).double()
    want = -(positives * log_p).sum(dim=1) / positives.sum(dim=1)
    want.mean().backward()
    got = run_xent(ref, cosine, x)
    assert_same(got["loss"], want, 1e-5)
    assert_same(got["logits"], z.grad, 1e-5)


def test_adamw(torch, ref):
    N, steps, d = 200, 20, Draw("torch adamw")
    h = AdamWStep(lr=0.01, weight_decay=0.05, beta2=0.99)
    options = {name: float(np.float32(getattr(h, name))) for name in ("lr", "eps", "weight_decay")}
    betas = (float(np.float32(h.beta1)), float(np.float32(h.beta2)))
    state = dict(param=d.normal(N), m=np.zeros(N, np.float32), v=np.zeros(N, np.float32))
    p = leaf(torch, state["param"])
    optimizer = torch.optim.AdamW([p], betas=betas, **options)
    for t in range(1, steps + 1):
        grad = d.normal(N, scale=1.0 / t)
        h.correction1, h.correction2 = 1 - betas[0] ** t, 1 - betas[1] ** t
        state = ref.call("adamw_update", **state, grad=grad, h=h, N=N)
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        assert_same(state["param"], p, 2e-6)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.7, 0.02)])
def test_sgd(torch, ref, momentum, weight_decay):
    N, d = 200, Draw("torch sgd")
    h = SGDStep(lr=0.1, momentum=momentum, weight_decay=weight_decay)
    options = {name: float(np.float32(value)) for name, value in vars(h).items() if name != "grad_scale"}
    state = dict(param=d.normal(N), m=np.zeros(N, np.float32) if momentum else None)
    p = leaf(torch, state["param"])
    optimizer = torch.optim.SGD([p], **options)
    for _ in range(10):
        grad = d.normal(N)
        state |= ref.call("sgd_update", **state, grad=grad, h=h, N=N)
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        assert_same(state["param"], p, 2e-6)


@pytest.mark.parametrize(("W", "kind"), [(3, TANH), (5, RELU), (1, TANH)])
def test_convolution_and_pooling(torch, ref, W, kind):
    """Windows, a linear map, the maximum and an activation: Conv1d with zero padding, of each sentence alone."""
    lengths, H, O, d = SHORT, 5, 7, Draw("torch convolution")
    S, T, ends = len(lengths), sum(lengths), offsets(lengths)
    inp, weight, bias, dout = d.normal(T, H), d.normal(O, W * H), d.normal(O), d.normal(S, O)
    x, w, b = (leaf(torch, value) for value in (inp, weight, bias))
    kernel = w.reshape(O, W, H).transpose(1, 2)
    convolved = [
        torch.nn.functional.conv1d(x[a:e].T[None], kernel, b, padding=(W - 1) // 2)[0]
        for a, e in itertools.pairwise(ends)
    ]
    want = torch.stack([(torch.tanh if kind == TANH else torch.relu)(c).amax(dim=1) for c in convolved])
    want.backward(torch.tensor(dout, dtype=torch.float64))
    place, pooling = dict(cu_seqlens=ends, S=S, W=W, H=H), dict(cu_segments=ends, G=S, H=O)
    sizes = dict(T=T, I=W * H, O=O)
    windows = ref.call("window_forward", out=empty(T, W, H), inp=inp, **place)["out"].reshape(T, W * H)
    states = ref.call("linear_forward", out=empty(T, O), inp=windows, weight=weight, bias=bias, **sizes)["out"]
    row = np.zeros((S, O), np.int32)
    pooled = ref.call("segment_max_forward", out=empty(S, O), row=row, inp=states, **pooling)
    act = dict(N=S * O, kind=kind)
    out = ref.call("activation_forward", out=empty(S, O), inp=pooled["out"], **act)["out"]
    assert_same(out, want)
    dpooled = ref.call("activation_backward", dinp=empty(S, O), dout=dout, out=out, **act)["dinp"]
    dstates = ref.call("segment_max_backward", dinp=empty(T, O), dout=dpooled, row=pooled["row"], **pooling)["dinp"]
    grads = dict(dinp=empty(T, W * H), dweight=np.zeros_like(weight), dbias=np.zeros_like(bias), accumulate=0)
    got = ref.call("linear_backward", **grads, dout=dstates, inp=windows, weight=weight, **sizes)
    assert_same(got["dweight"], w.grad)
    assert_same(got["dbias"], b.grad)
    dwindows = got["dinp"].reshape(T, W, H)
    assert_same(ref.call("window_backward", dinp=empty(T, H), dout=dwindows, **place)["dinp"], x.grad)
