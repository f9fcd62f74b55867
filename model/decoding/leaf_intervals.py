"""Largest values of leaves below the nodes of a trie.

A node with one leaf has that leaf's value; for the others (wide nodes), maxima are computed for all of them at once,
without a change of the trie. A node's `source` is the place of its value in an array of leaves, NOTHING and wide nodes.
"""

# M nodes, N leaves, W wide nodes, S leaves with other values, P patches

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NOTHING = np.float32(-np.inf)
"""Value of a leaf that does not count."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Values that replace those of a few sources, for one request."""

    sources: NDArray[np.int32]  # [P], ascending
    values: NDArray[np.float32]  # [P]

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True, eq=False)
class LeafIntervals:
    """The intervals of leaves below the nodes of a trie."""

    num_leaves: int
    sources: NDArray[np.int32]  # [M]
    lows: NDArray[np.int64]  # [W], first leaf below each wide node
    highs: NDArray[np.int64]  # [W], one past the last
    levels: tuple[slice, ...]  # wide nodes of each depth; their intervals are disjoint and ascending

    @classmethod
    def of(
        cls, lows: NDArray[np.int32], highs: NDArray[np.int32], level_widths: tuple[int, ...], num_leaves: int
    ) -> LeafIntervals:
        """From the intervals [M] of a trie's nodes. The root, which no search chooses, counts as its first leaf."""
        is_wide = highs - lows > 1
        is_wide[0] = False
        sources = lows.copy()
        sources[is_wide] = num_leaves + 1 + np.arange(np.count_nonzero(is_wide), dtype=np.int32)
        ends = np.cumsum(is_wide)[np.cumsum((1, *level_widths)) - 1].tolist()
        levels = tuple(slice(start, end) for start, end in pairwise(ends))
        return cls(num_leaves, sources, lows[is_wide].astype(np.int64), highs[is_wide].astype(np.int64), levels)

    @property
    def num_sources(self) -> int:
        return self.num_leaves + 1 + len(self.lows)

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """Each wide node's interval, one after the other: [2·W]."""
        return np.stack([self.lows, self.highs], axis=1).reshape(-1)

    def maxima(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of all sources [N + 1 + W] for values of the leaves [N]."""
        maxima = np.empty(self.num_sources, dtype=np.float32)
        num_leaves = self.num_leaves
        maxima[:num_leaves] = values
        maxima[num_leaves] = NOTHING
        if len(self.lows):
            maxima[num_leaves + 1 :] = np.maximum.reduceat(maxima[: num_leaves + 1], self._bounds)[::2]
        return maxima

    def patches(
        self, values: NDArray[np.float32] | None, leaves: NDArray[np.int32], own: NDArray[np.float32]
    ) -> Patches:
        """What differs if `leaves` [S], ascending and unique, have values of their `own` [S].

        `values` are those of the other leaves; None if these do not count.
        """
        wide = self._above(leaves)
        patched = np.full(self.num_leaves, NOTHING, dtype=np.float32) if values is None else values.copy()
        patched[leaves] = own
        lows, lengths = self.lows[wide], (self.highs - self.lows)[wide]
        starts = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(lows - starts, lengths)
        largest = np.maximum.reduceat(patched[places], starts) if len(wide) else own[:0]
        sources = np.concatenate([leaves, self.num_leaves + 1 + wide]).astype(np.int32)
        return Patches(sources, np.concatenate([own, largest]).astype(np.float32))

    def _above(self, leaves: NDArray[np.int32]) -> NDArray[np.int64]:
        """Wide nodes with some of these leaves below, ascending."""
        found = [np.zeros(0, dtype=np.int64)]
        for level in self.levels:
            lows, highs = self.lows[level], self.highs[level]
            if len(lows):
                places = np.searchsorted(lows, leaves, side="right") - 1
                is_below = (places >= 0) & (leaves < highs[places])
                found.append(np.unique(places[is_below]) + level.start)
        return np.concatenate(found)
