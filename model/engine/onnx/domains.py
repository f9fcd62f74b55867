"""Weights of a batch's domains, as inputs of the models."""

# B rows, D width, R bottleneck

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.engine.onnx.session import to_value
from model.network.banks import AdapterBank, BankIndex, RMSNormBank, RowIndex, entries
from model.network.network import Vip5Network
from model.network.stacks import Branch
from quiet_libraries.onnx_runtime import onnxruntime

Inputs = dict[str, onnxruntime.OrtValue]

_MAX_CACHED = 256
"""Limit of cached domains and tasks. Each takes the memory of its adapters."""


@dataclass(frozen=True)
class DomainInputs:
    """Inputs of both models for the rows of a batch."""

    encoder: Inputs
    step: Inputs


@dataclass(frozen=True)
class _Entry:
    """Weights of one domain and task in the layout of the models' inputs."""

    encoder: dict[str, Tensor]
    step: dict[str, Tensor]
    inputs: DomainInputs


class DomainInputBank:
    """Makes and caches the inputs of domains and tasks."""

    def __init__(self, network: Vip5Network) -> None:
        self._network = network
        self._entries: dict[tuple[int, int], _Entry] = {}

    def of(self, rows: RowIndex) -> DomainInputs:
        """Shared entries [...] if all rows have the same weights, otherwise one entry per row, [B, ...]."""
        if isinstance(rows.domain, int) and isinstance(rows.adapter, int):
            return self._entry(rows.domain, rows.adapter).inputs
        entries_of_rows = [self._entry(domain, adapter) for domain, adapter in _pairs(rows)]
        return DomainInputs(
            encoder=_stacked([entry.encoder for entry in entries_of_rows]),
            step=_stacked([entry.step for entry in entries_of_rows]),
        )

    def invalidate(self, slot: int) -> None:
        """Drop the cached inputs of a slot, whose weights have changed."""
        for key in [key for key in self._entries if key[0] == slot]:
            del self._entries[key]

    def _entry(self, domain: int, adapter: int) -> _Entry:
        entry = self._entries.get((domain, adapter))
        if entry is None:
            if len(self._entries) >= _MAX_CACHED:
                self._entries.clear()
            network = self._network
            encoder = _laid_out(_encoder_branches(network), "encoder", network.encoder.final_norm, domain, adapter)
            step = _laid_out(_decoder_branches(network), "decoder", network.decoder.final_norm, domain, adapter)
            entry = _Entry(encoder, step, DomainInputs(_values(encoder), _values(step)))
            self._entries[domain, adapter] = entry
        return entry


def _pairs(rows: RowIndex) -> list[tuple[int, int]]:
    """Domain and adapter of each row. A single number applies to all rows."""
    domains, adapters = _numbers(rows.domain), _numbers(rows.adapter)
    num_rows = max(len(domains), len(adapters))
    return list(zip(domains * (num_rows // len(domains)), adapters * (num_rows // len(adapters)), strict=True))


def _numbers(index: BankIndex) -> list[int]:
    return [index] if isinstance(index, int) else entries(index).tolist()


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> Inputs:
    """Stack weights to [B, D, R], and norms and biases, which need an axis for positions, to [B, 1, D]."""
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return _values({name: tensor.unsqueeze(1) if tensor.dim() == 2 else tensor for name, tensor in stacked.items()})


def _values(tensors: Mapping[str, Tensor]) -> Inputs:
    return {name: to_value(tensor) for name, tensor in tensors.items()}


def _encoder_branches(network: Vip5Network) -> Iterator[tuple[str, Branch]]:
    for number, block in enumerate(network.encoder.layers):
        yield f"encoder.{number}.attention", block.attention_branch
        yield f"encoder.{number}.feed_forward", block.feed_forward_branch


def _decoder_branches(network: Vip5Network) -> Iterator[tuple[str, Branch]]:
    for number, block in enumerate(network.decoder.layers):
        yield f"decoder.{number}.attention", block.attention_branch
        yield f"decoder.{number}.cross", block.cross_branch
        yield f"decoder.{number}.feed_forward", block.feed_forward_branch


def _laid_out(
    branches: Iterator[tuple[str, Branch]], stack: str, final_norm: RMSNormBank, domain: int, adapter: int
) -> dict[str, Tensor]:
    tensors = {f"{stack}.final.norm": final_norm.weight[domain].detach()}
    for name, branch in branches:
        tensors[f"{name}.norm"] = branch.norm.weight[domain].detach()
        if branch.adapter is not None:
            tensors |= {f"{name}.{part}": tensor for part, tensor in _adapter(branch.adapter, adapter).items()}
    return tensors


def _adapter(bank: AdapterBank, row: int) -> dict[str, Tensor]:
    """Weights [D, R] and [R, D], transposed for the products, and biases [R] and [D]."""
    return {
        "down": bank.down_weight[row].detach().t().contiguous(),
        "up": bank.up_weight[row].detach().t().contiguous(),
        "down_bias": bank.down_bias[row].detach(),
        "up_bias": bank.up_bias[row].detach(),
    }
