"""Exceptions and warnings that relpt raises and a user may want to catch."""

from __future__ import annotations

from relpt._core import CudaError, FormatError

__all__ = ["BadRecordWarning", "CudaError", "FormatError", "TruncationWarning"]


class BadRecordWarning(UserWarning):
    """Records were left out because they are bad, or a patch's found no instance; given once per call, with counts."""


class TruncationWarning(UserWarning):
    """Sentences longer than ``max_length`` get a window around both entities; given once per call, with the counts."""
