"""Boost tables in one buffer on the device, and the boosts of a batch that refer to them."""

# B rows, P patches of the row with the most, plus one for padding

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.batch_boosts import PADDING, BatchBoosts
from model.decoding.leaf_boosts import BoostTable
from model.decoding.leaf_intervals import Patches
from model.engine.captured.spans import SpanAllocator
from model.engine.plans import RankingPlan

_GROWTH_FACTOR = 2
_NO_BOOST = 1
"""Entries at the start of the buffer, of 0, for rows without a table."""
MOST_COPIED = 1 << 20
"""Values of tables that a batch may have copied on a CPU, 4 MB; then no step of the search looks patches up."""
_NOTHING_PATCHED = Patches(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))


class BoostTables:
    """Uploads each table once, and keeps it as long as the host does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._spans = SpanAllocator(_NO_BOOST)
        self._spans.allocate(_NO_BOOST)
        self._starts: weakref.WeakKeyDictionary[BoostTable, int] = weakref.WeakKeyDictionary()
        self._unused: deque[tuple[int, int]] = deque()  # spans of garbage-collected tables; appended by finalizers
        self._buffer = torch.zeros(_NO_BOOST, device=device)

    @property
    def buffer(self) -> Tensor:
        """A new tensor after every growth; starts remain valid in it."""
        return self._buffer

    def start(self, table: BoostTable) -> int:
        """Start of a table in the buffer."""
        with self._lock:
            start = self._starts.get(table)
            if start is None:
                maxima = table.maxima
                start = self._allocate(len(maxima))
                self._buffer[start : start + len(maxima)].copy_(torch.from_numpy(maxima))
                self._starts[table] = start
                weakref.finalize(table, self._unused.append, (start, len(maxima))).atexit = False
            return start

    def _allocate(self, size: int) -> int:
        while self._unused:
            self._spans.free(*self._unused.popleft())
        start = self._spans.allocate(size)
        if start is None:
            old = self._spans.capacity
            self._spans.grow(old + _GROWTH_FACTOR * (self._spans.num_allocated + size))
            larger = torch.zeros(self._spans.capacity, device=self._device)
            larger[:old] = self._buffer
            if self._device.type == "cuda":  # searches run on their own stream
                torch.cuda.current_stream(self._device).synchronize()
            self._buffer = larger
            start = self._spans.allocate(size)
            assert start is not None
        return start


def patches_of(plan: RankingPlan) -> Patches:
    """What a plan changes in its table; nothing without boosts."""
    return _NOTHING_PATCHED if plan.boosts is None else plan.boosts.patches(plan.eligibility)


def write_patches(patched: NDArray[np.int32], patches: NDArray[np.float32], rows: Sequence[Patches]) -> None:
    """Into arrays [B, P], of more columns than any row has patches."""
    patched.fill(PADDING)
    for row, own in enumerate(rows):
        patched[row, : len(own)] = own.sources
        patches[row, : len(own)] = own.values


def starts_of(plans: Sequence[RankingPlan], tables: BoostTables) -> tuple[list[int], list[int]]:
    """Starts and weights of the plans' tables, as BatchBoosts has them. Only included leaves need no table."""
    needed = [
        None if plan.boosts is None or plan.eligibility.included is not None else plan.boosts.table for plan in plans
    ]
    return [0 if each is None else tables.start(each) for each in needed], [int(each is not None) for each in needed]


def batch_boosts(plans: Sequence[RankingPlan], tables: BoostTables, sources: Tensor) -> BatchBoosts | None:
    """None if no plan has boosts."""
    if all(plan.boosts is None for plan in plans):
        return None
    rows = [patches_of(plan) for plan in plans]
    sizes = [0 if plan.boosts is None else plan.boosts.table.intervals.num_sources for plan in plans]
    if sources.device.type == "cpu" and sum(sizes) <= MOST_COPIED:
        return _copied(plans, rows, sizes, sources)
    size = (len(rows), 1 + max(map(len, rows)))
    patched, patches = np.empty(size, dtype=np.int32), np.zeros(size, dtype=np.float32)
    write_patches(patched, patches, rows)
    starts, weights = starts_of(plans, tables)
    device = sources.device
    return BatchBoosts(
        sources=sources,
        tables=tables.buffer,
        offset=_column(starts, device),
        weight=_column(weights, device),
        patched=torch.from_numpy(patched).to(device),
        patches=torch.from_numpy(patches).to(device),
    )


def _copied(
    plans: Sequence[RankingPlan], rows: Sequence[Patches], sizes: Sequence[int], sources: Tensor
) -> BatchBoosts:
    """Each row's table with its patches; `sizes` are 0 for rows without boosts."""
    ends = np.cumsum([_NO_BOOST, *sizes]).tolist()
    tables = np.zeros(ends[-1], dtype=np.float32)
    for plan, own, start, end in zip(plans, rows, ends, ends[1:], strict=False):
        if plan.boosts is not None:
            table = tables[start:end]
            if plan.eligibility.included is None:  # only included leaves need no table
                table[:] = plan.boosts.table.maxima
            table[own.sources] = own.values
    return BatchBoosts(
        sources=sources,
        tables=torch.from_numpy(tables),
        offset=_column([start if size else 0 for start, size in zip(ends, sizes, strict=False)], sources.device),
        weight=_column([int(size > 0) for size in sizes], sources.device),
    )


def _column(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device).unsqueeze(1)
