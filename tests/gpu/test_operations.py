"""The CUDA back end against the reference: on the GPU where there is one, and its kernels on the CPU everywhere.

Products of float32 are held to the cases' own tolerance, those of operands rounded to bfloat16 to 4 % of the largest
value of a row, and to a reference that rounds the operands too.
"""

import functools

import numpy as np
import pytest
from ops import harness
from ops.cases import all_cases, cases_of
from ops.harness import BFLOAT16, FLOAT32, INT8, VALUE, Device, OpError

from gpu import backends

LINEAR = ("linear_forward", "linear_backward", "linear_gelu_forward")


@functools.cache
def opened(name):
    return Device(name)


@pytest.fixture(params=backends.NAMES)
def device(request):
    return opened(backends.require(request.param))


def run(case, device, products=FLOAT32):
    device.struct.products = products
    device.set_scratch(case.scratch)
    try:
        return case.run(device)
    finally:
        device.struct.products = FLOAT32


def reference(case, products=FLOAT32):
    return run(case, opened("ref"), products)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_agrees_with_ref(case, device):
    case.check(run(case, device), reference(case), device.name)


@pytest.mark.parametrize("case", cases_of(*LINEAR), ids=lambda case: case.id)
def test_bfloat16_products(case, device):
    got = run(case, device, BFLOAT16)
    case.check(got, reference(case, BFLOAT16), device.name)
    for name, want in reference(case).items():
        if want.size:
            bound = 4e-2 * np.abs(want).max(axis=-1, keepdims=True) + 4e-2
            assert (np.abs(got[name] - want) <= bound).all(), name
    if all(case.arguments[size] > 1 for size in "TIO"):
        assert any(not np.array_equal(value, reference(case)[name]) for name, value in got.items()), "in float32"


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_bytes_are_the_same_from_call_to_call(case, device, monkeypatch):
    """On the CPU the second call runs the threads of a block, and the blocks, in the opposite order."""
    once = run(case, device)
    monkeypatch.setenv("RELPT_EMULATE", "reverse")
    again = run(case, device)
    for name, value in once.items():
        assert value.tobytes() == again[name].tobytes(), name


WIDE = (*LINEAR, "dropout_forward", "layernorm_backward", "residual_layernorm_forward", "residual_layernorm_backward")


@pytest.mark.parametrize("case", cases_of(*WIDE), ids=lambda case: case.id)
def test_aligned_arrays(case, device, monkeypatch):
    """Arrays that begin at multiples of 256 bytes are read and written in wider words where their rows allow it."""
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (256,))
    products = BFLOAT16 if case.op in LINEAR else FLOAT32
    case.check(run(case, device, products), reference(case, products), device.name)


def test_int8_is_refused(device):
    with pytest.raises(OpError, match="int8 products are for encoding on the CPU") as caught:
        run(cases_of("linear_forward")[0], device, INT8)
    assert caught.value.code == VALUE
