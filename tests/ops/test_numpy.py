"""The reference back end against plain NumPy formulas: every case of every operation."""

# ruff: noqa: E741 (I and O are the names in ops.h)

import numpy as np
import pytest

from . import formulas
from .cases import all_cases
from .harness import Device, Same, signatures

pytestmark = pytest.mark.core

MEMORY = {"scratch", "alloc", "release", "reserve", "upload", "download", "zero", "keep_weights"}
MEMORY |= {"list_begin", "list_end"}  # they compute nothing themselves


@pytest.fixture(scope="module")
def ref():
    with Device("ref") as device:
        yield device


def plain_arguments(case):
    """The case's arguments with an alias replaced by the array that it stands for."""
    a = case.arguments
    return {name: a[value.name] if isinstance(value, Same) else value for name, value in a.items()}


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_ref_follows_the_formula(ref, case):
    ref.set_scratch(case.scratch)
    want = getattr(formulas, case.op)(**plain_arguments(case))
    case.check(case.run(ref), want, "ref")


def test_every_operation_has_cases_and_a_formula():
    ops = set(signatures()) - MEMORY
    assert ops == {case.op for case in all_cases()}
    assert all(hasattr(formulas, op) for op in ops)


def test_ref_rounds_once(ref):
    """Double accumulators: a sum whose terms cancel keeps the digits that float32 sums lose."""
    I = 4097
    inp = np.ones((1, I), np.float32)
    weight = np.full((1, I), 1e-4, np.float32)
    weight[0, 0], weight[0, -1] = 1e6, -1e6
    out = ref.call("linear_forward", out=np.zeros((1, 1), np.float32), inp=inp, weight=weight, bias=None, T=1, I=I, O=1)
    assert abs(out["out"][0, 0] - (I - 2) * 1e-4) < 1e-6
