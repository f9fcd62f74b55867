"""Boosts of a trie's leaves: logarithms of factors, which a search adds to the log-probabilities of items."""

# N leaves, W wide nodes of the trie, S leaves with boosts of a request's own

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility
from model.decoding.leaf_intervals import NOTHING, LeafIntervals, Patches

MAX_NATS = 30.0
"""Largest boost, a factor of 1e13: sums stay precise enough to prove rankings in float32."""


@dataclass(frozen=True)
class BoostSpec:
    """What a table is made of, besides the catalog and a filter: factors by column and value, and rules."""

    columns: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    has_rules: bool = False


@dataclass(frozen=True, eq=False)
class BoostTable:
    """Boosts that requests with the same rules and the same filter share. Computed when they are first read."""

    intervals: LeafIntervals
    make: Callable[[], NDArray[np.float32]] = field(repr=False)
    """The boosts of all leaves [N], at most MAX_NATS each way; NOTHING for those outside of the filter."""
    spec: BoostSpec = field(default_factory=BoostSpec)

    @property
    def values(self) -> NDArray[np.float32]:
        """Of all leaves, [N]."""
        return self.maxima[: self.intervals.num_leaves]

    @cached_property
    def maxima(self) -> NDArray[np.float32]:
        """Of all sources [N + 1 + W], as LeafIntervals.maxima."""
        return self.intervals.maxima(self.make())

    @property
    def num_bytes(self) -> int:
        """Memory once computed, on the host and again on the device."""
        return 4 * self.intervals.num_sources


@dataclass(frozen=True, eq=False)
class Boosts:
    """The boosts of one request: those of a table, and more for a few leaves."""

    table: BoostTable
    leaves: NDArray[np.int32]  # [S], ascending and unique
    extra: NDArray[np.float32]  # [S], added to the table's

    def of_leaves(self, leaves: NDArray[np.int64]) -> NDArray[np.float32]:
        """The boosts of leaves [R]."""
        if not len(leaves):
            return np.zeros(0, dtype=np.float32)
        boosts = self.table.values[leaves]
        if len(self.leaves):
            places = np.searchsorted(self.leaves, leaves).clip(max=len(self.leaves) - 1)
            more = np.where(self.leaves[places] == leaves, self.extra[places], np.float32(0))
            boosts = np.where(boosts == NOTHING, NOTHING, (boosts + more).clip(-MAX_NATS, MAX_NATS))
        return boosts

    def patches(self, eligibility: Eligibility) -> Patches:
        """What the leaves that are eligible, and the request's own boosts, change in the table."""
        included = eligibility.included
        if included is not None:
            return self.table.intervals.patches(None, included, self.of_leaves(included.astype(np.int64)))
        leaves = np.union1d(self.leaves, eligibility.excluded).astype(np.int32)
        own = self.of_leaves(leaves.astype(np.int64))
        own[np.searchsorted(leaves, eligibility.excluded)] = NOTHING
        return self.table.intervals.patches(self.table.values, leaves, own)
