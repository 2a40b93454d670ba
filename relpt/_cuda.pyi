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

def mark() -> Any:
    """A place on the GPU's time line, behind all that it was given so far; RuntimeError where no encoder is on it."""

def seconds(begin: Any, end: Any, /) -> float:
    """From one mark to another on the GPU's clock, when it has come to the end."""

def profile_begin() -> None:
    """What the GPU does from here on is noted, and no CUDA graph is launched."""

def profile_end() -> list[tuple[str, float, float]]:
    """(name, seconds, floating-point operations of a product or 0) of each thing that the GPU did since profile_begin,
    in order; what the host was late with counts to what it was late with."""
