"""Which stretches of an array are taken."""

from __future__ import annotations

from bisect import insort
from itertools import pairwise


class SpanAllocator:
    """First-fit places in an array of a given capacity. Not safe for several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = [(0, capacity)] if capacity else []

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_taken(self) -> int:
        return self._capacity - sum(end - start for start, end in self._free)

    def take(self, size: int) -> int | None:
        """Start of a stretch of this size, or None where no gap is large enough."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[place : place + 1] = [(start + size, end)] if end - start > size else []
                return start
        return None

    def give(self, start: int, size: int) -> None:
        """Return a stretch that was taken."""
        assert size > 0
        insort(self._free, (start, start + size))
        assert all(before[1] <= after[0] for before, after in pairwise(self._free)), "it was not taken"
        merged: list[tuple[int, int]] = []
        for gap in self._free:
            if merged and merged[-1][1] == gap[0]:
                merged[-1] = (merged[-1][0], gap[1])
            else:
                merged.append(gap)
        self._free = merged

    def grow(self, capacity: int) -> None:
        """Add room at the end."""
        assert capacity > self._capacity
        added = capacity - self._capacity
        start, self._capacity = self._capacity, capacity
        self.give(start, added)
