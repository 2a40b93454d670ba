"""What a benchmark says of the machine and the libraries."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "relpt",
    "numpy",
    "tokenizers",
    "torch",
    "transformers",
    "ctranslate2",
    "onnxruntime",
    "sentence-transformers",
)


def cpu_model() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def describe(threads: int) -> dict:
    """Machine, its GPU (None without), level, threads and versions."""
    from relpt import _core
    from relpt.devices import cuda_facts

    info = _core.cpu_info()
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "gpu": cuda_facts().get("name"),
        "level": info["level"],
        "bfloat16": info["bfloat16"],
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }
