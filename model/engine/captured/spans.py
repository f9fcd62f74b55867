"""Allocation of spans in an array."""

from __future__ import annotations

from bisect import insort
from itertools import pairwise


class SpanAllocator:
    """First-fit allocator of an array with a given capacity. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = [(0, capacity)] if capacity else []

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_allocated(self) -> int:
        return self._capacity - sum(end - start for start, end in self._free)

    def allocate(self, size: int) -> int | None:
        """Start of a span of this size; None if no gap is large enough."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[place : place + 1] = [(start + size, end)] if end - start > size else []
                return start
        return None

    def free(self, start: int, size: int) -> None:
        """Free an allocated span."""
        assert size > 0
        insort(self._free, (start, start + size))
        assert all(before[1] <= after[0] for before, after in pairwise(self._free)), "the span was not allocated"
        merged: list[tuple[int, int]] = []
        for gap in self._free:
            if merged and merged[-1][1] == gap[0]:
                merged[-1] = (merged[-1][0], gap[1])
            else:
                merged.append(gap)
        self._free = merged

    def grow(self, capacity: int) -> None:
        """Add capacity at the end."""
        assert capacity > self._capacity
        added = capacity - self._capacity
        start, self._capacity = self._capacity, capacity
        self.free(start, added)
