"""Boosts of a batch on the device: the largest boost of the eligible leaves below a node."""

# B rows, Q queried nodes, P patches of the row with the most, plus one for padding

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PADDING = int(np.iinfo(np.int32).max)
"""Sorts after every source; each row of `patched` ends with it."""


@dataclass(frozen=True)
class BatchBoosts:
    """Looks boosts up: those that requests share in tables, then what differs in a row among its patches.

    Boosts are logarithms of factors. `leaf_intervals.py` defines sources. Without patches, tables are the rows' own.
    """

    sources: Tensor  # int32, the source of each node of the arena
    tables: Tensor  # float32, tables of all sources of a trie each; the first entry is 0
    offset: Tensor  # int32 [B, 1], start of each row's table
    weight: Tensor  # int32 [B, 1], 1; 0 for rows without a table, whose offset is 0
    patched: Tensor | None = None  # int32 [B, P], sources with a value of the row's own, ascending, then PADDING
    patches: Tensor | None = None  # float32 [B, P]

    def largest(self, nodes: Tensor) -> Tensor:
        """Of nodes [B, Q] with an eligible leaf below: [B, Q]. Others have any value below infinity."""
        sources = self.sources[nodes]
        shared = self.tables[torch.addcmul(self.offset, sources, self.weight)]
        if self.patched is None or self.patches is None:
            return shared
        places = torch.searchsorted(self.patched, sources)
        is_patched = self.patched.gather(1, places) == sources
        return torch.where(is_patched, self.patches.gather(1, places), shared)
