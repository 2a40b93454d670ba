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
    pre = dev.call("linear_forward", out=pre, **rest)["out"]
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


COMPOSITIONS = {f.__name__: f for f in (linear_gelu_forward, residual_layernorm_forward, residual_layernorm_backward)}


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
    return math.prod(a.get(size, 1) for size in "TRGNHIOCAD")


@pytest.mark.parametrize("op", sorted({case.op for case in all_cases()}))
def test_an_operation_has_a_case_that_is_large_enough_for_threads(op):
    """A back end runs small inputs on one thread, which proves nothing about several."""
    assert max(map(elementary_operations, cases_of(op))) >= 1 << 15
