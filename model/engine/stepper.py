"""Decode steps of the network for beam searches, over a static cache."""

from __future__ import annotations

from torch import Tensor

from model.network.banks import RowIndex
from model.network.network import Vip5Network
from model.network.stacks import Memory


class NetworkStepper:
    """The decode loop of one encoded batch; keeps the current position."""

    def __init__(
        self, network: Vip5Network, memory: Memory, rows: RowIndex, *, num_beams: int, max_length: int
    ) -> None:
        self._network = network
        self._memory = memory
        self._rows = rows
        self._biases = network.step_biases(max_length)
        self._cache = network.new_cache(memory.keys[0].shape[0], num_beams, max_length)

    def step(self, tokens: Tensor, parents: Tensor | None) -> Tensor:
        """Tokens [B, n] of beams that continue beams parents [B, n] of the last step → logits [B, n, V]."""
        if parents is not None:
            self._cache.reorder(parents)
        bias = self._biases[self._cache.length]
        return self._network.step(tokens, bias, self._cache, self._memory, self._rows)
