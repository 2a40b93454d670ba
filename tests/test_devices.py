"""Devices: what is said where there is no GPU, and what is made of the facts where there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import relpt
from relpt import devices, info

FACTS = {
    "problem": None,
    "name": "NVIDIA H200",
    "capability": (9, 0),
    "driver": 13010,
    "runtime": 13000,
    "free": 140 << 30,
    "total": 141 << 30,
    "cublaslt": "/lib/libcublasLt.so.13",
    "cublaslt_version": 130100,
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    facts = dict(FACTS)
    monkeypatch.setattr(devices, "cuda_facts", lambda: facts)
    monkeypatch.setattr(info, "cuda_facts", lambda: facts)
    return facts


def test_numbers_of_threads() -> None:
    assert devices.threads_of(3) == 3
    assert devices.threads_of(None) >= 1
    for wrong in (0, -1, 5000, "2", 2.0, True):
        with pytest.raises(ValueError, match=r"num_threads is .*; expected a whole number from 1 to 4096"):
            devices.threads_of(wrong)  # type: ignore[arg-type]


def test_unknown_devices_and_dtypes() -> None:
    with pytest.raises(ValueError, match="device is 'tpu'; expected 'cpu' or 'cuda'"):
        devices.backend_of("tpu")
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        devices.dtype_of("cuda", "float16")
    assert devices.backend_of("cpu") == "cpu"


def test_products_are_bfloat16_on_a_gpu_unless_told() -> None:
    assert devices.dtype_of("cpu", None) == "float32"
    assert devices.dtype_of("cuda", None) == "bfloat16"
    assert devices.dtype_of("cuda", "float32") == "float32"
    assert devices.dtype_of("cuda", "tf32") == "tf32"
    assert devices.dtype_of("cpu", "int8", encodes=True) == "int8"
    with pytest.raises(ValueError, match="dtype is 'tf32'; expected one of float32, bfloat16, int8 on the CPU"):
        devices.dtype_of("cpu", "tf32", encodes=True)
    with pytest.raises(ValueError, match="dtype is 'int8'; expected one of float32, tf32, bfloat16 on the GPU"):
        devices.dtype_of("cuda", "int8", encodes=True)
    with pytest.raises(ValueError, match="dtype is 'int8'; expected one of float32, bfloat16 on the CPU"):
        devices.dtype_of("cpu", "int8")


def test_a_missing_extension_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(relpt.CudaError, match=r"no nvcc when relpt was installed.*device='cpu'"):
        devices.backend_of("cuda")


def test_an_extension_that_cannot_be_loaded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libc is too old")

    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(devices.importlib, "import_module", fail)
    assert "libc is too old" in devices.cuda_facts()["problem"]


def test_cublaslt_is_looked_for_in_the_nvidia_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    extension = SimpleNamespace(search=asked.append, facts=lambda: {"problem": "none here"})
    found = SimpleNamespace(submodule_search_locations=["/a/nvidia", "/b/nvidia"])
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(devices.importlib, "import_module", lambda name: extension)
    assert devices.cuda_facts() == {"problem": "none here"}
    assert asked == ["/a/nvidia/cu13/lib/libcublasLt.so.13:/b/nvidia/cu13/lib/libcublasLt.so.13"]


def test_what_is_no_back_end_is_refused(gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.importlib, "import_module", lambda name: SimpleNamespace(backend=object()))
    with pytest.raises(relpt.CudaError, match="PyCapsule"):
        devices.backend_of("cuda")


def test_info_describes_a_gpu(gpu: dict[str, Any]) -> None:
    cuda = info.facts_of_machine()["cuda"]
    assert cuda["available"] is True
    assert "NVIDIA H200 (compute capability 9.0), 140.0 of 141.0 GiB free" in cuda["why"]
    assert "driver for CUDA 13.1, built with 13.0" in cuda["why"]


def test_a_trainer_may_take_most_of_a_gpus_memory(gpu: dict[str, Any]) -> None:
    assert 120 << 30 < devices.usable_memory("cuda") < 140 << 30
    gpu["free"] = 1 << 20
    assert devices.usable_memory("cuda") == 0
