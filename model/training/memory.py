"""The memory of a training step, kept for the next one.

glibc gives large blocks back to the kernel when they are freed, and every step gets the same sizes anew, page by page:
with a vocabulary of 12,000 that was two fifths of the processor time (benchmarks/RESULTS.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, as long as the process lives; nothing without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _NEVER)
