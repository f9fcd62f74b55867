"""Packing a network's banks side by side, for devices on which one large gather is faster than many small ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.banks import AdapterBank, BankRows, PackedBanks, RMSNormBank, RowIndex
from model.network.network import Vip5Network
from model.network.stacks import FeedForward
from model.network.visual import VisualMapperBank

_ALIGNMENT = 64
"""Alignment of banks in elements, with which matrix products read them as fast as separate weights."""


@dataclass(frozen=True)
class PackedNetwork:
    """A network whose banks were moved into two tensors; its parameters are views of them."""

    network: Vip5Network
    by_domain: PackedBanks
    by_adapter: PackedBanks

    @classmethod
    def of(cls, network: Vip5Network) -> PackedNetwork:
        """Move the banks of a frozen network, except its embedding tables, of which only single rows are read."""
        num_domains = len(network.layouts)
        _prepare(network)
        return cls(
            network,
            _packed(network, list(_domain_banks(network)), num_domains),
            _packed(network, list(_adapter_banks(network)), num_domains * network.adapters_per_domain),
        ).folded()

    def folded(self) -> PackedNetwork:
        for module in self.network.modules():
            if isinstance(module, AdapterBank):
                module.fold(slice(None))
        return self

    def rows(self, domains: Tensor, adapters: Tensor) -> RowIndex:
        """Fetch the entries that rows read: [B], or [1] if all rows read the same."""
        return RowIndex(domain=BankRows(self.by_domain, domains), adapter=BankRows(self.by_adapter, adapters))


def _domain_banks(network: Vip5Network) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, RMSNormBank | VisualMapperBank):
            yield from module.parameters(recurse=False)


def _adapter_banks(network: Vip5Network) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, AdapterBank):
            yield from module.parameters(recurse=False)
            if module.folded_bias is not None:
                yield module.folded_bias


def _prepare(network: Vip5Network) -> None:
    """Add what operators that compute several things at once need."""
    for module in network.modules():
        if isinstance(module, AdapterBank):
            module.folded_bias = torch.zeros_like(module.down_bias)
        elif isinstance(module, FeedForward) and not module.is_gated:
            module.zeros = module.wi.weight.new_zeros(module.wi.weight.shape[0])


def _packed(network: Vip5Network, banks: list[Tensor], num_entries: int) -> PackedBanks:
    places: dict[int, tuple[int, int]] = {}
    width = 0
    for bank in banks:
        size = bank[0].numel()
        places[id(bank)] = (width, width + size)
        width += -(-size // _ALIGNMENT) * _ALIGNMENT
    data = torch.zeros(num_entries, width, dtype=network.shared.dtype, device=network.shared.device)
    for bank in banks:
        start, end = places[id(bank)]
        view = data[:, start:end].unflatten(1, bank.shape[1:])
        view.copy_(bank.data)
        bank.data = view
    return PackedBanks(data, places)
