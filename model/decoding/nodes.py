"""Facts of a trie's nodes for searches: from separate arrays, or from one table that is read in one gather.

Separate arrays are read when a fact is needed, which saves memory traffic on a CPU. A table needs fewer operators, each
of which is a launch on a GPU.
"""

# B rows, Q nodes of a row, N nodes of all tries

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieNodes

NUM_FACTS = 5
_TOKEN, _FIRST, _END, _LOW = range(NUM_FACTS - 1)


class NodeRows(Protocol):
    """Nodes [B, Q] and their facts, each int32 [B, Q]."""

    @property
    def tokens(self) -> Tensor: ...

    @property
    def first_children(self) -> Tensor: ...

    @property
    def end_children(self) -> Tensor:
        """One past the last child."""
        ...

    @property
    def first_leaves(self) -> Tensor: ...

    @property
    def intervals(self) -> Tensor:
        """First leaf and one past the last: [B, Q, 2]."""
        ...

    def gather(self, index: Tensor) -> NodeRows:
        """The nodes at places [B, P] of each row: [B, P]."""
        ...

    def narrow(self, count: int) -> NodeRows:
        """The first nodes of each row."""
        ...


@dataclass(frozen=True)
class _SeparateRows:
    arrays: TrieNodes
    nodes: Tensor  # [B, Q]

    @property
    def tokens(self) -> Tensor:
        return self.arrays.token[self.nodes]

    @property
    def first_children(self) -> Tensor:
        return self.arrays.first_child[self.nodes]

    @property
    def end_children(self) -> Tensor:
        return self.arrays.first_child[self.nodes + 1]

    @property
    def first_leaves(self) -> Tensor:
        return self.arrays.leaf_lo[self.nodes]

    @property
    def intervals(self) -> Tensor:
        return torch.stack([self.first_leaves, self.arrays.leaf_hi[self.nodes]], dim=-1)

    def gather(self, index: Tensor) -> _SeparateRows:
        return _SeparateRows(self.arrays, self.nodes.gather(1, index))

    def narrow(self, count: int) -> _SeparateRows:
        return _SeparateRows(self.arrays, self.nodes[:, :count])


@dataclass(frozen=True)
class NodeTable:
    """Facts of all nodes side by side."""

    facts: Tensor  # int32 [N, NUM_FACTS]


@dataclass(frozen=True)
class _TableRows:
    facts: Tensor  # [B, Q, NUM_FACTS]

    @property
    def tokens(self) -> Tensor:
        return self.facts[..., _TOKEN]

    @property
    def first_children(self) -> Tensor:
        return self.facts[..., _FIRST]

    @property
    def end_children(self) -> Tensor:
        return self.facts[..., _END]

    @property
    def first_leaves(self) -> Tensor:
        return self.facts[..., _LOW]

    @property
    def intervals(self) -> Tensor:
        return self.facts[..., _LOW:]

    def gather(self, index: Tensor) -> _TableRows:
        return _TableRows(self.facts.gather(1, index.unsqueeze(-1).expand(-1, -1, NUM_FACTS)))

    def narrow(self, count: int) -> _TableRows:
        return _TableRows(self.facts[:, :count])


Nodes: TypeAlias = TrieNodes | NodeTable


def rows_at(source: Nodes, nodes: Tensor) -> NodeRows:
    """The facts of nodes [B, Q]."""
    if isinstance(source, NodeTable):
        return _TableRows(source.facts[nodes])
    return _SeparateRows(source, nodes)


def facts_of(trie: Trie, start: int) -> NDArray[np.int32]:
    """The rows of a trie in a table in which its root is row `start`: [nodes, NUM_FACTS]."""
    children = trie.first_child + np.int32(start)
    return np.stack([trie.token, children[:-1], children[1:], trie.leaf_lo, trie.leaf_hi], axis=1)
