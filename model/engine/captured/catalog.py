"""Tries and the prefix sums of filters in device buffers that outlast changes of the catalog.

Captured searches read through pointers to the buffers, so a new trie or filter needs no new capture until the buffers
are full.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.eligibility import LeafMask
from model.decoding.trie import NUM_SENTINELS, Trie, TrieNodes
from model.engine.captured.spans import SpanAllocator

_GROWTH_FACTOR = 2  # times what is needed that buffers are made for
_MIN_CAPACITY = 1 << 12

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Span:
    start: int
    size: int


@dataclass(frozen=True)
class Arrays:
    """The buffers of one generation."""

    nodes: TrieNodes
    cumulative: Tensor  # int32, prefix sums of filters, one after the other


class DeviceCatalog:
    """Uploads each trie and filter once.

    One thread may put and drop tries while another takes filters; buffers are shown only when they are filled.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._node_spans, self._sum_spans = SpanAllocator(0), SpanAllocator(0)
        self._tries: dict[int, tuple[Trie, _Span]] = {}
        self._masks: weakref.WeakKeyDictionary[LeafMask, _Span] = weakref.WeakKeyDictionary()
        self._unused: deque[_Span] = deque()  # filters that nothing refers to any more; filled by finalizers
        self._max_children: dict[int, tuple[int, ...]] = {}
        self._arrays = Arrays(TrieNodes(*(self._zeros(0) for _ in range(4))), self._zeros(0))

    @property
    def arrays(self) -> Arrays:
        """Another object after every growth; what was taken of the old one goes on being valid in it."""
        return self._arrays

    @property
    def num_filters(self) -> int:
        return len(self._masks)

    def put(self, slot: int, trie: Trie) -> None:
        """Upload a slot's trie in place of what it held."""
        self.drop(slot)
        size = trie.num_nodes + NUM_SENTINELS
        with self._lock:
            start = self._take_nodes(size)
            # A row of another filter, or of none, must find a number for every leaf of the trie.
            if self._sum_spans.capacity <= trie.num_leaves:
                self._grow_sums(trie.num_leaves + 1)
            nodes = self._arrays.nodes
        padding = np.zeros(NUM_SENTINELS, np.int32)
        _upload(nodes.token, start, np.append(trie.token, padding))
        _upload(nodes.first_child, start, trie.first_child + np.int32(start))
        _upload(nodes.leaf_lo, start, np.append(trie.leaf_lo, padding))
        _upload(nodes.leaf_hi, start, np.append(trie.leaf_hi, padding))
        self._settle()
        with self._lock:
            self._tries[slot] = (trie, _Span(start, size))
            self._max_children.clear()

    def drop(self, slot: int) -> None:
        """Forget a slot's trie, if it has one."""
        with self._lock:
            if slot in self._tries:
                _, span = self._tries.pop(slot)
                self._node_spans.give(span.start, span.size)
                self._max_children.clear()

    def trie(self, slot: int) -> Trie:
        return self._tries[slot][0]

    def root(self, slot: int) -> int:
        """Where a slot's trie begins."""
        return self._tries[slot][1].start

    def offset(self, mask: LeafMask) -> int:
        """Where a filter's prefix sum begins; uploads it at its first use and until nothing refers to it any more."""
        with self._lock:
            found = self._masks.get(mask)
            if found is None:
                size = len(mask.cumulative)
                found = _Span(self._take_sums(size), size)
                _upload(self._arrays.cumulative, found.start, mask.cumulative)
                self._masks[mask] = found
                weakref.finalize(mask, self._unused.append, found).atexit = False
            return found.start

    def max_children(self, num_beams: int, slots: Iterable[int] | None = None) -> tuple[int, ...]:
        """Room for the children of a row's beams at each step that serves these slots, or all: powers of two."""
        with self._lock:
            if slots is not None:
                return _room([self._tries[slot][0] for slot in set(slots)], num_beams)
            if num_beams not in self._max_children:
                self._max_children[num_beams] = _room([trie for trie, _ in self._tries.values()], num_beams)
            return self._max_children[num_beams]

    def _take_nodes(self, size: int) -> int:
        start = self._node_spans.take(size)
        if start is None:
            self._grow_nodes(size)
            start = self._node_spans.take(size)
            assert start is not None
        return start

    def _take_sums(self, size: int) -> int:
        while self._unused:
            span = self._unused.popleft()
            self._sum_spans.give(span.start, span.size)
        start = self._sum_spans.take(size)
        if start is None:
            self._grow_sums(size)
            start = self._sum_spans.take(size)
            assert start is not None
        return start

    def _grow_nodes(self, size: int) -> None:
        nodes = self._arrays.nodes
        grown = self._grown(self._node_spans, size, "trie nodes")
        moved = TrieNodes(grown(nodes.token), grown(nodes.first_child), grown(nodes.leaf_lo), grown(nodes.leaf_hi))
        self._settle()
        self._arrays = Arrays(moved, self._arrays.cumulative)

    def _grow_sums(self, size: int) -> None:
        grown = self._grown(self._sum_spans, size, "prefix sums")
        moved = grown(self._arrays.cumulative)
        self._settle()
        self._arrays = Arrays(self._arrays.nodes, moved)

    def _grown(self, spans: SpanAllocator, size: int, what: str) -> Callable[[Tensor], Tensor]:
        old = spans.capacity
        spans.grow(max(_MIN_CAPACITY, _GROWTH_FACTOR * (spans.num_taken + size)) + old)
        logger.info("room for %s grows from %d to %d; searches are captured anew", what, old, spans.capacity)

        def moved(array: Tensor) -> Tensor:
            larger = self._zeros(spans.capacity)
            larger[:old] = array
            return larger

        return moved

    def _settle(self) -> None:
        """Wait until what this thread has copied is there: searches run on a stream of their own."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _zeros(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int32, device=self._device)


def _room(tries: Sequence[Trie], num_beams: int) -> tuple[int, ...]:
    levels = zip_longest(*(trie.max_children(num_beams) for trie in tries), fillvalue=1)
    return tuple(1 << (max(level) - 1).bit_length() for level in levels)


def _upload(array: Tensor, start: int, values: NDArray[np.int32]) -> None:
    array[start : start + len(values)].copy_(torch.from_numpy(values))
