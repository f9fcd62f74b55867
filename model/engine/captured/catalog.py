"""Tries and the prefix sums of filters in device buffers that stay in place while catalogs change.

Captured searches hold pointers to the buffers, so a new trie or filter needs no new capture until the buffers are full.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.eligibility import LeafMask
from model.decoding.nodes import NUM_FACTS, NodeTable, facts_of
from model.decoding.trie import Trie
from model.engine.boost_tables import BoostTables
from model.engine.captured.spans import SpanAllocator

_GROWTH_FACTOR = 2  # capacity of new buffers, relative to their required size
_MIN_CAPACITY = 1 << 12

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Span:
    start: int
    size: int


@dataclass(frozen=True)
class Arrays:
    """The buffers of one generation."""

    nodes: NodeTable
    sources: Tensor  # int32, where the boosts of each node are found
    cumulative: Tensor  # int32, the concatenated prefix sums of filters


class DeviceCatalog:
    """Uploads each trie and filter once.

    One thread may put and drop tries while another uploads filters; new buffers become visible only once filled.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._node_spans, self._sum_spans = SpanAllocator(0), SpanAllocator(0)
        self._tries: dict[int, tuple[Trie, _Span]] = {}
        self._masks: weakref.WeakKeyDictionary[LeafMask, _Span] = weakref.WeakKeyDictionary()
        self._unused: deque[_Span] = deque()  # spans of garbage-collected filters; appended by finalizers
        self._max_children: dict[int, tuple[int, ...]] = {}
        self._arrays = Arrays(NodeTable(self._zeros(0, NUM_FACTS)), self._zeros(0), self._zeros(0))
        self.boosts = BoostTables(device)

    @property
    def arrays(self) -> Arrays:
        """A new object after every growth; offsets remain valid in it."""
        return self._arrays

    @property
    def num_filters(self) -> int:
        return len(self._masks)

    def put(self, slot: int, trie: Trie) -> None:
        """Upload a slot's trie and drop its previous one."""
        self.drop(slot)
        size = trie.num_nodes
        with self._lock:
            start = self._allocate_nodes(size)
            # Rows with another base, or none, index the prefix sums with any leaf of the trie: keep it in range.
            if self._sum_spans.capacity <= trie.num_leaves:
                self._grow_sums(trie.num_leaves + 1)
            arrays = self._arrays
        _upload(arrays.nodes.facts, start, facts_of(trie, start))
        _upload(arrays.sources, start, trie.intervals.sources)
        self._synchronize()
        with self._lock:
            self._tries[slot] = (trie, _Span(start, size))
            self._max_children.clear()

    def drop(self, slot: int) -> None:
        """Drop a slot's trie, if it has one."""
        with self._lock:
            if slot in self._tries:
                _, span = self._tries.pop(slot)
                self._node_spans.free(span.start, span.size)
                self._max_children.clear()

    def trie(self, slot: int) -> Trie:
        return self._tries[slot][0]

    def root(self, slot: int) -> int:
        """Root node of a slot's trie."""
        return self._tries[slot][1].start

    def offset(self, mask: LeafMask) -> int:
        """Start of a filter's prefix sum, which is uploaded at its first use and kept as long as the filter exists."""
        with self._lock:
            found = self._masks.get(mask)
            if found is None:
                size = len(mask.cumulative)
                found = _Span(self._allocate_sums(size), size)
                _upload(self._arrays.cumulative, found.start, mask.cumulative)
                self._masks[mask] = found
                weakref.finalize(mask, self._unused.append, found).atexit = False
            return found.start

    def max_children(self, num_beams: int, slots: Iterable[int] | None = None) -> tuple[int, ...]:
        """Capacity for the children of a row's beams at each step, for these slots or all: powers of two."""
        with self._lock:
            if slots is not None:
                return _padded_children([self._tries[slot][0] for slot in set(slots)], num_beams)
            if num_beams not in self._max_children:
                self._max_children[num_beams] = _padded_children([trie for trie, _ in self._tries.values()], num_beams)
            return self._max_children[num_beams]

    def _allocate_nodes(self, size: int) -> int:
        start = self._node_spans.allocate(size)
        if start is None:
            self._grow_nodes(size)
            start = self._node_spans.allocate(size)
            assert start is not None
        return start

    def _allocate_sums(self, size: int) -> int:
        while self._unused:
            span = self._unused.popleft()
            self._sum_spans.free(span.start, span.size)
        start = self._sum_spans.allocate(size)
        if start is None:
            self._grow_sums(size)
            start = self._sum_spans.allocate(size)
            assert start is not None
        return start

    def _grow_nodes(self, size: int) -> None:
        arrays = self._arrays
        grown = self._grown(self._node_spans, size, "trie nodes")
        nodes, sources = NodeTable(grown(arrays.nodes.facts)), grown(arrays.sources)
        self._synchronize()
        self._arrays = replace(arrays, nodes=nodes, sources=sources)

    def _grow_sums(self, size: int) -> None:
        grown = self._grown(self._sum_spans, size, "prefix sums")
        moved = grown(self._arrays.cumulative)
        self._synchronize()
        self._arrays = replace(self._arrays, cumulative=moved)

    def _grown(self, spans: SpanAllocator, size: int, what: str) -> Callable[[Tensor], Tensor]:
        old = spans.capacity
        spans.grow(max(_MIN_CAPACITY, _GROWTH_FACTOR * (spans.num_allocated + size)) + old)
        logger.info("capacity for %s grows from %d to %d; searches are captured again", what, old, spans.capacity)

        def moved(array: Tensor) -> Tensor:
            larger = self._zeros(spans.capacity, *array.shape[1:])
            larger[:old] = array
            return larger

        return moved

    def _synchronize(self) -> None:
        """Wait for this thread's copies: searches run on their own stream."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=self._device)


def _padded_children(tries: Sequence[Trie], num_beams: int) -> tuple[int, ...]:
    levels = zip_longest(*(trie.max_children(num_beams) for trie in tries), fillvalue=1)
    return tuple(1 << (max(level) - 1).bit_length() for level in levels)


def _upload(array: Tensor, start: int, values: NDArray[np.int32]) -> None:
    array[start : start + len(values)].copy_(torch.from_numpy(values))
