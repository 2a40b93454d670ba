"""Which forms of the CUDA back end can be tested here: on a GPU, and its kernels compiled for the CPU."""

import ctypes
import functools

import pytest
from ops.harness import message

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


class Work(ctypes.Structure):
    """rp_cuda_work."""

    _fields_ = (("name", ctypes.c_char * 104), ("seconds", ctypes.c_double), ("operations", ctypes.c_double))


class EmulatedTimes:
    """relpt._cuda's functions that tell times, of the emulated back end."""

    def __init__(self):
        self.library = emulated.register()

    def call(self, function, *arguments):
        if getattr(self.library, function)(*arguments):
            raise RuntimeError(message())

    def mark(self):
        mark = ctypes.c_void_p()
        self.call("rp_cuda_mark", ctypes.byref(mark))
        return mark

    def seconds(self, begin, end):
        found = ctypes.c_double()
        self.call("rp_cuda_seconds", ctypes.byref(found), begin, end)
        return found.value

    def profile_begin(self):
        self.call("rp_cuda_profile_begin")

    def profile_end(self):
        rows, count = ctypes.POINTER(Work)(), ctypes.c_int64()
        self.call("rp_cuda_profile_end", ctypes.byref(rows), ctypes.byref(count))
        return [(rows[i].name.decode(), rows[i].seconds, rows[i].operations) for i in range(count.value)]


def times(name):
    """What has mark, seconds, profile_begin and profile_end."""
    if name == emulated.NAME:
        return EmulatedTimes()
    from relpt import _cuda

    return _cuda


def require(name):
    """The name, or a skip that says why not."""
    if problem(name):
        pytest.skip(problem(name))
    return name


def stand_for_cuda(name, monkeypatch):
    """The name, or a skip; device "cuda" means this back end until the test ends."""
    require(name)
    monkeypatch.setattr("relpt.encoder.backend_of", lambda device: name if device == "cuda" else device)
    monkeypatch.setattr("relpt.trainer.usable_memory", lambda device: 1 << 30)
    return name
