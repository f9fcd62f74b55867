"""The decoder's static key–value cache."""

# L layers, B rows, K beams, H heads, T longest target, E head width

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class StepCache(Protocol):
    """Where the decoder's layers write the keys and values of a step and read those of all steps."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values [B, n, H, E]; returns all so far, each [B·n, H, t + 1, E]."""
        ...

    def advance(self) -> None:
        """End a step, after all layers have written."""
        ...


class KeyValueCache:
    """Keys and values of the decoded tokens of every beam, in one tensor of fixed size.

    The first step may run with one beam per row; `reorder` then copies it to all K.
    """

    def __init__(self, data: Tensor) -> None:
        """Use a tensor of shape [L, 2, B, K, H, T, E] with any content."""
        self._data = data
        self.length = 0

    @property
    def num_beams(self) -> int:
        return self._data.shape[3]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values [B, n, H, E] of the first n beams.

        Returns all of theirs so far, each [B·n, H, t + 1, E].
        """
        num_beams, end = k.shape[1], self.length + 1
        data = self._data[layer, :, :, :num_beams]
        data[0, :, :, :, self.length] = k
        data[1, :, :, :, self.length] = v
        keys, values = data[:, :, :, :, :end].flatten(1, 2)
        return keys, values

    def advance(self) -> None:
        """End a step, after all layers have written."""
        self.length += 1

    def reorder(self, parents: Tensor) -> None:
        """Make beam k of row b continue beam parents[b, k]; parents: [B, n], int64, for the first n beams."""
        num_rows, num_beams = self._data.shape[2:4]
        first = torch.arange(num_rows, device=parents.device).unsqueeze(1) * num_beams
        written = self._data[:, :, :, :, :, : self.length].flatten(2, 3)
        chosen = written.index_select(2, (parents + first).flatten())
        self._data[:, :, :, : parents.shape[1], :, : self.length] = chosen.unflatten(2, parents.shape)
