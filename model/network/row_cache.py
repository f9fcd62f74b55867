"""The decoder's cache for texts that share a batch but start at different times and are at different positions.

Buffers grow by doubling. On a GPU every step runs over whole buffers, elsewhere only over the part in use.
"""

# L layers, R rows there is room for, n rows of a step, H heads, T room for tokens, S room for source, E head width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.attention import padding_mask
from model.network.network import Vip5Network
from model.network.stacks import Memory

Selector = slice | Tensor

_FEWEST_ROWS = 4
_FEWEST_TOKENS = 32
_FEWEST_SOURCE_TOKENS = 64


@dataclass(frozen=True)
class RowSelection:
    """The rows of a step; valid until the buffers are moved."""

    rows: tuple[int, ...]
    selector: Selector
    memory: Memory


class RowCache:
    """Keys and values of each row's tokens and source, in tensors of [L, 2, R, H, T or S, E]."""

    def __init__(self, network: Vip5Network, *, is_static: bool) -> None:
        """With `is_static`, every step runs over all rows and positions of the buffers."""
        config = network.config
        self._heads = (config.num_heads, config.d_kv)
        self._num_layers = config.num_decoder_layers
        self._is_static = is_static
        self._like = network.shared
        self._positions = network.decoder.positions
        self.release()

    def release(self) -> None:
        """Remove all rows and free their memory."""
        self._lengths: list[int] = []
        self._source_lengths: list[int] = []
        self._own = self._room(0, 0)
        self._source = self._room(0, 0)
        self._biases = self._like.new_zeros(0)

    @property
    def num_rows(self) -> int:
        """The number of rows that the buffers have room for."""
        return self._own.shape[2]

    def occupy(self, rows: Sequence[int], memory: Memory, source_lengths: Sequence[int]) -> None:
        """Start a text in each row, from a batch's memory [n, H, S, E] with these source lengths."""
        width = memory.keys[0].shape[2]
        self._reserve(max(rows) + 1, 1, width)
        index = torch.tensor(list(rows), device=self._like.device)
        for layer, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            self._source[layer, 0, index, :, :width] = keys
            self._source[layer, 1, index, :, :width] = values
        for row, length in zip(rows, source_lengths, strict=True):
            self._lengths[row], self._source_lengths[row] = 0, length

    def vacate(self, row: int) -> None:
        self._lengths[row] = self._source_lengths[row] = 0

    def select(self, rows: Sequence[int]) -> RowSelection:
        """Prepare steps of these rows; valid until `occupy`, until the buffers are moved, or until other rows step."""
        chosen = tuple(range(self.num_rows)) if self._is_static else tuple(rows)
        selector = _selector(chosen, self._like.device)
        width = self._source.shape[4] if self._is_static else max(self._source_lengths[row] for row in chosen)
        keys, values = self._source[:, :, selector, :, :width].unbind(1)
        lengths = [self._source_lengths[row] for row in chosen]
        mask = None
        if self._is_static or min(lengths) < width:
            places = torch.arange(width, device=self._like.device)
            ends = torch.tensor(lengths, device=self._like.device).unsqueeze(1)
            mask = padding_mask(places < ends, self._like.dtype)
        return RowSelection(chosen, selector, Memory(keys.unbind(0), values.unbind(0), mask))

    def reserve_step(self) -> bool:
        """Make room for one more token per row; returns whether the buffers were moved."""
        return self._reserve(0, max(self._lengths) + 1, 0)

    def at_step(self, selection: RowSelection) -> StepRows:
        """The selected rows' caches for one more token each."""
        positions = [self._lengths[row] for row in selection.rows]
        length = self._own.shape[4] if self._is_static else max(positions) + 1
        return StepRows(
            self._own[..., :length, :],
            selection.selector,
            torch.tensor(selection.rows, device=self._like.device),
            torch.tensor(positions, device=self._like.device),
        )

    def past(self, selection: RowSelection) -> tuple[Tensor, Tensor]:
        """The selected rows' keys and values so far, [L, 2, n, H, t, E] for the longest, and their lengths [n]."""
        lengths = [self._lengths[row] for row in selection.rows]
        return self._own[:, :, selection.selector, :, : max(lengths)], torch.tensor(lengths, device=self._like.device)

    def biases(self, positions: Tensor, length: int) -> Tensor:
        """Position bias [n, H, 1, length] of tokens at positions [n], with the future masked."""
        bias: Tensor = self._biases.index_select(0, positions)
        return bias[:, :, None, :length]

    def advance(self, rows: Sequence[int]) -> None:
        """End a step of these rows."""
        for row in rows:
            self._lengths[row] += 1

    def _reserve(self, num_rows: int, length: int, width: int) -> bool:
        own, source = self._own.shape, self._source.shape
        rows = _grown(own[2], num_rows, _FEWEST_ROWS)
        tokens = _grown(own[4], length, _FEWEST_TOKENS)
        sources = _grown(source[4], width, _FEWEST_SOURCE_TOKENS)
        if (rows, tokens, sources) == (own[2], own[4], source[4]):
            return False
        new_own, new_source = self._room(rows, tokens), self._room(rows, sources)
        new_own[:, :, : own[2], :, : own[4]] = self._own
        new_source[:, :, : source[2], :, : source[4]] = self._source
        if tokens != own[4]:
            self._biases = self._bias_table(tokens)
        self._own, self._source = new_own, new_source
        missing = [0] * (rows - len(self._lengths))
        self._lengths += missing
        self._source_lengths += missing
        return True

    def _room(self, num_rows: int, length: int) -> Tensor:
        num_heads, width = self._heads
        # Zeros, because masked values are multiplied by zero and must not be NaN.
        return self._like.new_zeros((self._num_layers, 2, num_rows, num_heads, length, width))

    def _bias_table(self, length: int) -> Tensor:
        """Position bias between each position and all others, with the future masked: [T, H, T]."""
        bias: Tensor = self._positions(length)[0].to(self._like.dtype)  # [H, T, T]
        future = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        return bias.masked_fill(future, torch.finfo(bias.dtype).min).transpose(0, 1).contiguous()


class StepRows:
    """The view of a RowCache that the decoder's layers use in one step."""

    def __init__(self, own: Tensor, selector: Selector, rows: Tensor, positions: Tensor) -> None:
        """Own: [L, 2, R, H, t, E]; each of the rows [n] takes a token at its position of positions [n]."""
        self._own = own
        self._selector = selector
        self._rows = rows
        self.positions = positions

    @property
    def length(self) -> int:
        return self._own.shape[4]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write each row's token, k and v [n, 1, H, E]; returns all of the rows' keys and values, each [n, H, t, E]."""
        own = self._own[layer]
        own[0, self._rows, :, self.positions] = k[:, 0]
        own[1, self._rows, :, self.positions] = v[:, 0]
        return own[0, self._selector], own[1, self._selector]

    def advance(self) -> None:
        """Does nothing: the RowCache updates lengths, so a step that fails has no effect."""


def _grown(room: int, needed: int, fewest: int) -> int:
    """The current size if it suffices, else the next power of two."""
    return room if needed <= room else max(fewest, 1 << (needed - 1).bit_length())


def _selector(rows: tuple[int, ...], device: torch.device) -> Selector:
    """A slice for consecutive rows, which copies nothing, else their numbers."""
    if rows == tuple(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, device=device)
