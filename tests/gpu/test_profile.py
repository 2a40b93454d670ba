"""Times on the GPU: marks and profiles (csrc/cuda/profile.cu)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ops.harness import BFLOAT16, Device

from gpu import backends

ROOT = Path(__file__).resolve().parents[2]
ROWS, INPUTS, OUTPUTS = 9, 16, 8
TICK = 2e-6  # of the GPU's clock, and of a time's rounding


@pytest.fixture(params=backends.NAMES)
def name(request):
    return backends.require(request.param)


@pytest.fixture(params=["0", "1"], ids=["direct", "graphs"])
def dev(request, name, monkeypatch):
    monkeypatch.setenv("RELPT_CUDA_GRAPHS", request.param)
    with Device(name) as device:
        device.struct.products = BFLOAT16
        device.set_scratch((ROWS, INPUTS, INPUTS * OUTPUTS, 1, 1))
        yield device


@pytest.fixture
def work(dev):
    """Does gelu(inp weight^T + bias) + 0 as a list, and gives its bytes."""
    rng, out = np.random.default_rng(3), np.empty((ROWS, OUTPUTS), np.float32)
    shapes = ((ROWS, INPUTS), (OUTPUTS, INPUTS), OUTPUTS, (ROWS, OUTPUTS), (ROWS, OUTPUTS))
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    inp, weight, bias, product, total = addresses = [dev.alloc(array.nbytes) for array in arrays]
    for address, array in zip(addresses, arrays, strict=True):
        dev.raw("upload", address, array.ctypes.data, array.nbytes)

    def run():
        dev.raw("list_begin")
        dev.raw("zero", total, out.nbytes)
        dev.raw("linear_forward", product, inp, weight, bias, ROWS, INPUTS, OUTPUTS)
        dev.raw("gelu_forward", product, product, ROWS * OUTPUTS)
        dev.raw("add_forward", total, total, product, ROWS * OUTPUTS)
        dev.raw("list_end", 0)
        dev.raw("download", out.ctypes.data, total, out.nbytes)
        return out.tobytes()

    yield run
    for address in addresses:
        dev.raw("release", address)


def test_marks_stand_in_the_order_of_the_work(name, work):
    times = backends.times(name)
    a = times.mark()
    work()
    b = times.mark()
    work()
    c = times.mark()
    assert times.seconds(a, a) == 0
    assert times.seconds(a, b) > 0
    assert times.seconds(a, b) + times.seconds(b, c) == pytest.approx(times.seconds(a, c), abs=TICK)


def test_a_profile_names_all_that_was_done_and_its_time(name, work):
    times = backends.times(name)
    want = [work() for _ in range(3)]
    before, begin = backends.lists(name), times.mark()
    times.profile_begin()
    got = [work(), work()]
    found = times.profile_end()
    whole = times.seconds(begin, times.mark())
    now = backends.lists(name)
    assert got == want[:2]
    assert {way: now[way] - before[way] for way in now} == {"direct": 2, "graphs": 0, "refused": 0}
    names, seconds, operations = zip(*found, strict=True)
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    products = {name for name, count in zip(names, operations, strict=True) if count}
    assert products == {f"product bfloat16 NT ({ROWS},{INPUTS}) ({INPUTS},{OUTPUTS}) + bias"}
    assert set(operations) == {0, 2 * ROWS * INPUTS * OUTPUTS}
    others = [name for name in names[: len(names) // 2] if name not in products]
    assert [name for name in others if not name.startswith("linear.cu")] == [
        "clearing",
        "gelu.cu:forward_kernel",
        "dropout.cu:add_kernel",
        "download",
    ]
    assert min(seconds) >= 0
    assert 0 < sum(seconds) <= whole + TICK * len(seconds)


def test_a_profile_ends_once(name, work):
    times = backends.times(name)
    times.profile_begin()
    work()
    times.profile_begin()
    assert times.profile_end() == []
    with pytest.raises(RuntimeError, match="no profile was begun"):
        times.profile_end()
    work()  # is not noted
    times.profile_begin()
    assert times.profile_end() == []


def test_there_is_no_time_before_there_is_work():
    if importlib.util.find_spec("relpt._cuda") is None:
        pytest.skip("relpt._cuda is not built")
    ask = """if True:
        from relpt import _cuda
        for call in (_cuda.mark, _cuda.profile_begin, _cuda.profile_end, lambda: _cuda.seconds(1, 2)):
            try:
                call()
            except (RuntimeError, ValueError) as error:
                print(error)"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=ROOT)
    nothing, also, none, no_mark = done.stdout.splitlines()
    assert nothing == also == "nothing has been computed on the GPU yet"
    assert none == "no profile was begun"
    assert "PyCapsule" in no_mark
