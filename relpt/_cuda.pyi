"""The CUDA back end. Its names are internal; use device="cuda"."""

from typing import Any

backend: Any

def facts() -> dict[str, Any]:
    """problem (None), name, capability, driver, runtime, free, total, cublaslt, cublaslt_version; or problem alone."""

def search(paths: str, /) -> None:
    """Files to try for cuBLASLt before the system's, "a:b"."""

def lists() -> dict[str, int]:
    """direct, graphs, refused: lists of operations that were carried out one by one and as CUDA graphs, and those that
    could not be made graphs of."""
