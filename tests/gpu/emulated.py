"""The CUDA back end compiled for the CPU (host/cuda_runtime.h), as the back end "cuda/emulated"."""

import ctypes
import functools
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.harness import library, message

ROOT = Path(__file__).resolve().parents[2]
HOST = Path(__file__).parent / "host"
NAME = "cuda/emulated"
FLAGS = ["-std=c++20", "-O2", "-g1", "-fPIC", "-fno-exceptions", "-Wno-unknown-pragmas", "-ffp-contract=off"]
INCLUDE = [f"-I{HOST}", f"-I{ROOT / 'csrc'}"]


def compiler():
    return shutil.which("g++") or shutil.which("clang++")


def _compile(folder):
    """libcuda_emulated.so and libcublasLt.so.13 in the folder; not again where nothing has changed since."""
    kernels = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    c_files = [ROOT / "csrc" / f"{name}.c" for name in ("status", "arena", "composed")]
    sources = [
        Path(__file__),
        *kernels,
        *c_files,
        *HOST.iterdir(),
        *(ROOT / "csrc").glob("*.h"),
        *(ROOT / "csrc/cuda").glob("*.*h"),
    ]
    newest = max(path.stat().st_mtime for path in sources)
    libraries = [folder / "libcuda_emulated.so", folder / "libcublasLt.so.13"]
    if all(path.is_file() and path.stat().st_mtime > newest for path in libraries):
        return libraries
    folder.mkdir(parents=True, exist_ok=True)
    cxx, cc = compiler(), compiler().replace("g++", "gcc").replace("clang++", "clang")
    common = [
        *FLAGS,
        *INCLUDE,
        f'-DRP_CUDA_NAME="{NAME}"',
        "-DRP_LT_WORKSPACE=65536",
        "-DRP_CUDA_RANKED=64",
        "-DRP_CUDA_TWO_FROM=100",
        "-DRP_CUDA_ROUNDED_BYTES=131072",
    ]
    commands = [[cxx, *common, "-x", "c++", "-c", path, "-o", folder / f"{path.stem}.o"] for path in kernels]
    commands.append([cxx, *common, "-c", HOST / "emulator.cpp", "-o", folder / "emulator.o"])
    commands += [[cc, "-std=c11", "-O1", "-fPIC", *INCLUDE, "-c", p, "-o", folder / f"{p.stem}.o"] for p in c_files]
    commands.append([cxx, *common, "-shared", HOST / "cublaslt.cpp", "-o", libraries[1]])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(functools.partial(subprocess.run, check=True), commands))
    objects = [folder / f"{path.stem}.o" for path in (*kernels, HOST / "emulator.cpp", *c_files)]
    subprocess.run([cxx, "-shared", *objects, "-o", libraries[0], "-ldl", "-lpthread"], check=True)
    return libraries


@functools.cache
def register():
    """Makes "cuda/emulated" known to the core and returns the library."""
    path, cublaslt = _compile(ROOT / "build" / "emulated")
    emulated, products = ctypes.CDLL(path), ctypes.CDLL(cublaslt)
    products.emulated_connect(emulated.emulated_enter, emulated.emulated_leave, emulated.emulated_submit)
    emulated.rp_cuda_search(os.fsencode(cublaslt))
    emulated.rp_cuda_backend.restype = ctypes.c_void_p
    if library().rp_ops_register(ctypes.c_void_p(emulated.rp_cuda_backend())):
        raise RuntimeError(message())
    return emulated
