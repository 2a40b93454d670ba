"""What ops.h promises beside the numbers, of the CUDA back end; and how it is made known to the core."""

import ctypes
import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import ops.test_contract
import pytest
from ops.cases import all_cases, cases_of, feed_forward_of
from ops.harness import BFLOAT16, FLOAT32, STATE, VALUE, Device, OpError, library, message
from ops.test_contract import (  # noqa: F401 (run here with the fixture below)
    test_a_list_ends_with_the_status_of_its_caller,
    test_a_list_gives_what_its_operations_give_one_by_one,
    test_a_value_that_is_not_finite_is_not_hidden,
    test_an_activation_passes_nan_on,
    test_every_slot_is_filled,
    test_memory_comes_zeroed_and_aligned,
    test_memory_that_cannot_be_had,
    test_negative_sizes_are_refused,
    test_upload_zero_download,
)

from gpu import backends, emulated

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=backends.NAMES)
def dev(request):
    with Device(backends.require(request.param)) as device:
        yield device


def smallest_cases():
    """Of every operation the smallest case that has something to do."""
    cases = [case for case in all_cases() if "0" not in {case.name[1:2]} and case.arguments.get("S") != 0]
    size = {case: sum(a.nbytes for a in case.arguments.values() if isinstance(a, np.ndarray)) for case in cases}
    return [min((c for c in cases if c.op == op), key=size.get) for op in sorted({case.op for case in cases})]


@pytest.mark.parametrize("case", smallest_cases(), ids=lambda case: case.id)
def test_without_scratch_an_operation_refuses_or_needs_none(dev, case):
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


def test_large_transfers_go_in_parts(dev):
    """Uploads go through pinned memory of 2 x 4 MiB."""
    sent = np.random.default_rng(1).integers(0, 255, 13_000_001).astype(np.uint8)
    address = dev.alloc(sent.size)
    for start, end in ((0, 9_000_000), (9_000_000, 9_000_001), (9_000_001, sent.size)):
        dev.raw("upload", address + start, sent[start:].ctypes.data, end - start)
    got = np.empty_like(sent)
    dev.raw("download", got.ctypes.data, address, got.size)
    dev.raw("release", address)
    assert np.array_equal(got, sent)


HEADS = ("q", "k", "v", "out", "dq", "dk", "dv", "dout")  # arrays of attention
LONG = [max(cases_of("linear_backward"), key=lambda case: case.arguments["T"])]
LONG += [case for case in feed_forward_of(4000, 48, 48) if case.arguments["kept"] is not None]


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.id)
def test_rows_are_cut_to_the_scratch(dev, case):
    """A product of more rows than rounded copies have room for gives what one in one piece gives."""
    dev.struct.products = BFLOAT16
    dev.set_scratch(case.scratch)
    whole = case.run(dev)
    rows, *rest = case.scratch
    dev.set_scratch((rows // 3, *rest))
    case.check(case.run(dev), whole, "in parts")


@pytest.mark.parametrize("products", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 3), (64, 40), (70, 100)])
def test_kept_weights_change_no_result(dev, products, inputs, outputs):
    ops.test_contract.test_kept_weights_change_no_result(dev, products, inputs, outputs)


@pytest.mark.parametrize(("place", "kept"), [(0, True), (256, True), (8, False), (1, False)])
def test_weights_are_rounded_once_for_a_version(dev, place, kept):
    """Values that are changed against the contract, without a word, show where the rounded ones come from: those that
    are aligned as a copy in scratch is are kept."""
    inputs, outputs, rng = 64, 40, np.random.default_rng(3)
    values, other = (rng.normal(size=place + inputs * outputs + 5).astype(np.float32) for _ in range(2))
    inp, out = rng.normal(size=(7, inputs)).astype(np.float32), np.empty((7, outputs), np.float32)
    address, inp_at, out_at = (dev.alloc(array.nbytes) for array in (values, inp, out))
    dev.struct.products = BFLOAT16
    dev.set_scratch((7, inputs, inputs * outputs, 1, 1))
    dev.raw("upload", inp_at, inp.ctypes.data, inp.nbytes)

    def result(array, version):
        dev.raw("upload", address, array.ctypes.data, array.nbytes)
        dev.raw("keep_weights", address, array.size, version)
        dev.raw("linear_forward", out_at, inp_at, address + 4 * place, None, len(inp), inputs, outputs)
        dev.raw("download", out.ctypes.data, out_at, out.nbytes)
        return out.tobytes()

    first = result(values, 1)
    assert (result(other, 1) == first) == kept
    assert result(other, 2) != first
    assert result(values, 3) == first
    for buffer in (address, inp_at, out_at):
        dev.raw("release", buffer)


def test_heads_that_are_too_wide_are_refused(dev):
    case = cases_of("attention_forward")[0]
    a = dict(case.arguments, D=257, q_stride=257, kv_stride=257)
    for name in ("q", "k", "v", "out"):
        a[name] = np.zeros((1, 257), np.float32)
    with pytest.raises(OpError, match="size of 257") as caught:
        dev.call("attention_forward", **a)
    assert caught.value.code == VALUE


@pytest.mark.parametrize(("D", "ways"), [(160, 2), (161, 1), (224, 1), (225, 0)])
def test_emulated_heads_for_which_a_gpu_has_too_little_shared_memory_are_refused(D, ways, monkeypatch):
    """99 KiB a block, as many GPUs have: forward takes wider heads than backward."""
    name = backends.require(emulated.NAME)
    monkeypatch.setattr(ctypes.c_int.in_dll(emulated.register(), "emulated_most_shared"), "value", 99 << 10)
    refusals = []
    with Device(name) as device:
        for op in ("attention_forward", "attention_backward"):
            a = dict(cases_of(op)[0].arguments, D=D, A=1, q_stride=D, kv_stride=D)
            a |= {name: np.zeros((len(a[name]), D), np.float32) for name in a if name in HEADS}
            try:
                device.call(op, **a)
            except OpError as error:
                refusals.append(error)
    assert len(refusals) == 2 - ways
    for refusal in refusals:
        assert refusal.code == VALUE
        assert f"size of {D}, for which" in str(refusal)
        assert f"this GPU has {99 << 10}" in str(refusal)


class Backend(ctypes.Structure):
    """rp_backend."""

    _fields_ = (
        ("contract", ctypes.POINTER(ctypes.c_char_p)),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("table", ctypes.c_void_p),
        ("relay", ctypes.c_void_p),
    )


@pytest.fixture
def backend():
    """A copy of the emulated one's description."""
    lib = emulated.register() if not backends.problem(emulated.NAME) else pytest.skip("no C++ compiler")
    return Backend.from_buffer_copy(ctypes.cast(lib.rp_cuda_backend(), ctypes.POINTER(Backend)).contents)


def test_another_versions_table_is_refused(backend):
    lines = list(itertools.takewhile(lambda line: line is not None, backend.contract))
    lines[7] = b"add_forward (rp_dev * dev, float *out)"
    backend.contract = (ctypes.c_char_p * (len(lines) + 1))(*lines, None)
    assert library().rp_ops_register(ctypes.byref(backend)) == STATE
    assert "compiled for another version" in message()
    assert "add_forward" in message()


def test_other_structures_are_refused(backend):
    sizes = [backend.sizes[i] for i in range(7)]
    backend.sizes = (ctypes.c_int64 * 8)(*sizes[:3], sizes[3] + 8, *sizes[4:], 0)
    assert library().rp_ops_register(ctypes.byref(backend)) == STATE
    assert "other sizes" in message()


def test_declarations_of_cublaslt_are_the_librarys(tmp_path):
    folders = [Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "include", Path("/usr/local/cuda/include")]
    found = [folder for folder in folders if (folder / "cublasLt.h").is_file()]
    if not found or emulated.compiler() is None:
        pytest.skip("there is no cublasLt.h here (the package nvidia-cublas has it), or no C++ compiler")
    include = [f"-I{folder}" for folder in (ROOT / "csrc", *found, "/usr/local/cuda/include")]
    check = ROOT / "tests" / "gpu" / "check_cublaslt.cpp"
    command = [emulated.compiler(), "-std=c++20", "-fsyntax-only", "-Wno-enum-compare", *include, str(check)]
    subprocess.run(command, check=True)


def test_the_extension_needs_libc_alone():
    found = importlib.util.find_spec("relpt._cuda")
    if found is None or shutil.which("ldd") is None:
        pytest.skip("relpt._cuda is not built, or there is no ldd")
    listed = subprocess.run(["ldd", found.origin], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0].rsplit("/", 1)[-1].split(".")[0] for line in listed.splitlines()}
    parts = {"libc", "libdl", "librt", "libpthread", "libm"}  # of one file since glibc 2.34
    assert {name for name in names if not name.startswith(("linux-vdso", "ld-linux"))} <= parts


def test_importing_relpt_loads_nothing_of_cuda():
    look = "import relpt, relpt.encoder; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "_core" in maps
    assert not re.search("libcuda|libcublas|_cuda", maps)
