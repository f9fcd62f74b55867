"""Weights that differ by domain, stacked; each batch row reads its own domain's.

A domain whose layout is smaller than the bank's is padded with zeros, which is exact: a bottleneck unit with zero
weights contributes gelu(0) = 0, a missing adapter is one that adds nothing.
"""

# B rows, N positions (tokens or beams), D width, R bottleneck, C domains in the bank, A adapters in the bank

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PackedBanks:
    """Banks that lie side by side in one tensor: one gather fetches all that a row needs."""

    data: Tensor  # [C, W], or [A, W]
    places: Mapping[int, tuple[int, int]]  # by identity of a bank: where in W its entries begin and end


class BankRows:
    """Entries of packed banks, fetched once however often they are read."""

    def __init__(self, packed: PackedBanks, entries: Tensor) -> None:
        """Fetch entries [B], or [1] for one that all rows read."""
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
"""Which entry of a bank each row reads: [B], one number where all rows read the same, or what was fetched before."""


def bank_index(numbers: Sequence[int], device: torch.device | None = None) -> int | Tensor:
    """The index of rows that read these entries; one number where they agree, which spares the gathering."""
    if len(set(numbers)) == 1:
        return numbers[0]
    return torch.tensor(numbers, device=device)


@dataclass(frozen=True)
class RowIndex:
    """Where the rows of a batch find their weights."""

    domain: BankIndex
    adapter: BankIndex  # domain and task together


def select(bank: Tensor, index: BankIndex) -> Tensor:
    """Entries of a bank [C, ...] by row: [B, ...], or [...] or [1, ...] for one entry shared by all rows."""
    if isinstance(index, int):
        return bank[index]
    return index.of(bank) if isinstance(index, BankRows) else bank.index_select(0, index)


def entries(index: Tensor | BankRows) -> Tensor:
    """Numbers of the entries: [B] or [1]."""
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


class AdapterBank(nn.Module):
    """Bottleneck adapters with a residual of their own: a + up(gelu_new(down(a))). VIP5, §3.2."""

    def __init__(self, num_adapters: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down_weight = nn.Parameter(torch.zeros(num_adapters, bottleneck, width))  # [A, R, D]
        self.down_bias = nn.Parameter(torch.zeros(num_adapters, bottleneck))
        self.up_weight = nn.Parameter(torch.zeros(num_adapters, width, bottleneck))  # [A, D, R]
        self.up_bias = nn.Parameter(torch.zeros(num_adapters, width))

    def forward(self, a: Tensor, index: BankIndex) -> Tensor:
        """a: [B, N, D]."""
        down = banked_linear(a, self.down_weight, self.down_bias, index)
        up = banked_linear(functional.gelu(down, approximate="tanh"), self.up_weight, self.up_bias, index)
        return a + up


def banked_linear(x: Tensor, weight: Tensor, bias: Tensor, index: BankIndex) -> Tensor:
    """X [B, N, in] through each row's own weight [C, out, in] and bias [C, out]: [B, N, out]."""
    if isinstance(index, int):
        return functional.linear(x, weight[index], bias[index])
    weights, biases = select(weight, index), select(bias, index)
    if len(weights) == 1:
        return functional.linear(x, weights[0], biases[0])
    return torch.baddbmm(biases.unsqueeze(1), x, weights.transpose(1, 2))
