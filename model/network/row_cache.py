"""What the decoder keeps of texts that share a batch but neither a beginning nor a position.

Buffers grow by doubling; on a GPU every step runs over all of them, elsewhere over what is used.
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
    """The rows of one step, in buffers that are not moved while it lasts."""

    rows: tuple[int, ...]
    selector: Selector
    memory: Memory


class RowCache:
    """Keys and values of each row's own tokens and of its source, in tensors of [L, 2, R, H, T or S, E]."""

    def __init__(self, network: Vip5Network, *, is_static: bool) -> None:
        """`is_static` runs every step over all rows and positions there is room for."""
        config = network.config
        self._heads = (config.num_heads, config.d_kv)
        self._num_layers = config.num_decoder_layers
        self._is_static = is_static
        self._like = network.shared
        self._positions = network.decoder.positions
        self.release()

    def release(self) -> None:
        """Forget all rows and give their memory back."""
        self._lengths: list[int] = []
        self._source_lengths: list[int] = []
        self._own = self._room(0, 0)
        self._source = self._room(0, 0)
        self._biases = self._like.new_zeros(0)

    @property
    def num_rows(self) -> int:
        """Rows that there is room for now."""
        return self._own.shape[2]

    def occupy(self, rows: Sequence[int], memory: Memory, source_lengths: Sequence[int]) -> None:
        """Begin a text in each row, from a batch's memory [n, H, S, E] whose rows have these lengths."""
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
        """Prepare steps of these rows; holds until `occupy`, `reserve_step` moves the buffers, or other rows step."""
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
        """Make room for one more token of every row; returns whether the buffers had to move."""
        return self._reserve(0, max(self._lengths) + 1, 0)

    def at_step(self, selection: RowSelection) -> StepRows:
        """The selected rows' caches, about to take one more token each."""
        positions = [self._lengths[row] for row in selection.rows]
        length = self._own.shape[4] if self._is_static else max(positions) + 1
        return StepRows(
            self._own[..., :length, :],
            selection.selector,
            torch.tensor(selection.rows, device=self._like.device),
            torch.tensor(positions, device=self._like.device),
        )

    def past(self, selection: RowSelection) -> tuple[Tensor, Tensor]:
        """What the selected rows hold so far, [L, 2, n, H, t, E] for the longest of them, and their lengths [n]."""
        lengths = [self._lengths[row] for row in selection.rows]
        return self._own[:, :, selection.selector, :, : max(lengths)], torch.tensor(lengths, device=self._like.device)

    def biases(self, positions: Tensor, length: int) -> Tensor:
        """Position bias [n, H, 1, length] of tokens at positions [n]; the future, which is not theirs, is masked."""
        bias: Tensor = self._biases.index_select(0, positions)
        return bias[:, :, None, :length]

    def advance(self, rows: Sequence[int]) -> None:
        """Close a step of these rows."""
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
        # Zeros: what is masked is multiplied by a weight of nought, which must not meet a NaN.
        return self._like.new_zeros((self._num_layers, 2, num_rows, num_heads, length, width))

    def _bias_table(self, length: int) -> Tensor:
        """Bias of the token at each position against all others, the future masked: [T, H, T]."""
        bias: Tensor = self._positions(length)[0].to(self._like.dtype)  # [H, T, T]
        future = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        return bias.masked_fill(future, torch.finfo(bias.dtype).min).transpose(0, 1).contiguous()


class StepRows:
    """A step's window on a RowCache, which the decoder's layers write to and read from."""

    def __init__(self, own: Tensor, selector: Selector, rows: Tensor, positions: Tensor) -> None:
        """Own: [L, 2, R, H, t, E], of which the rows [n] take a token at positions [n]."""
        self._own = own
        self._selector = selector
        self._rows = rows
        self.positions = positions

    @property
    def length(self) -> int:
        return self._own.shape[4]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write each row's token, k and v [n, 1, H, E]; returns what there is of the rows, each [n, H, t, E]."""
        own = self._own[layer]
        own[0, self._rows, :, self.positions] = k[:, 0]
        own[1, self._rows, :, self.positions] = v[:, 0]
        return own[0, self._selector], own[1, self._selector]

    def advance(self) -> None:
        """Lengths are the RowCache's to keep: a step that failed on the way leaves no trace."""


def _grown(room: int, needed: int, fewest: int) -> int:
    """Room for `needed`: what there is, or the next power of two."""
    return room if needed <= room else max(fewest, 1 << (needed - 1).bit_length())


def _selector(rows: tuple[int, ...], device: torch.device) -> Selector:
    """Rows that lie side by side are a slice, which copies nothing."""
    if rows == tuple(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, device=device)
