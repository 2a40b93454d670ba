"""Lists of operations (rp_ops.list_begin), one by one and as CUDA graphs."""

import contextlib
import ctypes

import numpy as np
import pytest
from ops.harness import BFLOAT16, STATE, VALUE, Device, OpError
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from gpu import backends, emulated

MODES = ("0", "1", "auto")
ROWS, INPUTS, OUTPUTS = 9, 16, 8


@pytest.fixture(params=backends.NAMES)
def name(request):
    return backends.require(request.param)


@contextlib.contextmanager
def opened(name, mode, monkeypatch):
    monkeypatch.setenv("RELPT_CUDA_GRAPHS", mode)
    with Device(name) as device:
        device.struct.products = BFLOAT16
        device.set_scratch((ROWS, INPUTS, INPUTS * OUTPUTS, 1, 1))
        yield device


def carried_out(name, before):
    now = backends.lists(name)
    return {way: now[way] - before[way] for way in now}


class Work:
    """out = gelu(inp weight^T + bias) + 0: a clearing, a product and kernels."""

    def __init__(self, device):
        rng = np.random.default_rng(5)
        self.device, self.out = device, np.empty((ROWS, OUTPUTS), np.float32)
        self.weight, self.bias = (self.put(rng.normal(size=shape)) for shape in ((OUTPUTS, INPUTS), OUTPUTS))
        self.inp, self.sum = self.put(np.zeros((ROWS, INPUTS))), self.put(np.ones((ROWS, OUTPUTS)))
        self.product = self.put(np.zeros((ROWS, OUTPUTS)))

    def put(self, values):
        array = np.ascontiguousarray(values, np.float32)
        address = self.device.alloc(array.nbytes)
        self.device.raw("upload", address, array.ctypes.data, array.nbytes)
        return address

    def note(self, rows):
        call = self.device.raw
        call("zero", self.sum, self.out.nbytes)
        call("linear_forward", self.product, self.inp, self.weight, self.bias, rows, INPUTS, OUTPUTS)
        call("gelu_forward", self.product, self.product, rows * OUTPUTS)
        call("add_forward", self.sum, self.sum, self.product, rows * OUTPUTS)

    def result(self, values, rows=ROWS, listed=True):
        inp = np.ascontiguousarray(values, np.float32)
        self.device.raw("upload", self.inp, inp.ctypes.data, inp.nbytes)
        if listed:
            self.device.raw("list_begin")
        self.note(rows)
        if listed:
            self.device.raw("list_end", 0)
        self.device.raw("download", self.out.ctypes.data, self.sum, self.out.nbytes)
        return self.out.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_list_reads_what_stands_in_memory_when_it_is_carried_out(name, mode, monkeypatch):
    inputs = np.random.default_rng(6).normal(size=(12, ROWS, INPUTS))
    with opened(name, mode, monkeypatch) as device:
        work = Work(device)
        want = [work.result(values, listed=False) for values in inputs]
        before = backends.lists(name)
        assert [work.result(values) for values in inputs] == want
        done = carried_out(name, before)
    assert len(set(want)) == len(inputs)
    assert done["direct"] + done["graphs"] == len(inputs)
    if mode != "auto":
        assert done["graphs"] == (len(inputs) - 1 if mode == "1" else 0)
    else:  # a first time and three timed ones of each way, then the faster one
        assert done["direct"] >= 4
        assert done["graphs"] >= 4


def test_lists_that_differ_in_one_argument_are_told_apart(name, monkeypatch):
    inputs = np.random.default_rng(7).normal(size=(ROWS, INPUTS))
    with opened(name, "1", monkeypatch) as device:
        work = Work(device)
        want = [work.result(inputs, rows, listed=False) for rows in range(1, ROWS + 1)]
        for _ in range(3):
            assert [work.result(inputs, rows) for rows in range(1, ROWS + 1)] == want


def test_more_lists_than_are_remembered(name, monkeypatch):
    """The one that has not come for longest is forgotten, with its graph."""
    with opened(name, "1", monkeypatch) as device:
        out = np.zeros(200, np.float32)
        address = device.alloc(out.nbytes)

        def fill(count):  # the first `count` numbers become 0
            out[:] = 1
            device.raw("upload", address, out.ctypes.data, out.nbytes)
            device.raw("list_begin")
            device.raw("zero", address, 4 * count)
            device.raw("list_end", 0)
            device.raw("download", out.ctypes.data, address, out.nbytes)
            return int((out == 0).sum())

        before = backends.lists(name)
        counts = [*range(1, 201), 200, 1, 2, 2]  # 200 is remembered, 1 and 2 are not
        assert [fill(count) for count in counts] == counts
        assert carried_out(name, before) == {"direct": 202, "graphs": 2, "refused": 0}
        device.raw("release", address)


def test_emulated_lists_that_no_graph_can_be_made_of_go_one_by_one(monkeypatch):
    """In the emulated back end, which can be told to refuse; with a graph asked for, that is an error."""
    name, inputs = backends.require(emulated.NAME), np.random.default_rng(9).normal(size=(8, ROWS, INPUTS))
    refuse = ctypes.c_int.in_dll(emulated.register(), "emulated_refuse_graphs")
    refuse.value = 1
    try:
        with opened(name, "auto", monkeypatch) as device:
            work, before = Work(device), backends.lists(name)
            want = [work.result(values, listed=False) for values in inputs]
            assert [work.result(values) for values in inputs] == want
            assert carried_out(name, before) == {"direct": len(inputs), "graphs": 0, "refused": 1}
        with opened(name, "1", monkeypatch) as device:
            work = Work(device)
            work.result(inputs[0])
            with pytest.raises(OpError, match="making a graph"):
                work.result(inputs[0])
    finally:
        refuse.value = 0


def test_what_a_failed_caller_began_is_left_undone(name, monkeypatch):
    with opened(name, "1", monkeypatch) as device:
        work = Work(device)
        inputs = np.random.default_rng(8).normal(size=(ROWS, INPUTS))
        work.result(inputs)
        before = backends.lists(name)
        device.raw("list_begin")
        work.note(ROWS)
        assert device.function("list_end")(device.handle, VALUE) == VALUE
        assert carried_out(name, before) == {"direct": 0, "graphs": 0, "refused": 0}
        assert work.result(inputs) == work.result(inputs, listed=False)


@pytest.mark.parametrize("what", ["alloc", "release", "reserve", "upload", "download", "keep_weights", "sum_squares"])
def test_what_cannot_stand_in_a_list_is_refused(name, what, monkeypatch):
    with opened(name, "auto", monkeypatch) as device:
        host, out = np.zeros(4, np.float32), ctypes.c_void_p()
        address = device.alloc(host.nbytes)
        total = np.zeros(1)
        arguments = {
            "alloc": (ctypes.addressof(out), 16),
            "release": (address,),
            "reserve": (1 << 30,),
            "upload": (address, host.ctypes.data, host.nbytes),
            "download": (host.ctypes.data, address, host.nbytes),
            "keep_weights": (address, 4, 1),
            "sum_squares": (total.ctypes.data, address, 4),
        }
        device.raw("list_begin")
        try:
            with pytest.raises(OpError, match="between list_begin and list_end") as caught:
                device.raw(what, *arguments[what])
            assert caught.value.code == STATE
            with pytest.raises(OpError, match="a list between"):
                device.raw("list_begin")
        finally:
            device.raw("list_end", 0)
        device.raw("release", address)


def test_another_word_for_the_mode_is_refused(name, monkeypatch):
    monkeypatch.setenv("RELPT_CUDA_GRAPHS", "yes")
    with pytest.raises(OpError, match=r'RELPT_CUDA_GRAPHS is "yes", expected auto, 0 or 1'):
        Device(name)


# -- whole models ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def on_cuda(name, monkeypatch):
    """Device "cuda" means the back end."""
    backends.stand_for_cuda(name, monkeypatch)


def trained(folder, dtype, steps, **options):
    """Every parameter after some steps, and the vectors that come of them."""
    encoder = relpt.Encoder.from_pretrained(folder, device="cuda", dtype=dtype)
    trainer = relpt.CPTrainer(encoder, pairs_per_step=4, max_steps=steps, learning_rate=1e-3, max_length=32, **options)
    data = relpt.load(tiny_dataset(8))
    trainer.fit(data.tokenize(encoder, max_length=32), show_progress_bar=False)
    parameters = [encoder._model.get(parameter).tobytes() for parameter, _ in encoder._model.parameters()]
    return parameters, encoder.encode(data, show_progress_bar=False).tobytes()


def test_what_has_no_room_to_be_filled_up_goes_without_lists(folder, name, on_cuda):
    """Nearly every sentence is cut to 16 tokens, and the memory of a step is for as many of 16."""
    before = backends.lists(name)
    encoder = relpt.Encoder.from_pretrained(folder, device="cuda")
    trainer = relpt.CPTrainer(encoder, pairs_per_step=4, max_steps=1, max_length=16)
    with pytest.warns(relpt.TruncationWarning):
        history = trainer.fit(relpt.load(tiny_dataset(8)).tokenize(encoder, max_length=16), show_progress_bar=False)
    assert 8 * 16 - 9 < history.records[0]["tokens"] <= 8 * 16
    assert carried_out(name, before) == {"direct": 0, "graphs": 0, "refused": 0}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_graphs_change_no_byte_of_training(folder, name, on_cuda, dtype, monkeypatch):
    """Dropout's masks are other ones in each step, though the list is the same."""
    results, ways = {}, {}
    for mode in MODES[:2]:
        monkeypatch.setenv("RELPT_CUDA_GRAPHS", mode)
        before = backends.lists(name)
        results[mode] = trained(folder, dtype, 4)
        ways[mode] = carried_out(name, before)
    assert results["0"] == results["1"]
    assert ways["0"]["graphs"] == 0
    assert ways["1"]["graphs"] >= 4, ways  # forward and backward of steps whose buckets came before
