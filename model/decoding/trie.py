"""Tries of item identifiers, and the arena that holds several of them side by side.

Nodes are numbered breadth-first, so that the children of a node are consecutive and one array of first children
describes the whole structure (CSR, with the child's number implied). Identifiers end in `</s>`, which is an edge like
any other: an identifier may be a prefix of another. Leaves are numbered in lexicographic order, so every node covers an
interval.
"""

# M nodes, N leaves, L longest identifier with `</s>`

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import CatalogError

SENTINEL = 1
"""Entries that a trie takes in the arena beyond its nodes: the end of the last node's children."""

_WIDEST_KEPT = 2048  # nodes of a level whose children are counted exactly; beyond, each counts as the last of them


@dataclass(frozen=True, eq=False)
class Trie:
    """One domain's identifiers. Node 0 is the root."""

    token: NDArray[np.int32]  # [M], token on the edge into a node
    first_child: NDArray[np.int32]  # [M + 1], children of n are the nodes first_child[n] … first_child[n + 1] - 1
    leaf_lo: NDArray[np.int32]  # [M], first leaf below a node
    leaf_hi: NDArray[np.int32]  # [M], one past the last leaf below a node
    rows_of_leaves: NDArray[np.int64]  # [N], which of the given identifiers a leaf is
    fanout: tuple[int, ...]  # [L], most children of a node at each depth
    level_widths: tuple[int, ...]  # [L], number of nodes at each depth below the root; so many beams lose nothing

    @property
    def num_leaves(self) -> int:
        return len(self.rows_of_leaves)

    @property
    def num_nodes(self) -> int:
        return len(self.token)

    @property
    def depth(self) -> int:
        """L: decode steps to the end of the longest identifier."""
        return len(self.fanout)

    def most_children(self, num_nodes: int) -> tuple[int, ...]:
        """How many children any `num_nodes` nodes of one depth can have together, for each depth: [L]."""
        return tuple(_bound(totals, num_nodes) for totals in self._children_of_widest)

    @cached_property
    def _children_of_widest(self) -> tuple[NDArray[np.int64], ...]:
        """For each depth, how many children its 1, 2, … widest nodes have together."""
        starts = np.cumsum([0, 1, *self.level_widths])
        return tuple(
            np.cumsum(_largest(np.diff(self.first_child[start : end + 1]).astype(np.int64)))
            for start, end in pairwise(starts[:-1])
        )

    @property
    def leaves_of_rows(self) -> NDArray[np.int32]:
        """Inverse of `rows_of_leaves`, [N]."""
        leaves = np.empty(self.num_leaves, dtype=np.int32)
        leaves[self.rows_of_leaves] = np.arange(self.num_leaves, dtype=np.int32)
        return leaves

    @classmethod
    def build(cls, flat: NDArray[np.int64], offsets: NDArray[np.int64], *, eos_id: int) -> Trie:
        """Sort and link identifiers given as token rows without `</s>`: row i is flat[offsets[i]:offsets[i + 1]].

        Raises CatalogError for no identifier at all, an empty one, one that holds `</s>`, and for two that are the
        same.
        """
        matrix = _padded(flat, offsets, eos_id)
        order = np.lexsort(matrix.T[::-1])
        matrix = matrix[order]
        shared = _shared_prefixes(matrix, order)
        lengths = np.count_nonzero(matrix >= 0, axis=1)
        return _link(matrix, shared, lengths, order.astype(np.int64))


def _largest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest of the counts, largest first."""
    if len(counts) > _WIDEST_KEPT:
        counts = np.partition(counts, -_WIDEST_KEPT)[-_WIDEST_KEPT:]
    return np.sort(counts)[::-1]


def _bound(totals: NDArray[np.int64], num_nodes: int) -> int:
    if num_nodes <= len(totals) or len(totals) < _WIDEST_KEPT:
        return int(totals[min(num_nodes, len(totals)) - 1])
    return int(totals[-1] + (num_nodes - len(totals)) * (totals[-1] - totals[-2]))


def _padded(flat: NDArray[np.int64], offsets: NDArray[np.int64], eos_id: int) -> NDArray[np.int32]:
    """Identifiers as the rows of a matrix [N, L], `</s>` appended, -1 beyond it."""
    lengths = np.diff(offsets)
    if len(lengths) == 0:
        raise CatalogError("the catalog holds no identifier; at least one item is needed to decode")
    if (lengths == 0).any():
        raise CatalogError(f"the identifier of row {int(np.argmin(lengths))} has no token; give it a text")
    if (flat == eos_id).any():
        row = int(np.searchsorted(offsets, np.argmax(flat == eos_id), side="right")) - 1
        raise CatalogError(f"the identifier of row {row} holds </s>, which ends identifiers; give it another text")
    matrix = np.full((len(lengths), int(lengths.max()) + 1), -1, dtype=np.int32)
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    matrix[row_of, np.arange(len(flat)) - np.repeat(offsets[:-1], lengths)] = flat
    matrix[np.arange(len(lengths)), lengths] = eos_id
    return matrix


def _shared_prefixes(matrix: NDArray[np.int32], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many leading tokens each sorted row shares with the row before, [N]; -1 for the first row."""
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


NO_ITEMS = Trie(
    token=np.zeros(1, np.int32),
    first_child=np.ones(2, np.int32),
    leaf_lo=np.zeros(1, np.int32),
    leaf_hi=np.zeros(1, np.int32),
    rows_of_leaves=np.zeros(0, np.int64),
    fanout=(),
    level_widths=(),
)
"""The trie of a slot that holds no domain."""


@dataclass(frozen=True, eq=False)
class TrieNodes:
    """Nodes of several tries in one set of tensors, each int32; a row's domain is the root that it starts from."""

    token: Tensor  # [ΣM + tries]
    first_child: Tensor  # likewise, numbers of the arena
    leaf_lo: Tensor  # numbers of the trie's own leaves
    leaf_hi: Tensor


@dataclass(frozen=True, eq=False)
class TrieArena:
    """Several tries side by side."""

    nodes: TrieNodes
    roots: tuple[int, ...]
    tries: tuple[Trie, ...]

    @classmethod
    def of(cls, tries: Sequence[Trie], device: torch.device | None = None) -> TrieArena:
        roots: list[int] = []
        size = 0
        for trie in tries:
            roots.append(size)
            size += trie.num_nodes + SENTINEL

        def together(parts: list[NDArray[np.int32]]) -> Tensor:
            joined = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            return torch.from_numpy(joined).to(device)

        padding = np.zeros(SENTINEL, np.int32)
        nodes = TrieNodes(
            token=together([np.append(trie.token, padding) for trie in tries]),
            first_child=together([trie.first_child + np.int32(root) for trie, root in zip(tries, roots, strict=True)]),
            leaf_lo=together([np.append(trie.leaf_lo, padding) for trie in tries]),
            leaf_hi=together([np.append(trie.leaf_hi, padding) for trie in tries]),
        )
        return cls(
            nodes=nodes,
            roots=tuple(roots),
            tries=tuple(tries),
        )

    def with_trie(self, slot: int, trie: Trie) -> TrieArena:
        """An arena with this trie in a slot and all else as it is; a slot may be beyond the last."""
        tries = [*self.tries, *[NO_ITEMS] * (slot + 1 - len(self.tries))]
        tries[slot] = trie
        return TrieArena.of(tries, self.nodes.token.device)

    def most_children(self, domains: Sequence[int], num_beams: int) -> tuple[int, ...]:
        """How many children the beams of a row can have at each depth; as long as the deepest of the given domains."""
        chosen = [self.tries[domain].most_children(num_beams) for domain in set(domains)]
        return tuple(map(max, zip_longest(*chosen, fillvalue=0)))
