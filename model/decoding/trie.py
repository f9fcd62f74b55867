"""Tries of item identifiers, as numpy arrays; `trie_arena.py` holds several of them in shared tensors.

Nodes are numbered breadth-first: the children of a node are consecutive, so one array of first children describes the
structure (CSR with implicit column indices; docs/decisions/0001-breadth-first-tries.md). Identifiers end in `</s>`, an
edge like any other, so an identifier may be a prefix of another. Leaves are numbered in lexicographic order, so every
node covers an interval of leaves.
"""

# M nodes, N leaves, L longest identifier with `</s>`

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.decoding.leaf_intervals import LeafIntervals
from model.errors import CatalogError

NUM_SENTINELS = 1
"""Entries of a trie in the arena beyond its nodes: one `first_child` that ends the children of the last node."""

_MAX_COUNTED = 2048  # nodes per level whose children are counted exactly; further ones count as the last of these


@dataclass(frozen=True, eq=False)
class Trie:
    """One domain's identifiers. Node 0 is the root."""

    token: NDArray[np.int32]  # [M], token on the edge into a node
    first_child: NDArray[np.int32]  # [M + 1], children of n are the nodes first_child[n] … first_child[n + 1] - 1
    leaf_lo: NDArray[np.int32]  # [M], first leaf below a node
    leaf_hi: NDArray[np.int32]  # [M], one past the last leaf below a node
    rows_of_leaves: NDArray[np.int64]  # [N], row of the identifier of each leaf
    fanout: tuple[int, ...]  # [L], largest number of children of a node at each depth
    level_widths: tuple[int, ...]  # [L], nodes at each depth below the root; as many beams prune nothing

    @property
    def num_leaves(self) -> int:
        return len(self.rows_of_leaves)

    @property
    def num_nodes(self) -> int:
        return len(self.token)

    @property
    def depth(self) -> int:
        """L, the decode steps of the longest identifier."""
        return len(self.fanout)

    def has(self, tokens: Sequence[int]) -> bool:
        """Whether this is an identifier, with `</s>` at its end."""
        node = 0
        for token in tokens:
            start, end = self.first_child[node : node + 2].tolist()
            node = start + int(np.searchsorted(self.token[start:end], token))
            if node == end or self.token[node] != token:
                return False
        return bool(self.first_child[node] == self.first_child[node + 1])

    def max_children(self, num_nodes: int) -> tuple[int, ...]:
        """For each depth [L], the largest total number of children of any `num_nodes` nodes."""
        return tuple(_bound(totals, num_nodes) for totals in self._cumulative_children)

    @cached_property
    def _cumulative_children(self) -> tuple[NDArray[np.int64], ...]:
        """For each depth, the total children of its 1, 2, … nodes with the most children."""
        starts = np.cumsum([0, 1, *self.level_widths])
        return tuple(
            np.cumsum(_largest(np.diff(self.first_child[start : end + 1]).astype(np.int64)))
            for start, end in pairwise(starts[:-1])
        )

    @cached_property
    def intervals(self) -> LeafIntervals:
        """For the largest values below nodes."""
        return LeafIntervals.of(self.leaf_lo, self.leaf_hi, self.level_widths, self.num_leaves)

    @property
    def leaves_of_rows(self) -> NDArray[np.int32]:
        """Inverse of `rows_of_leaves`, [N]."""
        leaves = np.empty(self.num_leaves, dtype=np.int32)
        leaves[self.rows_of_leaves] = np.arange(self.num_leaves, dtype=np.int32)
        return leaves

    @classmethod
    def build(cls, flat: NDArray[np.int64], offsets: NDArray[np.int64], *, eos_id: int) -> Trie:
        """Build from token rows without `</s>`: row i is flat[offsets[i]:offsets[i + 1]].

        Raises CatalogError if there is no identifier, or if one is empty, contains `</s>` or is a duplicate.
        """
        matrix = _padded(flat, offsets, eos_id)
        order = np.lexsort(matrix.T[::-1])
        matrix = matrix[order]
        shared = _shared_prefixes(matrix, order)
        lengths = np.count_nonzero(matrix >= 0, axis=1)
        return _link(matrix, shared, lengths, order.astype(np.int64))


def _largest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The `_MAX_COUNTED` largest counts, in descending order."""
    if len(counts) > _MAX_COUNTED:
        counts = np.partition(counts, -_MAX_COUNTED)[-_MAX_COUNTED:]
    return np.sort(counts)[::-1]


def _bound(totals: NDArray[np.int64], num_nodes: int) -> int:
    if num_nodes <= len(totals) or len(totals) < _MAX_COUNTED:
        return int(totals[min(num_nodes, len(totals)) - 1])
    return int(totals[-1] + (num_nodes - len(totals)) * (totals[-1] - totals[-2]))


def _padded(flat: NDArray[np.int64], offsets: NDArray[np.int64], eos_id: int) -> NDArray[np.int32]:
    """Identifiers as the rows of a matrix [N, L], `</s>` appended, -1 beyond it."""
    lengths = np.diff(offsets)
    if len(lengths) == 0:
        raise CatalogError("the catalog has no identifier; at least one item is required")
    if (lengths == 0).any():
        raise CatalogError(f"the identifier of row {int(np.argmin(lengths))} has no tokens; give it a text")
    if (flat == eos_id).any():
        row = int(np.searchsorted(offsets, np.argmax(flat == eos_id), side="right")) - 1
        raise CatalogError(f"the identifier of row {row} contains </s>, which ends identifiers; give it another text")
    matrix = np.full((len(lengths), int(lengths.max()) + 1), -1, dtype=np.int32)
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    matrix[row_of, np.arange(len(flat)) - np.repeat(offsets[:-1], lengths)] = flat
    matrix[np.arange(len(lengths)), lengths] = eos_id
    return matrix


def _shared_prefixes(matrix: NDArray[np.int32], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length of the common prefix of each sorted row with the previous one, [N]; -1 for the first row."""
    differs = matrix[1:] != matrix[:-1]
    is_same = ~differs.any(axis=1)
    if is_same.any():
        twin = int(np.argmax(is_same))
        first, second = sorted((int(order[twin]), int(order[twin + 1])))
        raise CatalogError(f"rows {first} and {second} have the same identifier; identifiers must be unique")
    return np.concatenate([[-1], differs.argmax(axis=1)])


def _link(
    matrix: NDArray[np.int32], shared: NDArray[np.int64], lengths: NDArray[np.int64], order: NDArray[np.int64]
) -> Trie:
    num_leaves, depth = matrix.shape
    tokens, lows, highs = [np.zeros(1, np.int32)], [np.zeros(1, np.int64)], [np.array([num_leaves])]
    counts: list[NDArray[np.int64]] = []
    for level in range(depth):
        boundaries = np.flatnonzero(shared <= level)
        low = boundaries[lengths[boundaries] > level]
        ends = np.append(boundaries, num_leaves)
        tokens.append(matrix[low, level])
        highs.append(ends[np.searchsorted(boundaries, low, side="right")])
        parents = np.searchsorted(lows[-1], low, side="right") - 1
        counts.append(np.bincount(parents, minlength=len(lows[-1])))
        lows.append(low)
    counts.append(np.zeros(len(lows[-1]), dtype=np.int64))
    return Trie(
        token=np.concatenate(tokens),
        first_child=np.concatenate([[1], 1 + np.cumsum(np.concatenate(counts))]).astype(np.int32),
        leaf_lo=np.concatenate(lows).astype(np.int32),
        leaf_hi=np.concatenate(highs).astype(np.int32),
        rows_of_leaves=order,
        fanout=tuple(int(count.max()) for count in counts[:-1]),
        level_widths=tuple(len(low) for low in lows[1:]),
    )


EMPTY_TRIE = Trie(
    token=np.zeros(1, np.int32),
    first_child=np.ones(2, np.int32),
    leaf_lo=np.zeros(1, np.int32),
    leaf_hi=np.zeros(1, np.int32),
    rows_of_leaves=np.zeros(0, np.int64),
    fanout=(),
    level_widths=(),
)
"""The trie of an empty slot."""
