"""Which forms of the CUDA back end can be tested here: on a GPU, and its kernels compiled for the CPU."""

import ctypes
import functools

import pytest

from gpu import emulated
from relpt import _core

NAMES = ("cuda", emulated.NAME)


class Counts(ctypes.Structure):
    """rp_cuda_list_counts."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("direct", "graphs", "refused"))


@functools.cache
def problem(name):
    """Why it cannot be tested; "" when it can. It is known to the core then."""
    if name == emulated.NAME:
        if emulated.compiler() is None:
            return "there is no C++ compiler to build the emulated CUDA back end with"
        emulated.register()
        return ""
    try:
        from relpt import _cuda
    except ImportError as error:
        return f"relpt._cuda is not built ({error})"
    facts = _cuda.facts()
    if facts["problem"] is None:
        _core.add_backend(_cuda.backend)
        return ""
    return f"no GPU: {facts['problem']}"


def lists(name):
    """{"direct": …, "graphs": …, "refused": …}: lists of operations that this process has carried out each way."""
    if name == emulated.NAME:
        count = emulated.register().rp_cuda_count_lists
        count.restype = Counts
        counts = count()
        return {field: getattr(counts, field) for field, _ in Counts._fields_}
    from relpt import _cuda

    return _cuda.lists()


def require(name):
    """The name, or a skip that says why not."""
    if problem(name):
        pytest.skip(problem(name))
    return name
