"""Detection of out-of-memory errors."""

from __future__ import annotations

import torch

_ALLOCATOR = "DefaultCPUAllocator: "
"""Prefix of torch's message when a CPU is out of memory; torch has no exception class for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _ALLOCATOR in str(error)
