"""What computes: the CPU, or a GPU by way of the extension relpt._cuda, which is loaded when it is first asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt import _core
from relpt.errors import CudaError

__all__ = ["backend_of", "cuda_facts", "dtype_of", "threads_of", "usable_memory"]

_DTYPES: Final = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16")}
_ENCODING_DTYPES: Final = {"cpu": ("int8",), "cuda": ()}
_CUBLASLT: Final = "cu13/lib/libcublasLt.so.13"  # inside the folder that the nvidia packages share
_BESIDE: Final = 3 << 30  # bytes on a GPU for what a trainer does not plan: scratch of the operations, the driver


def cuda_facts() -> dict[str, Any]:
    """The GPU that device "cuda" means: problem (None), name, capability, driver and runtime (1000 major + 10 minor),
    free and total bytes, cublaslt (the library's file) and its version; or problem alone, which says why there is none.
    """
    if importlib.util.find_spec("relpt._cuda") is None:
        return {
            "problem": "relpt._cuda is not built: there was no nvcc when relpt was installed. Install relpt from its "
            "source on a machine with CUDA 13's nvcc, with RELPT_CUDA=1"
        }
    try:
        cuda = importlib.import_module("relpt._cuda")
    except ImportError as error:
        return {"problem": f"relpt._cuda cannot be loaded: {error}"}
    nvidia = importlib.util.find_spec("nvidia")
    folders = [] if nvidia is None else list(nvidia.submodule_search_locations or ())
    cuda.search(os.pathsep.join(str(Path(folder) / _CUBLASLT) for folder in folders))
    return cuda.facts()


def backend_of(device: str) -> str:
    """The core's name of what computes on the device, ready to be used.

    Raises:
        ValueError: there is no such device.
        CudaError: "cuda" cannot be used; says why.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; expected 'cpu' or 'cuda'")
    if device == "cuda":
        facts = cuda_facts()
        if facts["problem"] is not None:
            raise CudaError(f"device 'cuda' cannot be used: {facts['problem']}; or use device='cpu' (--device cpu)")
        try:
            _core.add_backend(importlib.import_module("relpt._cuda").backend)
        except (RuntimeError, ValueError) as error:
            raise CudaError(f"device 'cuda' cannot be used: {error}") from None
    return device


def dtype_of(device: str, dtype: str | None, *, encodes: bool = False) -> str:
    """The dtype of matrix products: the given one, else float32 on the CPU and bfloat16 on a GPU.

    Args:
        device, dtype: see ``Encoder.from_pretrained``.
        encodes: there will be no gradients: int8 is for that alone.

    Raises:
        ValueError: the device does not have it.
    """
    if dtype is None:
        return "bfloat16" if device == "cuda" else "float32"
    own = _DTYPES[device] + (_ENCODING_DTYPES[device] if encodes else ())
    if dtype not in own:
        where = "the GPU" if device == "cuda" else "the CPU"
        raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(own)} on {where}")
    return dtype


def threads_of(num_threads: int | None) -> int:
    """The number of the core's threads: the given one, else the CPUs that this process may use.

    Raises:
        ValueError: it is no whole number from 1 to 4096.
    """
    if num_threads is None:
        return _core.default_threads()
    whole = isinstance(num_threads, (int, np.integer)) and not isinstance(num_threads, bool)
    if not whole or not 1 <= num_threads <= 4096:
        raise ValueError(f"num_threads is {num_threads!r}; expected a whole number from 1 to 4096, or None")
    return int(num_threads)


def usable_memory(device: str) -> int:
    """Bytes that a trainer may take: half of the machine's free memory, or nearly all of the GPU's."""
    from relpt.loop import free_memory

    if device == "cpu":
        return free_memory() // 2
    return max(int(cuda_facts()["free"] * 0.95) - _BESIDE, 0)
