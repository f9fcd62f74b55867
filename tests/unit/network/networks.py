"""Small networks with random weights, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.network.banks import BankIndex, RowIndex
from model.network.config import BackboneConfig, DomainLayout, Task
from model.network.network import NO_ADDITIONS, EncoderBatch, Vip5Network
from model.network.weights import freeze, load_backbone, load_domain
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors

LAYOUTS: dict[str, DomainLayout] = {
    "all": TINY_LAYOUT,
    "larger": DomainLayout(
        bottleneck=6,
        cross_attention_adapter=True,
        one_adapter_for_all_tasks=False,
        visual_tokens=3,
        feature_dim=12,
        visual_norm=False,
        whole_word_rows=80,
        category_rows=20,
    ),
    "no_cross_adapter": DomainLayout(
        bottleneck=2,
        cross_attention_adapter=False,
        one_adapter_for_all_tasks=False,
        visual_tokens=1,
        feature_dim=5,
        visual_norm=True,
        whole_word_rows=40,
        category_rows=2,
    ),
    "nothing": NO_ADDITIONS,
}


def backbone_tensors(config: BackboneConfig = TINY_BACKBONE) -> dict[str, Tensor]:
    return random_tensors(expected_shapes(config), seed=0)


def domain_tensors(layout: DomainLayout, seed: int, config: BackboneConfig = TINY_BACKBONE) -> dict[str, Tensor]:
    return random_tensors(expected_domain_shapes(config, layout), seed)


def network_of(names: Sequence[str], config: BackboneConfig = TINY_BACKBONE) -> Vip5Network:
    """A frozen network with these layouts; a layout has the same weights wherever it stands."""
    network = unfilled(names, config)
    load_backbone(network, backbone_tensors(config))
    for slot, name in enumerate(names):
        load_domain(network, slot, domain_tensors(LAYOUTS[name], seed_of(name), config))
    freeze(network)
    return network


def unfilled(names: Sequence[str], config: BackboneConfig = TINY_BACKBONE) -> Vip5Network:
    return Vip5Network(config, [LAYOUTS[name] for name in names])


def seed_of(name: str) -> int:
    return 1 + list(LAYOUTS).index(name)


def batch_for(network: Vip5Network, slot: int, task: Task = "sequential", *, seed: int = 0) -> EncoderBatch:
    """Two rows of one domain: tokens, two images each, and padding after the second."""
    layout = network.layouts[slot]
    generator = torch.Generator().manual_seed(seed)
    photo, word = torch.full((layout.visual_tokens,), fill_value=True), torch.tensor([False])
    is_image = torch.cat([word, word, photo, word, photo, word, word])
    length = len(is_image)
    input_ids = torch.randint(3, network.config.vocab_size - 2, (2, length), generator=generator)
    input_ids[:, is_image] = network.config.vocab_size - 1
    input_ids[1, -1] = 0
    whole_word_ids = torch.arange(length).expand(2, -1).clone()
    features = torch.zeros(2, 2 if layout.visual_tokens else 0, network.feature_dim)
    features[..., : layout.feature_dim] = torch.randn(2, features.shape[1], layout.feature_dim, generator=generator)
    return EncoderBatch(
        input_ids=input_ids,
        whole_word_ids=whole_word_ids if layout.whole_word_rows else whole_word_ids * 0,
        category_ids=is_image.long().expand(2, -1).clone(),
        features=features,
        rows=RowIndex(domain=slot, adapter=network.adapter_row(slot, task)),
    )


def rows_as_tensors(rows: RowIndex, num_rows: int) -> RowIndex:
    """The same rows, but read from the banks row by row, as in a batch of several domains."""

    def spread(index: BankIndex) -> Tensor:
        assert isinstance(index, int)
        return torch.full((num_rows,), index)

    return RowIndex(domain=spread(rows.domain), adapter=spread(rows.adapter))


def targets_for(network: Vip5Network, length: int = 4, *, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, network.config.vocab_size - 2, (2, length), generator=generator)
