"""Several tries in shared tensors, so that one batch searches the items of several domains."""

# M nodes of a trie

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.trie import EMPTY_TRIE, NUM_SENTINELS, Trie


@dataclass(frozen=True, eq=False)
class TrieNodes:
    """Nodes of several tries in shared int32 tensors. A search starts from the root of its domain."""

    token: Tensor  # [ΣM + tries]
    first_child: Tensor  # likewise, node numbers of the arena
    leaf_lo: Tensor  # leaf numbers of the trie
    leaf_hi: Tensor
    source: Tensor  # where boosts are found, see leaf_intervals.py


@dataclass(frozen=True, eq=False)
class TrieArena:
    """Several tries in shared tensors."""

    nodes: TrieNodes
    roots: tuple[int, ...]
    tries: tuple[Trie, ...]

    @classmethod
    def of(cls, tries: Sequence[Trie], device: torch.device | None = None) -> TrieArena:
        roots: list[int] = []
        size = 0
        for trie in tries:
            roots.append(size)
            size += trie.num_nodes + NUM_SENTINELS

        def joined(parts: list[NDArray[np.int32]]) -> Tensor:
            array = np.concatenate(parts) if parts else np.zeros(0, np.int32)
            return torch.from_numpy(array).to(device)

        padding = np.zeros(NUM_SENTINELS, np.int32)
        nodes = TrieNodes(
            token=joined([np.append(trie.token, padding) for trie in tries]),
            first_child=joined([trie.first_child + np.int32(root) for trie, root in zip(tries, roots, strict=True)]),
            leaf_lo=joined([np.append(trie.leaf_lo, padding) for trie in tries]),
            leaf_hi=joined([np.append(trie.leaf_hi, padding) for trie in tries]),
            source=joined([np.append(trie.intervals.sources, padding) for trie in tries]),
        )
        return cls(
            nodes=nodes,
            roots=tuple(roots),
            tries=tuple(tries),
        )

    def with_trie(self, slot: int, trie: Trie) -> TrieArena:
        """A copy with another trie in a slot, which may be beyond the last."""
        tries = [*self.tries, *[EMPTY_TRIE] * (slot + 1 - len(self.tries))]
        tries[slot] = trie
        return TrieArena.of(tries, self.nodes.token.device)

    def max_children(self, domains: Sequence[int], num_beams: int) -> tuple[int, ...]:
        """Upper bound of the children of a row's beams at each depth, up to the depth of the deepest of the domains."""
        chosen = [self.tries[domain].max_children(num_beams) for domain in set(domains)]
        return tuple(map(max, zip_longest(*chosen, fillvalue=0)))
