"""The cpu back end against the reference, at every instruction-set level that this build and machine have."""

import dataclasses
import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from . import formulas
from .cases import all_cases, cases_of
from .harness import BFLOAT16, FLOAT32, INT8, Device, OpError, Same, backends, cpu_levels

pytestmark = pytest.mark.core
ROOT = Path(__file__).parents[2]


@functools.cache
def device(backend, num_threads):
    return Device(backend, num_threads)


@pytest.fixture(scope="module", autouse=True)
def _close_devices():
    yield
    for backend in backends():
        for num_threads in (1, 2, 4):
            device(backend, num_threads).close()
    device.cache_clear()


def run(case, backend, num_threads):
    opened = device(backend, num_threads)
    opened.set_scratch(case.scratch)
    return case.run(opened)


@functools.cache
def reference(case):
    return run(case, "ref", 1)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_cpu_agrees_with_ref(case, level):
    case.check(run(case, level, 2), reference(case), level)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_bytes_do_not_depend_on_the_number_of_threads(case, level):
    alone = run(case, level, 1)
    for num_threads in (2, 4):
        together = run(case, level, num_threads)
        for name, value in alone.items():
            assert value.tobytes() == together[name].tobytes(), f"{name} differs with {num_threads} threads"


LINEAR = ("linear_forward", "linear_backward", "linear_gelu_forward")


def run_in(products, case, backend, num_threads):
    opened = device(backend, num_threads)
    opened.struct.products = products
    try:
        return run(case, backend, num_threads)
    finally:
        opened.struct.products = FLOAT32


NARROW = [(BFLOAT16, case) for case in cases_of(*LINEAR)]
NARROW += [(INT8, case) for case in cases_of("linear_forward", "linear_gelu_forward")]


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize(("products", "case"), NARROW, ids=lambda x: getattr(x, "id", f"rp_dtype {x}"))
def test_products_of_rounded_operands(products, case, level):
    """As those of ref, which rounds the operands alone; for any number of threads the same bytes."""
    alone = run_in(products, case, level, 1)
    case.check(alone, run_in(products, case, "ref", 1), level)
    for num_threads in (2, 4):
        together = run_in(products, case, level, num_threads)
        for name, value in alone.items():
            assert value.tobytes() == together[name].tobytes(), f"{name} differs with {num_threads} threads"
    if all(case.arguments[size] > 1 for size in "TIO"):
        assert any(not np.array_equal(value, reference(case)[name]) for name, value in alone.items()), "in float32"


@pytest.mark.parametrize("level", [level.removeprefix("cpu/") for level in cpu_levels()])
def test_a_forced_level_takes_its_instructions(level):
    """Those of bfloat16 and int8, which a level may find slow on this machine and leave out when nobody forces it."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        f"rounded_operands and {level}]",
    ]
    env = dict(os.environ, RELPT_CPU=level)
    forced = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert forced.returncode == 0, forced.stdout[-3000:] + forced.stderr
    assert f"{len(NARROW)} passed" in forced.stdout


@pytest.mark.parametrize("backend", backends())
def test_int8_has_no_gradients(backend):
    case = cases_of("linear_backward")[0]
    with pytest.raises(OpError, match="int8 products are for encoding"):
        run_in(INT8, case, backend, 1)


@pytest.mark.parametrize("backend", backends())
def test_int8_keeps_nan_and_survives_zeros(backend):
    """A row that is not finite gives no numbers, a row of zeros the bias, and the others what they gave."""
    case = next(case for case in cases_of("linear_forward") if min(case.arguments[size] for size in "TIO") > 3)
    arguments = dict(case.arguments, inp=case.arguments["inp"].copy(), bias=np.ones(case.arguments["O"], np.float32))
    clean = run_in(INT8, dataclasses.replace(case, arguments=arguments), backend, 1)["out"]
    arguments["inp"] = arguments["inp"].copy()
    arguments["inp"][0, 1], arguments["inp"][1, 2], arguments["inp"][2] = np.nan, np.inf, 0
    out = run_in(INT8, dataclasses.replace(case, arguments=arguments), backend, 1)["out"]
    assert np.isnan(out[:2]).all()
    assert (out[2] == 1).all()
    assert np.array_equal(out[3:], clean[3:])


def linear_gelu_forward(dev, act, pre, **rest):
    pre = dev.call("linear_forward", out=np.array(act) if pre is None else pre, **rest)["out"]
    act = dev.call("gelu_forward", out=act, inp=pre, N=pre.size)["out"]
    return {"pre": pre, "act": act}


def residual_layernorm_forward(dev, out, sum, mean, rstd, inp, residual, gamma, beta, d, eps, T, H):
    dropped = dev.call("dropout_forward", out=np.full_like(inp, np.nan), inp=inp, d=d, T=T, H=H)["out"]
    total = dev.call("add_forward", out=np.full_like(inp, np.nan), a=dropped, b=residual, N=T * H)["out"]
    norm = dict(out=out, mean=mean, rstd=rstd, inp=total, gamma=gamma, beta=beta, eps=eps, T=T, H=H)
    return {"sum": total, **dev.call("layernorm_forward", **norm)}


def residual_layernorm_backward(dev, dinp, dresidual, sum, d, T, H, **rest):
    grads = dev.call("layernorm_backward", dinp=dresidual, inp=sum, T=T, H=H, **rest)
    dresidual = grads.pop("dinp")
    dropped = dev.call("dropout_forward", out=dinp, inp=dresidual, d=d, T=T, H=H)["out"]
    return {"dinp": dropped, "dresidual": dresidual, **grads}


def recalled(dev, kept, values):
    if kept is None:
        return values
    return dev.call("widen", out=np.zeros(kept.shape, np.float32), kept=kept, N=kept.size)["out"]


def kept_of(dev, kept, values):
    """{"kept": bits}, and the rounded values."""
    got = dev.call("narrow", kept=kept, inp=values, N=values.size)
    return {"kept": got["kept"]}, got["inp"]


def feed_forward_forward(dev, out, pre, kept, act, inp, up_weight, up_bias, down_weight, down_bias, T, H, F, keep):
    up = dict(
        act=act, pre=np.array(act) if pre is None else pre, inp=inp, weight=up_weight, bias=up_bias, T=T, I=H, O=F
    )
    made = dev.call("linear_gelu_forward", **up)
    down = dict(out=out, inp=made["act"], weight=down_weight, bias=down_bias, T=T, I=F, O=H)
    saved = {} if not keep else {"pre": made["pre"]} if kept is None else kept_of(dev, kept, made["pre"])[0]
    return {**dev.call("linear_forward", **down), **saved}


def feed_forward_backward(
    dev, dinp, dup_weight, dup_bias, ddown_weight, ddown_bias, dact, act, dout, inp, pre, kept, up_weight, down_weight,
    T, H, F,
):  # fmt: skip
    pre = recalled(dev, kept, pre)
    act = dev.call("gelu_forward", out=act, inp=pre, N=pre.size)["out"]
    down = dict(dinp=dact, dweight=ddown_weight, dbias=ddown_bias, dout=dout, inp=act, weight=down_weight)
    down = dev.call("linear_backward", **down, T=T, I=F, O=H, accumulate=0)
    dpre = dev.call("gelu_backward", dinp=dact, dout=down["dinp"], inp=pre, N=pre.size)["dinp"]
    up = dict(dinp=dinp, dweight=dup_weight, dbias=dup_bias, dout=dpre, inp=inp, weight=up_weight)
    up = dev.call("linear_backward", **up, T=T, I=H, O=F, accumulate=1)
    gradients = {"ddown_weight": down["dweight"], "ddown_bias": down["dbias"]}
    return {"dinp": up["dinp"], "dup_weight": up["dweight"], "dup_bias": up["dbias"], **gradients}


def self_attention_forward(
    dev,
    out,
    lse,
    qkv,
    kept,
    attended,
    inp,
    asking,
    qkv_weight,
    qkv_bias,
    out_weight,
    out_bias,
    T,
    R,
    A,
    D,
    keep,
    **rest,
):
    """Each of queries, keys and values by a product of its own."""
    H, three = A * D, []
    for i, rows in enumerate((asking, inp, inp)):
        block = slice(i * H, (i + 1) * H)
        part = dict(out=np.zeros(rows.shape, np.float32), inp=rows, weight=qkv_weight[block], bias=qkv_bias[block])
        three.append(dev.call("linear_forward", **part, T=len(rows), I=H, O=H)["out"])
    whole = (
        np.concatenate(three, axis=1) if R == T else np.concatenate([np.hstack(three[1:]).ravel(), three[0].ravel()])
    )
    whole, saved = np.ascontiguousarray(whole.reshape(-1)), {}
    if kept is not None:
        saved, whole = kept_of(dev, kept, whole)
    q, k, v = formulas._parts(whole, T, R, H)
    part = dict(q=np.array(q), k=np.array(k), v=np.array(v), out=attended, lse=lse, R=R, A=A, D=D, **rest)
    made = dev.call("attention_forward", **part, q_stride=H, kv_stride=H)
    last = dict(out=out, inp=made["out"], weight=out_weight, bias=out_bias, T=R, I=H, O=H)
    saved |= {"lse": made["lse"]} if kept is not None or not keep else {"lse": made["lse"], "qkv": whole}
    return {**dev.call("linear_forward", **last), **saved}


def self_attention_backward(
    dev, dinp, dasking, dqkv_weight, dqkv_bias, dout_weight, dout_bias, dqkv, dattended, attended, qkv, kept, lse, dout,
    inp, asking, qkv_weight, out_weight, T, R, A, D, **rest,
):  # fmt: skip
    H = A * D
    q, k, v = (np.array(part) for part in formulas._parts(recalled(dev, kept, qkv), T, R, H))
    rest |= dict(q=q, k=k, v=v, R=R, A=A, D=D, q_stride=H, kv_stride=H)
    made = dev.call("attention_forward", out=attended, lse=lse, **rest)
    out = dict(dinp=dattended, dweight=dout_weight, dbias=dout_bias, dout=dout, inp=made["out"], weight=out_weight)
    out = dev.call("linear_backward", **out, T=R, I=H, O=H, accumulate=0)
    zeros = dict(zip(("dq", "dk", "dv"), map(np.zeros_like, (q, k, v)), strict=True))
    d = dev.call("attention_backward", **zeros, dout=out["dinp"], out=made["out"], lse=made["lse"], **rest)
    pairs, gradients = np.zeros_like(inp) if R < T else dasking, []
    for i, (name, rows) in enumerate((("dq", asking), ("dk", inp), ("dv", inp))):
        block = slice(i * H, (i + 1) * H)
        part = dict(dinp=dasking if i == 0 else pairs, dweight=dqkv_weight[block], dbias=dqkv_bias[block], inp=rows)
        part |= dict(dout=d[name], weight=qkv_weight[block], T=len(rows), I=H, O=H, accumulate=1)
        got = dev.call("linear_backward", **part)
        gradients.append(got)
        if i == 0:
            dasking = got["dinp"]
            pairs = pairs if R < T else dasking
        else:
            pairs = got["dinp"]
    found = {"lse": made["lse"], "dout_weight": out["dweight"], "dout_bias": out["dbias"]}
    found |= {f"dqkv_{name}": np.concatenate([got[f"d{name}"] for got in gradients]) for name in ("weight", "bias")}
    return {**found, "dasking": dasking, "dinp": pairs} if R < T else {**found, "dasking": pairs}


COARSE = (linear_gelu_forward, residual_layernorm_forward, residual_layernorm_backward, feed_forward_forward)
COARSE += (feed_forward_backward, self_attention_forward, self_attention_backward)
COMPOSITIONS = {f.__name__: f for f in COARSE}


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("case", cases_of(*COMPOSITIONS), ids=lambda case: case.id)
def test_coarse_operation_is_its_composition(case, backend):
    arguments = {name: None if isinstance(value, Same) else value for name, value in case.arguments.items()}
    got = run(case, backend, 2)
    case.check(got, COMPOSITIONS[case.op](device(backend, 2), **arguments), backend)


def elementary_operations(case):
    """The product of a case's sizes: of every token with every output and input, or the like."""
    a = dict(case.arguments)
    for ends in ("cu_seqlens", "cu_segments", "end"):
        if ends in a:
            a["T"] = int(a[ends].max(initial=0))
    return math.prod(a.get(size, 1) for size in "TRGNHIOFCAD")


@pytest.mark.parametrize("op", sorted({case.op for case in all_cases()}))
def test_an_operation_has_a_case_that_is_large_enough_for_threads(op):
    """A back end runs small inputs on one thread, which proves nothing about several."""
    assert max(map(elementary_operations, cases_of(op))) >= 1 << 15
