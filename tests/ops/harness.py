"""Calls the table of operations directly, below everything else of the library.

A call goes by names: ``device.call("linear_forward", out=…, inp=…, weight=…, bias=None, T=3, I=4, O=5)``. The
arguments' order and types are read from ``csrc/ops.h``, so that a test cannot pass what the contract does not say.
Array arguments travel through the device's own memory slots, each between two margins:

* a margin that an operation has written to is an error (so is a changed input);
* margins are NaN (or -1 in integers), so that reading beyond an array shows in the result;
* arrays start at an address that is a multiple of 4 bytes and of nothing more.

The library is ``relpt._core``; the environment variable ``RELPT_CORE_LIBRARY`` names another file.
"""

import ctypes
import dataclasses
import functools
import os
import re
from pathlib import Path

import numpy as np

OPS_H = Path(__file__).resolve().parents[2] / "csrc" / "ops.h"
CPU_LEVELS = ("cpu/baseline", "cpu/avx2", "cpu/avx512", "cpu/amx")
MARGIN = 67 * 4  # bytes: odd in elements, so that what lies behind it is aligned to one element only

VALUE, STATE = 1, 2  # rp_status


class OpError(RuntimeError):
    """An operation returned a status other than RP_OK; `code` is the status, the text is rp_message's."""

    def __init__(self, op, code, message):
        super().__init__(f"{op}: status {code}: {message}")
        self.code = code


@dataclasses.dataclass(frozen=True)
class Same:
    """An output that aliases the argument of this name."""

    name: str


@dataclasses.dataclass
class Dropout:
    """rp_dropout; `p` becomes the threshold. p = 0 leaves the arrays NULL: they are not to be read."""

    p: float = 0.0
    key: int = 0x0123456789ABCDEF
    step: int | None = 3
    sample: np.ndarray | None = None
    sequence: np.ndarray | None = None
    pos: np.ndarray | None = None

    @property
    def threshold(self):
        return round(self.p * 65536)

    @property
    def none(self):
        return 0


@dataclasses.dataclass
class Xent:
    """rp_xent."""

    target: np.ndarray
    skip: np.ndarray | None = None
    row_group: np.ndarray | None = None
    col_group: np.ndarray | None = None
    supervised: int = 0
    scale: float = 1.0
    weight: float = 1.0
    smoothing: float = 0.0


@dataclasses.dataclass
class AdamWStep:
    """rp_adamw_step."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    correction1: float = 0.1
    correction2: float = 0.001
    grad_scale: float = 1.0


@dataclasses.dataclass
class SGDStep:
    """rp_sgd_step."""

    lr: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 0.01
    grad_scale: float = 1.0


class _DropoutStruct(ctypes.Structure):
    _fields_ = [
        ("key", ctypes.c_uint64),
        ("step", ctypes.c_void_p),
        ("sample", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("threshold", ctypes.c_uint32),
        ("none", ctypes.c_uint32),
    ]


class _XentStruct(ctypes.Structure):
    _fields_ = [
        ("target", ctypes.c_void_p),
        ("skip", ctypes.c_void_p),
        ("row_group", ctypes.c_void_p),
        ("col_group", ctypes.c_void_p),
        ("supervised", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("weight", ctypes.c_float),
        ("smoothing", ctypes.c_float),
    ]


class _AdamWStruct(ctypes.Structure):
    _fields_ = [(field.name, ctypes.c_float) for field in dataclasses.fields(AdamWStep)]


class _SGDStruct(ctypes.Structure):
    _fields_ = [(field.name, ctypes.c_float) for field in dataclasses.fields(SGDStep)]


FLOAT32, BFLOAT16, INT8, TF32, TWO_BFLOAT16 = range(5)  # rp_dtype
TYPES = {"float": np.float32, "int32_t": np.int32, "uint16_t": np.uint16}  # of arrays
TANH, RELU = 0, 1  # rp_activation


class Extent(ctypes.Structure):
    """rp_extent."""

    _fields_ = [(name, ctypes.c_int64) for name in ("rows", "widest", "weight", "max_len", "head_size")]


class _DevStruct(ctypes.Structure):
    _fields_ = [
        ("ops", ctypes.c_void_p),
        ("num_threads", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_size_t),
        ("kept", ctypes.c_void_p),
        ("poll", ctypes.c_void_p),
        ("poll_context", ctypes.c_void_p),
        ("products", ctypes.c_int),
        ("state", ctypes.c_void_p),
    ]


STRUCTS = {
    "rp_dropout": _DropoutStruct,
    "rp_xent": _XentStruct,
    "rp_adamw_step": _AdamWStruct,
    "rp_sgd_step": _SGDStruct,
}


# -- the contract, as ops.h states it ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parameter:
    name: str
    type: str  # float, int32_t, int64_t, double, void, rp_dropout, …
    pointer: bool
    const: bool


@functools.cache
def signatures():
    """{slot: (Parameter, …)} without the leading device, in the order of ops.h. open and close are not
    among them: rp_dev_open and rp_dev_close call these."""
    text = re.sub(r"/\*.*?\*/", " ", OPS_H.read_text(encoding="utf-8").replace("\\\n", "\n"), flags=re.DOTALL)
    found = {}
    for slot, arguments in re.findall(r"\bX\((\w+),\s*\(rp_dev \* dev(?:,\s*([^()]*))?\)\)", text):
        if slot in ("open", "close"):
            continue
        parameters = []
        for argument in filter(None, arguments.split(",")):
            const, kind, stars, name = re.fullmatch(r"\s*(const )?\s*(\w+)\s*(\**)\s*(\w+)\s*", argument).groups()
            parameters.append(Parameter(name, kind, bool(stars), bool(const)))
        found[slot] = tuple(parameters)
    return found


# -- the library ---------------------------------------------------------------------------------------------------


@functools.cache
def library():
    path = os.environ.get("RELPT_CORE_LIBRARY")
    if not path:
        import relpt._core

        path = relpt._core.__file__
    lib = ctypes.CDLL(path)
    lib.rp_message.restype = ctypes.c_char_p
    lib.rp_ops_find.restype = ctypes.c_void_p
    lib.rp_ops_find.argtypes = [ctypes.c_char_p]
    lib.rp_ops_slot.restype = ctypes.c_void_p
    lib.rp_ops_slot.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.rp_dev_open.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_int64]
    lib.rp_dev_close.argtypes = [ctypes.c_void_p]
    lib.rp_dev_close.restype = None
    return lib


def message():
    return library().rp_message().decode()


def cpu_levels():
    """The levels of the cpu back end that this build and machine have."""
    return [name for name in CPU_LEVELS if library().rp_ops_find(name.encode())]


def backends():
    return ["ref", *cpu_levels()]


class _Buffer:
    """A NumPy array's copy in device memory, between two margins."""

    def __init__(self, device, array, margin=MARGIN):
        self.device, self.array, self.margin = device, array, margin
        inner = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        edge = np.full(margin, 0xFF, np.uint8)
        self.sent = np.concatenate([edge, inner, edge])
        self.base = device.alloc(self.sent.nbytes)
        self.address = self.base + margin
        device.raw("upload", self.base, self.sent.ctypes.data, self.sent.nbytes)

    def fetch(self):
        got = np.empty_like(self.sent)
        self.device.raw("download", got.ctypes.data, self.base, got.nbytes)
        return got

    def check_margins(self, what):
        got = self.fetch()
        assert (got[: self.margin] == 0xFF).all(), f"{what} was written to before its start"
        assert (got[len(got) - self.margin :] == 0xFF).all(), f"{what} was written to behind its end"

    def check_unchanged(self, what):
        assert np.array_equal(self.fetch(), self.sent), f"{what} was changed"

    def value(self):
        inner = self.fetch()[self.margin : len(self.sent) - self.margin]
        return inner.view(self.array.dtype).reshape(self.array.shape)


class Device:
    """An opened back end. Without set_scratch it has no scratch memory."""

    def __init__(self, backend="ref", num_threads=1):
        self.lib, self.handle, self.functions, self.scratch = library(), ctypes.c_void_p(), {}, None
        code = self.lib.rp_dev_open(ctypes.byref(self.handle), backend.encode(), num_threads)
        if code:
            raise OpError(f"rp_dev_open({backend})", code, message())
        self.struct = ctypes.cast(self.handle, ctypes.POINTER(_DevStruct)).contents
        self.num_threads = self.struct.num_threads
        self.name = ctypes.cast(self.struct.ops, ctypes.POINTER(ctypes.c_char_p))[0].decode()  # rp_ops' first field

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.handle:
            self.set_scratch(None)
            self.lib.rp_dev_close(self.handle)
            self.handle = None

    def scratch_bytes(self, sizes):
        """Bytes of scratch for `sizes` (those of Extent)."""
        extent, count = Extent(*sizes), ctypes.c_int64()
        self.raw("scratch", ctypes.addressof(count), ctypes.addressof(extent))
        return count.value

    def set_scratch(self, sizes):
        """Scratch of exactly the table's bytes for `sizes`, between margins and full of garbage; None takes it away."""
        if self.scratch is not None:
            self.raw("release", self.scratch.base)
            self.scratch, self.struct.scratch, self.struct.scratch_bytes = None, None, 0
        if sizes is not None:
            count = self.scratch_bytes(sizes)
            self.scratch = _Buffer(self, np.full(count, 0xFF, np.uint8), margin=256)  # scratch is RP_ALIGN-aligned
            self.struct.scratch, self.struct.scratch_bytes = self.scratch.address, count

    def function(self, op):
        if op not in self.functions:
            address = self.lib.rp_ops_slot(self.struct.ops, op.encode())
            assert address, f"the table has no slot {op}"
            types = [ctypes.c_void_p]
            for parameter in signatures()[op]:
                scalar = {"int64_t": ctypes.c_int64, "float": ctypes.c_float}
                types.append(ctypes.c_void_p if parameter.pointer else scalar[parameter.type])
            self.functions[op] = ctypes.CFUNCTYPE(ctypes.c_int, *types)(address)
        return self.functions[op]

    def raw(self, op, *arguments):
        """Calls a slot with addresses and numbers as they are."""
        code = self.function(op)(self.handle, *arguments)
        if code:
            raise OpError(op, code, message())

    def alloc(self, size):
        out = ctypes.c_void_p()
        self.raw("alloc", ctypes.addressof(out), size)
        return out.value

    def call(self, op, rooms=(), **arguments):
        """Calls a slot by its arguments' names and returns {output: array}, but for the `rooms`. The arrays passed are
        not changed; what an output holds before the call is what was passed for it. Bits (<name>_bits) may be left out:
        NULL."""
        parameters = signatures()[op]
        arguments = {p.name: None for p in parameters if p.name.endswith("_bits")} | arguments
        assert {p.name for p in parameters} == set(arguments), f"{op} takes {[p.name for p in parameters]}"
        buffers, hosts, given = {}, {}, {}
        try:
            for p in parameters:
                value = arguments[p.name]
                if not isinstance(value, Same):
                    given[p.name] = self._argument(p, value, buffers, hosts)
            for p in parameters:
                if isinstance(arguments[p.name], Same):
                    assert not p.const, "an output may alias an input, not the other way round"
                    given[p.name] = given[arguments[p.name].name]
            try:
                self.raw(op, *(given[p.name] for p in parameters))
            except OpError:
                if not rooms:  # an operation fails only before it writes, unless it is composed of some
                    for name, buffer in buffers.items():
                        buffer.check_unchanged(f"{name} of the failed {op}")
                raise
            results = self._results(op, parameters, arguments, buffers, hosts)
            return {name: value for name, value in results.items() if name not in rooms}
        finally:
            for buffer in buffers.values():
                self.raw("release", buffer.base)

    def _argument(self, p, value, buffers, hosts):
        if not p.pointer:
            return value
        if value is None:
            return None
        if p.type in STRUCTS:
            hosts[p.name] = struct = self._struct(p, value, buffers)
            return ctypes.addressof(struct)
        if p.type == "double":  # the one result that is written to host memory
            hosts[p.name] = value.copy()
            return hosts[p.name].ctypes.data
        assert value.dtype == TYPES[p.type], f"{p.name} is {value.dtype}"
        buffers[p.name] = _Buffer(self, value)
        return buffers[p.name].address

    def _struct(self, p, value, buffers):
        struct = STRUCTS[p.type]()
        for name, kind in struct._fields_:
            field = getattr(value, name)
            if kind is ctypes.c_void_p and field is not None:
                buffers[f"{p.name}.{name}"] = buffer = _Buffer(self, np.asarray(field, np.int32))
                field = buffer.address
            setattr(struct, name, field)
        return struct

    def _results(self, op, parameters, arguments, buffers, hosts):
        writable = {p.name for p in parameters if p.pointer and not p.const}
        aliased = {value.name for value in arguments.values() if isinstance(value, Same)}
        for name, buffer in buffers.items():
            if name in writable | aliased:
                buffer.check_margins(f"{name} of {op}")
            else:
                buffer.check_unchanged(f"the input {name} of {op}")
        if self.scratch is not None:
            self.scratch.check_margins(f"the scratch of {op}")
        results = {}
        for name in writable:
            value = arguments[name]
            if value is not None:
                results[name] = hosts[name] if name in hosts else buffers[getattr(value, "name", name)].value()
        return results
