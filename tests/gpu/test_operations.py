"""The CUDA back end against the reference: on the GPU where there is one, and its kernels on the CPU everywhere.

Products of float32 are held to the cases' own tolerance, those of operands rounded to bfloat16 to 4 % of the largest
value of a row, and to a reference that rounds the operands too (attention's: those that are its inputs).
"""

import dataclasses
import functools

import numpy as np
import pytest
from ops import formulas, harness
from ops.cases import all_cases, attention_saved, cases_of
from ops.harness import BFLOAT16, FLOAT32, INT8, TF32, TWO_BFLOAT16, VALUE, Device, OpError

from gpu import backends

LINEAR = ("linear_forward", "linear_backward", "linear_gelu_forward")
ATTENTION = ("attention_forward", "attention_backward")
ATTENTION_LAYERS = ("self_attention_forward", "self_attention_backward")
LAYERS = ("feed_forward_forward", "feed_forward_backward", *ATTENTION_LAYERS)


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


def narrowed(case):
    """The case with attention's inputs rounded to bfloat16."""
    a = dict(case.arguments)
    a |= {name: formulas.narrow(a[name])["inp"].astype(np.float32) for name in ("q", "k", "v", "dout") if name in a}
    if case.op == "attention_backward":
        saved = ("out", "lse", "dout", "dq", "dk", "dv")
        a |= attention_saved({name: value for name, value in a.items() if name not in saved})
    return dataclasses.replace(case, arguments=a)


def check_within(got, want, share, least):
    """No value is off by more than this share of the largest of its row, and `least`."""
    for name, value in want.items():
        if value.size:
            bound = share * np.abs(value).max(axis=-1, keepdims=True) + least
            assert (np.abs(got[name] - value) <= bound).all(), name


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_agrees_with_ref(case, device):
    if case.op == "rows_scatter_add":  # exact where rows are added one after another; here they are in runs
        case = dataclasses.replace(case, rtol=1e-5)
    case.check(run(case, device), reference(case), device.name)


@pytest.mark.parametrize("case", cases_of(*LINEAR), ids=lambda case: case.id)
def test_bfloat16_products(case, device):
    got = run(case, device, BFLOAT16)
    case.check(got, reference(case, BFLOAT16), device.name)
    check_within(got, reference(case), 4e-2, 4e-2)
    if all(case.arguments[size] > 1 for size in "TIO"):
        assert any(not np.array_equal(value, reference(case)[name]) for name, value in got.items()), "in float32"


@pytest.mark.parametrize("case", cases_of(*LINEAR), ids=lambda case: case.id)
def test_tf32_products(case, device):
    check_within(run(case, device, TF32), reference(case), 1e-2, 1e-2)


def test_tf32_is_rounded_and_float32_is_not(device, monkeypatch):
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (256,))  # as tensor cores want it
    case = next(case for case in cases_of("linear_forward") if case.name == "T130-I64-O96")
    rounded, whole, want = run(case, device, TF32)["out"], run(case, device)["out"], reference(case)["out"]
    off = [np.abs(found - want).max() / np.abs(want).max() for found in (rounded, whole)]
    assert off[1] < 1e-5 < 1e-4 < off[0]


@pytest.mark.parametrize("margin", [harness.MARGIN, 256])
@pytest.mark.parametrize("case", cases_of(*LINEAR), ids=lambda case: case.id)
def test_products_of_two_bfloat16(case, margin, device, monkeypatch):
    """The factors, of size 1, are off by some 4e-6, and the sums as random walks of as many steps are."""
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (margin,))
    least = 1e-5 * max(case.arguments[size] for size in "TIO") ** 0.5
    check_within(run(case, device, TWO_BFLOAT16), reference(case), 2e-5, least)


def test_two_bfloat16_have_twice_the_digits_of_one(device):
    """From so many multiplications on that the back end takes them."""
    rows, inputs, outputs = (1100, 1030, 1000) if device.name == "cuda" else (40, 33, 24)
    rng = np.random.default_rng(11)
    inp, weight = (rng.normal(size=(size, inputs)).astype(np.float32) for size in (rows, outputs))
    arguments = {"out": np.empty((rows, outputs), np.float32), "inp": inp, "weight": weight, "bias": None}
    arguments |= {"T": rows, "I": inputs, "O": outputs}
    case = dataclasses.replace(cases_of("linear_forward")[0], arguments=arguments)
    want, off = inp.astype(np.float64) @ weight.astype(np.float64).T, {}
    for products in (FLOAT32, TWO_BFLOAT16, BFLOAT16):
        off[products] = np.abs(run(case, device, products)["out"] - want).max() / np.abs(want).max()
    assert off[FLOAT32] < off[TWO_BFLOAT16] / 2 < 1e-5 < 1e-3 < off[BFLOAT16]


@pytest.mark.parametrize("case", cases_of(*ATTENTION), ids=lambda case: case.id)
def test_bfloat16_attention(case, device):
    """Scores of several hundred, rounded, are other scores: such a case is held to the reference of rounded inputs."""
    got = run(case, device, BFLOAT16)
    if case.atol is None or case.atol <= 1e-5:
        check_within(got, reference(case), 4e-2, 4e-2)
    narrow = narrowed(case)
    check_within(run(narrow, device, BFLOAT16), reference(narrow), 1e-2, 1e-2)
    if case.arguments["R"] > 1 and case.arguments["D"] <= 128:
        assert any(not np.array_equal(value, run(case, device)[name]) for name, value in got.items()), "in float32"


@pytest.mark.parametrize("margin", [harness.MARGIN, 256])  # an odd place, and one that is aligned for wide words
@pytest.mark.parametrize("case", cases_of(*LAYERS), ids=lambda case: case.id)
def test_bfloat16_layers(case, margin, device, monkeypatch):
    """Where something is kept in 16 bits, so is what stands between a layer's products."""
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (margin,))
    got, want, narrow = run(case, device, BFLOAT16), reference(case), reference(case, BFLOAT16)
    for found in (got, want, narrow):
        if "kept" in found:
            found["kept"] = formulas.widen(found["kept"])["out"]
    check_within(got, want, 4e-2, 4e-2)
    if case.op not in ATTENTION_LAYERS:  # attention's own operands are not rounded there
        check_within(got, narrow, 1e-2, 1e-2)
    if case.arguments["T"] > 1:
        assert any(not np.array_equal(value, want[name]) for name, value in got.items()), "in float32"


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("op", "source", "result"),
    [("attention_forward", "q", "out"), ("attention_backward", "dout", "dq"), ("attention_backward", "v", "dk")],
)
def test_bfloat16_attention_hides_no_value_that_is_not_finite(op, source, result, poison, device):
    case = max(cases_of(op), key=lambda case: case.arguments[source].size)
    poisoned = case.arguments[source].copy()
    poisoned[len(poisoned) // 2, 0] = poison
    got = run(dataclasses.replace(case, arguments={**case.arguments, source: poisoned}), device, BFLOAT16)
    assert not np.isfinite(got[result]).all()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.id)
def test_bytes_are_the_same_from_call_to_call(case, device, monkeypatch):
    """On the CPU the second call runs the threads of a block, and the blocks, in the opposite order."""
    kinds = (FLOAT32, BFLOAT16) if case.op in ATTENTION + LAYERS else (FLOAT32,)
    once = [run(case, device, products) for products in kinds]
    monkeypatch.setenv("RELPT_EMULATE", "reverse")
    again = [run(case, device, products) for products in kinds]
    for first, second in zip(once, again, strict=True):
        for name, value in first.items():
            assert value.tobytes() == second[name].tobytes(), name


WIDE = (*LINEAR, "dropout_forward", "layernorm_backward", "residual_layernorm_forward", "residual_layernorm_backward")


@pytest.mark.parametrize("case", cases_of(*WIDE), ids=lambda case: case.id)
def test_aligned_arrays(case, device, monkeypatch):
    """Arrays that begin at multiples of 256 bytes are read and written in wider words where their rows allow it."""
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (256,))
    products = BFLOAT16 if case.op in LINEAR else FLOAT32
    case.check(run(case, device, products), reference(case, products), device.name)


@pytest.mark.parametrize("case", cases_of(*ATTENTION), ids=lambda case: case.id)
def test_aligned_arrays_change_nothing_in_attention(case, device, monkeypatch):
    once = run(case, device, BFLOAT16)
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (256,))
    again = run(case, device, BFLOAT16)
    for name, value in once.items():
        assert value.tobytes() == again[name].tobytes(), name


def test_int8_is_refused(device):
    with pytest.raises(OpError, match="int8 products are for encoding on the CPU") as caught:
        run(cases_of("linear_forward")[0], device, INT8)
    assert caught.value.code == VALUE


NORMS = {"layernorm_forward": "out", "residual_layernorm_forward": "out", "residual_layernorm_backward": "dinp"}


@pytest.mark.parametrize("margin", [harness.MARGIN, 256])
@pytest.mark.parametrize("numbers_too", [True, False], ids=["both", "bits"])
@pytest.mark.parametrize("case", cases_of(*NORMS), ids=lambda case: case.id)
def test_norms_give_the_bits_of_their_numbers(case, numbers_too, margin, device, monkeypatch):
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (margin,))
    name = NORMS[case.op]
    numbers_too |= case.arguments.get("sum", 0) is None  # one of the two has to be there
    want = run(case, device, BFLOAT16)
    arguments = {**case.arguments, f"{name}_bits": np.zeros(want[name].shape, np.uint16)}
    if not numbers_too:
        arguments[name] = None
    got = run(dataclasses.replace(case, arguments=arguments), device, BFLOAT16)
    assert np.array_equal(got.pop(f"{name}_bits"), formulas.narrow(want[name])["kept"])
    if not numbers_too:
        want.pop(name)
    assert {name: value.tobytes() for name, value in got.items()} == {
        name: value.tobytes() for name, value in want.items()
    }


@pytest.mark.parametrize("margin", [harness.MARGIN, 256])
@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases_of(*LAYERS)
        if ("kept" in case.id or "nothing" in case.id) and case.arguments.get("D", 0) <= 128
    ],
    ids=lambda case: case.id,
)
def test_layers_read_bits_as_the_numbers_they_are(case, margin, device, monkeypatch):
    monkeypatch.setattr(harness._Buffer.__init__, "__defaults__", (margin,))
    numbers, bits = dict(case.arguments), dict(case.arguments)
    for name in ("inp", "dout"):
        if name in numbers:
            kept = formulas.narrow(numbers[name])["kept"]
            numbers[name] = np.ascontiguousarray(formulas.widen(kept)["out"], np.float32)
            bits |= {name: None, f"{name}_bits": kept}
    if case.op in ATTENTION_LAYERS and case.arguments["R"] == case.arguments["T"]:
        numbers["asking"], bits["asking"] = numbers["inp"], None
    got, want = (run(dataclasses.replace(case, arguments=given), device, BFLOAT16) for given in (bits, numbers))
    assert {name: value.tobytes() for name, value in got.items()} == {
        name: value.tobytes() for name, value in want.items()
    }
