"""The core's networks (csrc/network.h) below its Python types: forward and backward passes of a batch."""

import ctypes

import numpy as np
from level1 import INT64, CorpusArrays, Tokens
from ops.harness import Device, library, message

FLOATS = ctypes.POINTER(ctypes.c_float)
POINTER = ctypes.c_void_p


class Param(ctypes.Structure):
    """rp_param."""

    _fields_ = (
        ("name", ctypes.c_char * 80),
        *((name, INT64) for name in ("rows", "columns", "offset", "count")),
        ("init", ctypes.c_int),
        ("std", ctypes.c_double),
        ("decay", ctypes.c_bool),
        ("mlm_head", ctypes.c_bool),
    )


class Params(ctypes.Structure):
    """rp_params, the beginning."""

    _fields_ = (*((name, INT64) for name in ("count", "capacity", "total")), ("table", ctypes.POINTER(Param)))


class Model(ctypes.Structure):
    """rp_model."""

    _fields_ = (
        ("params", ctypes.POINTER(Params)),
        ("dev", POINTER),
        ("backend", ctypes.c_char * 32),
        ("values", FLOATS),
        ("version", INT64),
        ("graph", FLOATS),
        ("graph_rows", INT64),
    )


class CnnConfig(ctypes.Structure):
    """rp_cnn_config."""

    sizes = ("vocab_size", "word_size", "max_distance", "position_size", "pos_tags", "ner_tags", "pos_size", "ner_size")
    _fields_ = (
        *((name, INT64) for name in (*sizes, "window", "hidden_size")),
        ("piecewise", ctypes.c_bool),
        ("activation", ctypes.c_int),
        ("initializer_range", ctypes.c_double),
    )


class Config(ctypes.Structure):
    """rp_config."""

    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes += ("max_position_embeddings", "position_offset", "type_vocab_size", "embedding_size")
    rates = ("layer_norm_eps", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob")
    flags = ("embedding_projection", "shared_layers", "attended_dropout", "feed_forward_dropout")
    _fields_ = (
        *((name, INT64) for name in sizes),
        *((name, ctypes.c_double) for name in rates),
        *((name, ctypes.c_bool) for name in flags),
        ("graph_size", INT64),
    )


class Sample(ctypes.Structure):
    """rp_sample."""

    _fields_ = (
        ("row", INT64),
        ("input", ctypes.c_int),
        *((name, ctypes.c_bool) for name in ("blank_head", "blank_tail", "role_blanks", "without_graph")),
    )


class Pass(ctypes.Structure):
    """rp_pass."""

    _fields_ = (
        ("hidden_dropout", ctypes.c_double),
        ("attention_dropout", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("step", ctypes.c_uint32),
    )


class Reads(ctypes.Structure):
    """rp_reads."""

    names = ("all", "first", "markers", "mentions", "prompt", "masked", "outside")
    _fields_ = tuple((name, ctypes.c_bool) for name in names)


class Represent(ctypes.Structure):
    """rp_represent, with room for more parts."""

    _fields_ = (("parts", INT64), ("part", ctypes.c_int * 16))


class Tensors(ctypes.Structure):
    """rp_tensors."""

    _fields_ = (
        ("params", ctypes.POINTER(Params)),
        *((name, FLOATS) for name in ("values", "grads", "moment1", "moment2")),
    )


class SgdOptions(ctypes.Structure):
    """rp_sgd_options."""

    _fields_ = tuple((name, ctypes.c_double) for name in ("momentum", "weight_decay", "max_grad_norm"))


class Capacity(ctypes.Structure):
    """rp_capacity."""

    _fields_ = (
        ("sequences", INT64),
        ("tokens", INT64),
        ("train", ctypes.c_bool),
        ("products", ctypes.c_int),
        ("spare", INT64),
    )


class Arena(ctypes.Structure):
    """rp_arena."""

    _fields_ = (("base", POINTER), ("used", ctypes.c_size_t), ("capacity", ctypes.c_size_t))


def check(code):
    if code:
        raise RuntimeError(message())


def call(name, *arguments, result=ctypes.c_int):
    """Calls a function of the core; numbers are int64 unless they say otherwise."""
    function = getattr(library(), name)
    function.restype = result
    wide = [INT64(a) if type(a) is int else a for a in arguments]
    return function(*wide) if result is not ctypes.c_int else check(function(*wide))


class Network:
    """A model with the given weights and the workspace to train it.

    `config` is a CnnConfig or a Config; `values` {name: array} or a seed.
    """

    def __init__(self, config, values, *, backend="ref", num_threads=1, sequences=64, tokens=2048, spec=()):
        self.device = Device(backend, num_threads)
        self.device.set_scratch((2048, 256, 1 << 16, 128, 64))
        model = ctypes.POINTER(Model)()
        make = "rp_model_new_cnn" if isinstance(config, CnnConfig) else "rp_model_new"
        call(make, ctypes.byref(model), ctypes.byref(config), backend.encode())
        self.model, self.params = model, model.contents.params.contents
        self.table = {p.name.decode(): p for p in self.params.table[: self.params.count]}
        self.values = np.ctypeslib.as_array(model.contents.values, (self.params.total,))
        for index, name in enumerate(self.table):
            if isinstance(values, dict):
                self.part(self.values, name)[...] = values[name]
            else:
                call("rp_model_init", model, index, ctypes.c_uint64(values))
        self.spec = Represent(len(spec), (ctypes.c_int * 16)(*spec))
        self.dim = call("rp_network_dim", model.contents.params, ctypes.byref(self.spec), result=INT64)
        self.dim = getattr(self.dim, "value", self.dim)
        self.workspace = ctypes.create_string_buffer(1 << 14)  # rp_network is opaque here
        call("rp_network_open", self.workspace, model)
        measured = Arena()
        most = ctypes.byref(Capacity(sequences, tokens, True, self.device.struct.products, 0))
        call("rp_network_plan", self.workspace, ctypes.byref(measured), most, result=None)
        self.memory = np.full(measured.used + 256, 0xFF, np.uint8)
        base = (self.memory.ctypes.data + 255) // 256 * 256
        arena = Arena(base, 0, measured.used)
        call("rp_network_plan", self.workspace, ctypes.byref(arena), most, result=None)
        self.batch = POINTER()
        call("rp_batch_new", ctypes.byref(self.batch), sequences, tokens)

    def close(self):
        call("rp_batch_free", self.batch, result=None)
        call("rp_network_close", self.workspace, result=None)
        call("rp_model_free", self.model, result=None)
        self.device.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def part(self, flat, name):
        """A parameter's view into a flat buffer."""
        p = self.table[name]
        shape = (p.rows, p.columns) if p.columns else (p.rows,)
        return flat[p.offset : p.offset + p.count].reshape(shape)

    def parts(self, flat):
        return {name: self.part(flat, name) for name in self.table}

    def forward(self, arrays, tokens, rows, setting, *, max_length=64, dropout=0.0, step=0, numbers=None, masked=False):
        """Vectors float32 (n, dim) of corpus rows; what is kept is that of this batch."""
        corpus, kept = POINTER(), CorpusArrays.of(arrays)
        call("rp_corpus_new", ctypes.byref(corpus), ctypes.byref(kept))
        call("rp_batch_clear", self.batch, result=None)
        pieces = Tokens.of(tokens)
        for i, row in enumerate(rows):
            sample = Sample(int(row), setting)
            number = ctypes.c_int32(i if numbers is None else numbers[i])
            call("rp_batch_add", self.batch, corpus, ctypes.byref(pieces), ctypes.byref(sample), max_length, number)
        call("rp_corpus_free", corpus, result=None)
        self.past = Pass(dropout, dropout, 11, step)
        out = np.full((len(rows), self.dim), np.nan, np.float32)
        call(
            "rp_network_forward",
            self.workspace,
            self.device.handle,
            out.ctypes.data_as(FLOATS),
            self.model.contents.values,
            self.batch,
            ctypes.byref(self.spec),
            ctypes.byref(Reads(masked=masked)),
            ctypes.byref(self.past),
        )
        return out

    def backward(self, dvectors, grads=None):
        """Gradients of <dvectors, vectors> of the last forward pass, flat, added to `grads`."""
        grads = np.zeros(self.params.total, np.float32) if grads is None else grads
        dvectors = np.ascontiguousarray(dvectors, np.float32)
        call("rp_network_begin", self.workspace, self.device.handle)
        call(
            "rp_network_backward",
            self.workspace,
            self.device.handle,
            self.model.contents.values,
            grads.ctypes.data_as(FLOATS),
            dvectors.ctypes.data_as(FLOATS),
            ctypes.byref(self.spec),
            ctypes.byref(self.past),
        )
        return grads

    def sgd(self, grads, options, lr, norm, moments=None, mlm_head=False):
        """One update of the values in place."""
        moment1 = None if moments is None else moments.ctypes.data_as(FLOATS)
        buffers = (self.model.contents.values, grads.ctypes.data_as(FLOATS), moment1, None)
        tensors = Tensors(self.model.contents.params, *buffers)
        call(
            "rp_sgd_apply",
            self.device.handle,
            ctypes.byref(tensors),
            ctypes.byref(options),
            ctypes.c_double(lr),
            ctypes.c_double(norm),
            ctypes.c_bool(mlm_head),
        )
