"""Placing domains into slots of a network's banks, and enlarging the banks for larger domains.

Other slots are not touched, so batches of other domains can run meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from model.network.banks import AdapterBank, RMSNormBank
from model.network.config import DomainLayout, capacity_of
from model.network.network import NO_ADDITIONS, Vip5Network
from model.network.projection import Projection
from model.network.visual import VisualMapperBank
from model.network.weights import Weights, domain_weights, freeze, load_domain


def fits(network: Vip5Network, slot: int, layout: DomainLayout) -> bool:
    """Whether a slot has room for a domain of this layout."""
    if slot >= len(network.layouts):
        return False
    room = network.capacity
    return capacity_of([room, layout]) == replace(room, visual_norm=room.visual_norm or layout.visual_norm)


@torch.no_grad()
def place_domain(network: Vip5Network, slot: int, layout: DomainLayout, weights: Weights) -> None:
    """Load a domain into a slot that `fits` it. `weights` must include its layer norms."""
    assert fits(network, slot, layout), "enlarge the network with with_layout first"
    _empty(network, slot)
    network.set_layout(slot, layout)
    load_domain(network, slot, weights)
    for module in network.modules():
        if isinstance(module, AdapterBank):
            module.fold(_adapters(network, slot))


@torch.no_grad()
def with_layout(network: Vip5Network, slot: int, layout: DomainLayout) -> Vip5Network:
    """A network with room for this layout in a slot, and with all other slots unchanged.

    The backbone is shared, not copied; the slot itself is not filled.
    """
    layouts = list(network.layouts)
    layouts += [NO_ADDITIONS] * (slot + 1 - len(layouts))
    layouts[slot] = layout
    with network.shared.device:
        larger = Vip5Network(network.config, layouts, room_for=network.capacity)
    _share_backbone(network, larger)
    larger = larger.to(network.shared.dtype)
    for other in range(len(network.layouts)):
        if other != slot:
            load_domain(larger, other, domain_weights(network, other))
    freeze(larger)
    return larger


def _adapters(network: Vip5Network, slot: int) -> slice:
    return slice(slot * network.adapters_per_domain, (slot + 1) * network.adapters_per_domain)


def _empty(network: Vip5Network, slot: int) -> None:
    """Reset a slot's weights to those of a domain without additions."""
    adapters = _adapters(network, slot)
    for module in network.modules():
        if isinstance(module, RMSNormBank):
            module.weight[slot] = 1
        elif isinstance(module, AdapterBank):
            for bank in module.parameters():
                bank[adapters] = 0
        elif isinstance(module, VisualMapperBank):
            for bank in module.parameters():
                bank[slot] = 0
    for table in (network.whole_word, network.category):
        if table is not None:
            table[slot] = 0


def _share_backbone(source: nn.Module, target: nn.Module) -> None:
    """Use the source's frozen parts in the target, including packed weights."""
    for name, child in source.named_children():
        if isinstance(child, Projection):
            setattr(target, name, child)
        elif isinstance(getattr(target, name, None), nn.Module):
            _share_backbone(child, getattr(target, name))
    for name in ("shared", "table"):
        parameter: Tensor | None = getattr(source, name, None)
        if isinstance(parameter, nn.Parameter):
            setattr(target, name, parameter)
