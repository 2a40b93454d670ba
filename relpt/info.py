"""What relpt finds on this machine: the facts of ``relpt info``."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import relpt
from relpt import _core
from relpt.devices import cuda_facts
from relpt.loop import free_memory
from relpt.weights import _packaged_minilm

__all__ = ["facts_of_machine"]


def _cgroup_cpus() -> float | None:
    """CPUs of the cgroup's quota, None without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _threads() -> dict[str, Any]:
    cpus = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpus
    quota, asked, default = _cgroup_cpus(), os.environ.get("OMP_NUM_THREADS"), _core.default_threads()
    why = [f"this process may use {allowed} of the machine's {cpus} CPUs"]
    if quota is not None:
        why.append(f"its cgroup has a quota of {quota:g}")
    if asked is not None:
        why.append(f"OMP_NUM_THREADS={asked}")
    return {
        "default": default,
        "cpus": cpus,
        "affinity": allowed,
        "cgroup_quota": quota,
        "OMP_NUM_THREADS": asked,
        "why": ", ".join(why),
    }


def _memory() -> dict[str, int | None]:
    total = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"total": total, "free": free_memory()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu(cuda: dict[str, Any]) -> str:
    versions = {name: f"{cuda[name] // 1000}.{cuda[name] % 1000 // 10}" for name in ("driver", "runtime")}
    capability = ".".join(map(str, cuda["capability"]))
    return (
        f"{cuda['name']} (compute capability {capability}), {cuda['free'] / 2**30:.1f} of {cuda['total'] / 2**30:.1f} "
        f"GiB free; driver for CUDA {versions['driver']}, built with {versions['runtime']}; cuBLASLt "
        f"{cuda['cublaslt_version']} in {cuda['cublaslt']}"
    )


def facts_of_machine() -> dict[str, Any]:
    """Versions, CPU, threads, memory, CUDA and weights, each with its reason, as plain values."""

    versions: dict[str, str | None] = {"relpt": relpt.__version__, "python": platform.python_version()}
    for name in ("numpy", "tokenizers", "safetensors", "tqdm", "matplotlib", "pandas"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    cpu = _core.cpu_info()
    minilm = _packaged_minilm()
    cuda = cuda_facts()
    return {
        "versions": versions,
        "cpu": {"name": _cpu_name(), **cpu},
        "threads": _threads(),
        "memory": _memory(),
        "cuda": {"available": cuda["problem"] is None, "why": cuda["problem"] or _gpu(cuda), **cuda},
        "minilm": None if minilm is None else str(minilm),
    }
