"""What ops.h promises beside the numbers: memory, failures, the registry, results that are not finite."""

import ctypes

import numpy as np
import pytest

from .cases import all_cases, cases_of
from .harness import (
    BFLOAT16,
    FLOAT32,
    INT8,
    RELU,
    STATE,
    TANH,
    VALUE,
    Device,
    OpError,
    backends,
    cpu_levels,
    library,
    message,
    signatures,
)

pytestmark = pytest.mark.core

ALIGN = 256


@pytest.fixture(params=backends())
def dev(request):
    with Device(request.param, num_threads=2) as device:
        yield device


@pytest.mark.parametrize("name", backends())
def test_a_table_bears_the_name_it_is_found_by(name):
    with Device(name) as device:
        assert device.name == name


def test_cpu_is_one_of_the_levels():
    with Device("cpu") as device:
        assert device.name in cpu_levels()


def test_every_slot_is_filled(dev):
    assert len(signatures()) > 25
    for op in signatures():
        assert dev.function(op)
    assert not library().rp_ops_slot(dev.struct.ops, b"no_such_operation")


@pytest.mark.parametrize("name", ["", "re", "cpu/", "cpu/z80", "gpu"])
def test_unknown_back_end_is_refused_with_the_reason(name):
    assert not library().rp_ops_find(name.encode())
    with pytest.raises(OpError) as caught:
        Device(name)
    assert caught.value.code == STATE
    assert message()


@pytest.mark.parametrize("num_threads", [0, -1, 1 << 20])
def test_number_of_threads_is_checked(num_threads):
    with pytest.raises(OpError, match="num_threads") as caught:
        Device("ref", num_threads)
    assert caught.value.code == VALUE


# -- memory --------------------------------------------------------------------------------------------------------


def test_memory_comes_zeroed_and_aligned(dev):
    for size in (0, 1, 255, 256, 100_001):
        for _ in range(3):  # memory that is used again is not zero by luck
            address = dev.alloc(size)
            assert address
            assert address % ALIGN == 0
            content = np.full(size, 7, np.uint8)
            dev.raw("download", content.ctypes.data, address, size)
            assert not content.any()
            content[:] = 255
            dev.raw("upload", address, content.ctypes.data, size)
            dev.raw("release", address)
    dev.raw("release", None)


def test_upload_zero_download(dev):
    sent = np.arange(100, dtype=np.uint8) + 1
    address = dev.alloc(100)
    dev.raw("upload", address, sent.ctypes.data, 100)
    dev.raw("zero", address + 10, 20)
    dev.raw("zero", None, 0)
    dev.raw("upload", None, None, 0)
    dev.raw("download", None, None, 0)
    got = np.empty(100, np.uint8)
    dev.raw("download", got.ctypes.data, address, 100)
    dev.raw("release", address)
    sent[10:30] = 0
    assert np.array_equal(got, sent)


def test_reserve_grows_and_never_shrinks(dev):
    assert dev.struct.scratch_bytes == 0
    dev.raw("reserve", 1000)
    first = dev.struct.scratch
    assert dev.struct.scratch_bytes >= 1000
    assert first % ALIGN == 0
    dev.raw("reserve", 10)
    assert dev.struct.scratch == first
    assert dev.struct.scratch_bytes >= 1000
    dev.raw("reserve", 5_000_000)
    assert dev.struct.scratch_bytes >= 5_000_000
    ctypes.memset(dev.struct.scratch, 1, 5_000_000)


@pytest.mark.parametrize("products", [FLOAT32, BFLOAT16, INT8], ids=["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (70, 100), (1100, 40), (4500, 33), (7, 2100)])
def test_kept_weights_change_no_result(dev, products, inputs, outputs):
    """Not when they are first packed, nor when the packed ones are used again, nor when the weights have changed: also
    where they are cut into several panels."""
    rng = np.random.default_rng(inputs)
    weights, other = (rng.normal(size=(outputs, inputs)).astype(np.float32) for _ in range(2))
    inp, dout = (rng.normal(size=(19, n)).astype(np.float32) for n in (inputs, outputs))
    address, at = dev.alloc(weights.nbytes), {}
    for name, array in (("inp", inp), ("dout", dout), ("out", dout), ("dinp", inp)):
        at[name] = dev.alloc(array.nbytes)
        dev.raw("upload", at[name], array.ctypes.data, array.nbytes)
    dev.struct.products = products
    dev.set_scratch((19, max(inputs, outputs), inputs * outputs, 1, 1))

    def results():
        sizes = (len(inp), inputs, outputs)
        dev.raw("linear_forward", at["out"], at["inp"], address, None, *sizes)
        got = [np.empty_like(dout)]
        dev.raw("download", got[0].ctypes.data, at["out"], got[0].nbytes)
        if products != INT8:
            dev.raw("linear_backward", at["dinp"], None, None, at["dout"], at["inp"], address, *sizes, 0)
            got.append(np.empty_like(inp))
            dev.raw("download", got[1].ctypes.data, at["dinp"], got[1].nbytes)
        return b"".join(array.tobytes() for array in got)

    expected = []
    for array in (weights, other):
        dev.raw("upload", address, array.ctypes.data, array.nbytes)
        expected.append(results())
    assert expected[0] != expected[1]
    for version, array in ((1, weights), (2, other), (3, weights)):
        dev.raw("upload", address, array.ctypes.data, array.nbytes)
        for _ in range(3):
            dev.raw("keep_weights", address, array.size, version)
            assert results() == expected[(version + 1) % 2]
    dev.raw("keep_weights", None, 0, 0)
    dev.raw("upload", address, other.ctypes.data, other.nbytes)
    assert results() == expected[1]
    for buffer in (address, *at.values()):
        dev.raw("release", buffer)


@pytest.mark.parametrize("op", ["alloc", "reserve", "zero", "upload", "download"])
def test_negative_sizes_are_refused(dev, op):
    out = ctypes.c_void_p()
    leading = {"alloc": [ctypes.addressof(out)], "reserve": [], "zero": [None]}.get(op, [None, None])
    with pytest.raises(OpError, match="-1") as caught:
        dev.raw(op, *leading, -1)
    assert caught.value.code == VALUE


def test_memory_that_cannot_be_had(dev):
    with pytest.raises(OpError, match=str(1 << 60)):
        dev.alloc(1 << 60)
    with pytest.raises(OpError):
        dev.raw("reserve", 1 << 60)
    assert dev.struct.scratch_bytes == 0


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_without_scratch_an_operation_refuses_or_needs_none(dev, case):
    """A refusal has to come before the first write: Device.call checks the outputs then."""
    try:
        got, refusal = case.run(dev), None
    except OpError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code == STATE
        assert "scratch" in str(refusal)
        return
    dev.set_scratch(case.scratch)
    case.check(got, case.run(dev), "without scratch")


def test_ref_attention_states_the_scratch_it_lacks():
    with Device("ref") as ref:
        for case in cases_of("attention_forward", "attention_backward"):
            if len(case.arguments["k"]) > 0:
                with pytest.raises(OpError, match=r"needs \d+ bytes of scratch, 0 are reserved"):
                    case.run(ref)


# -- results that are not finite -----------------------------------------------------------------------------------

POISONED = {
    "linear_forward": ("inp", "out"),
    "linear_backward": ("dout", "dinp"),
    "embed_forward": ("type", "out"),
    "add_forward": ("a", "out"),
    "layernorm_forward": ("inp", "out"),
    "layernorm_backward": ("dout", "dinp"),
    "gelu_forward": ("inp", "out"),
    "gelu_backward": ("inp", "dinp"),
    "narrow": ("inp", "inp"),
    "activation_backward": ("dout", "dinp"),
    "window_forward": ("inp", "out"),
    "window_backward": ("dout", "dinp"),
    "segment_max_forward": ("inp", "out"),
    "segment_max_backward": ("dout", "dinp"),
    "attention_forward": ("q", "out"),
    "attention_backward": ("dout", "dq"),
    "mean_forward": ("inp", "out"),
    "normalize_forward": ("inp", "out"),
    "softmax_xent": ("logits", "loss"),
    "sum_squares": ("inp", "out"),
    "adamw_update": ("grad", "param"),
    "sgd_update": ("grad", "param"),
    "linear_gelu_forward": ("inp", "act"),
    "residual_layernorm_forward": ("residual", "out"),
}


@pytest.mark.parametrize("poison", [np.nan, np.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("op", POISONED)
def test_a_value_that_is_not_finite_is_not_hidden(dev, op, poison):
    """The training loop looks at the loss and at the gradients' norm: NaN must reach them."""
    source, result = POISONED[op]
    case = max(cases_of(op), key=lambda case: case.arguments[source].size)
    dev.set_scratch(case.scratch)
    poisoned = case.arguments[source].copy()
    poisoned.flat[poisoned.size // 2] = poison
    got = dev.call(op, **{**case.arguments, source: poisoned})
    assert not np.isfinite(got[result]).all()


@pytest.mark.parametrize("kind", [TANH, RELU])
def test_an_activation_passes_nan_on(dev, kind):
    """tanh of infinity is 1; NaN has to stay."""
    inp = np.float32([1, np.nan, -1, np.inf])
    out = dev.call("activation_forward", out=np.zeros(4, np.float32), inp=inp, N=4, kind=kind)["out"]
    assert np.isnan(out).tolist() == [False, True, False, False]


def test_a_list_gives_what_its_operations_give_one_by_one(dev):
    a, out = np.arange(5, dtype=np.float32), np.empty(5, np.float32)
    inp, result = dev.alloc(a.nbytes), dev.alloc(a.nbytes)
    dev.raw("upload", inp, a.ctypes.data, a.nbytes)
    dev.raw("list_begin")
    dev.raw("add_forward", result, inp, inp, a.size)
    dev.raw("add_forward", result, result, inp, a.size)
    dev.raw("list_end", 0)
    dev.raw("download", out.ctypes.data, result, out.nbytes)
    assert np.array_equal(out, 3 * a)
    for address in (inp, result):
        dev.raw("release", address)


@pytest.mark.parametrize("status", [VALUE, STATE])
def test_a_list_ends_with_the_status_of_its_caller(dev, status):
    dev.raw("list_begin")
    assert dev.function("list_end")(dev.handle, status) == status
