"""Banks: the weights of all domains stacked, of which each batch row reads its own domain's.

A domain with a smaller layout than the bank is padded with zeros, which is exact: a bottleneck unit with zero weights
contributes gelu(0) = 0, and an adapter with zero weights adds nothing.
"""

# B rows, N positions (tokens or beams), D width, R bottleneck, C domains in the bank, A adapters in the bank

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.projection import linear_gelu


@dataclass(frozen=True)
class PackedBanks:
    """Banks side by side in one tensor, so that one gather fetches all that a row needs."""

    data: Tensor  # [C, W], or [A, W]
    places: Mapping[int, tuple[int, int]]  # by a bank's id(): its start and end in W


class BankRows:
    """Entries of packed banks, which are fetched once and read any number of times."""

    def __init__(self, packed: PackedBanks, entries: Tensor) -> None:
        """Fetch entries [B], or [1] if all rows read the same one."""
        self.entries = entries
        self._places = packed.places
        self._fetched = packed.data.index_select(0, entries)

    def of(self, bank: Tensor) -> Tensor:
        """Rows of a bank [C, ...], packed or not: [B, ...] or [1, ...]."""
        if id(bank) not in self._places:
            return bank.index_select(0, self.entries)
        start, end = self._places[id(bank)]
        rows: Tensor = self._fetched[:, start:end].unflatten(1, bank.shape[1:])
        return rows


BankIndex: TypeAlias = int | Tensor | BankRows
"""The entry of a bank that each row reads: [B], one number if all rows read the same, or fetched entries."""


def bank_index(numbers: Sequence[int], device: torch.device | None = None) -> int | Tensor:
    """The index of rows that read these entries; one number if all are equal, which avoids a gather."""
    if len(set(numbers)) == 1:
        return numbers[0]
    return torch.tensor(numbers, device=device)


@dataclass(frozen=True)
class RowIndex:
    """The weights of each row of a batch."""

    domain: BankIndex
    adapter: BankIndex  # by domain and task


def select(bank: Tensor, index: BankIndex) -> Tensor:
    """Entries of a bank [C, ...] by row: [B, ...], or [...] or [1, ...] if all rows share one entry."""
    if isinstance(index, int):
        return bank[index]
    return index.of(bank) if isinstance(index, BankRows) else bank.index_select(0, index)


def entries(index: Tensor | BankRows) -> Tensor:
    """The numbers of the entries: [B] or [1]."""
    return index.entries if isinstance(index, BankRows) else index


class RMSNormBank(nn.Module):
    """T5's norm: x · rsqrt(mean(x²) + eps) · w, without mean and bias."""

    def __init__(self, num_domains: int, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_domains, width))  # [C, D]
        self.eps = eps

    def forward(self, x: Tensor, index: BankIndex) -> Tensor:
        """x: [B, N, D]. The mean is taken in float32."""
        weight = select(self.weight, index)
        width = weight.shape[-1:]
        if weight.shape.numel() == width.numel():
            return functional.rms_norm(x, width, weight.reshape(width), self.eps)
        return functional.rms_norm(x, width, None, self.eps) * weight.unsqueeze(1)


@dataclass(frozen=True)
class SharedAdapter:
    """One adapter, with the bias of its second product added before its first, which saves an operator."""

    down_weight: Tensor  # [R, D]
    folded_bias: Tensor  # [R]
    up_weight: Tensor  # [D, R]
    up_bias: Tensor  # [D]

    def add_to(self, x: Tensor, biased: Tensor) -> Tensor:
        """Add the adapter's output for a to x, both [..., D], given `biased` = a + up_bias."""
        hidden = linear_gelu(biased, self.down_weight, self.folded_bias)
        total = (x + biased).flatten(0, -2)
        return total.addmm_(hidden.flatten(0, -2), self.up_weight.t()).view_as(x)


class AdapterBank(nn.Module):
    """Bottleneck adapters with an internal residual: a + up(gelu_new(down(a))). VIP5, §3.2."""

    def __init__(self, num_adapters: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down_weight = nn.Parameter(torch.zeros(num_adapters, bottleneck, width))  # [A, R, D]
        self.down_bias = nn.Parameter(torch.zeros(num_adapters, bottleneck))
        self.up_weight = nn.Parameter(torch.zeros(num_adapters, width, bottleneck))  # [A, D, R]
        self.up_bias = nn.Parameter(torch.zeros(num_adapters, width))
        self.folded_bias: Tensor | None = None  # [A, R], see `fold`

    def fold(self, entries: slice) -> None:
        """Compute the bias of the product with `down_weight` for an input to which `up_bias` was added already.

        down(a) + down_bias = down(a + up_bias) + folded_bias. Does nothing unless PackedNetwork made the bank.
        """
        if self.folded_bias is not None:
            shift = (self.down_weight[entries].float() @ self.up_bias[entries].float().unsqueeze(-1)).squeeze(-1)
            self.folded_bias[entries] = (self.down_bias[entries].float() - shift).to(self.folded_bias.dtype)

    def shared_entry(self, index: BankIndex) -> SharedAdapter | None:
        """The weights that all rows share, for a shorter computation; None if rows differ or nothing is folded."""
        if self.folded_bias is None or not isinstance(index, BankRows) or len(index.entries) > 1:
            return None
        banks = (self.down_weight, self.folded_bias, self.up_weight, self.up_bias)
        return SharedAdapter(*(index.of(bank)[0] for bank in banks))

    def forward(self, a: Tensor, index: BankIndex) -> Tensor:
        """a: [B, N, D]."""
        down = banked_linear(a, self.down_weight, self.down_bias, index)
        up = banked_linear(functional.gelu(down, approximate="tanh"), self.up_weight, self.up_bias, index)
        return a + up


def banked_linear(x: Tensor, weight: Tensor, bias: Tensor, index: BankIndex) -> Tensor:
    """Apply each row's weight [C, out, in] and bias [C, out] to x [B, N, in]: [B, N, out]."""
    if isinstance(index, int):
        return functional.linear(x, weight[index], bias[index])
    weights, biases = select(weight, index), select(bias, index)
    if len(weights) == 1:
        return functional.linear(x, weights[0], biases[0])
    return torch.baddbmm(biases.unsqueeze(1), x, weights.transpose(1, 2))
