"""Tells a lack of memory from other failures."""

from __future__ import annotations

import torch

_ALLOCATOR = "DefaultCPUAllocator: "
"""How torch's message begins where the memory of a CPU does not suffice; it has no class for that."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work at a time may succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _ALLOCATOR in str(error)
