"""Weights that training starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.bundle.shapes import CATEGORY, HEAD, SHARED, WHOLE_WORD, Shape, expected_domain_shapes
from model.network.config import BackboneConfig, DomainLayout


@dataclass(frozen=True)
class Initialiser:
    """Random weights by name: the same seed, name and shape give the same values, whatever else is made."""

    config: BackboneConfig
    seed: int

    def tensors(self, shapes: Mapping[str, Shape], stream: str) -> dict[str, Tensor]:
        """One tensor per name; `stream` tells domains apart."""
        generator = torch.Generator().manual_seed(_seed_of(self.seed, stream))
        return {name: self._tensor(name, shapes[name], generator) for name in sorted(shapes)}

    def domain(self, name: str, layout: DomainLayout, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A domain's tensors: those `given` in the right shape, the others anew."""
        shapes = expected_domain_shapes(self.config, layout)
        fresh = self.tensors(shapes, name)
        return {key: given[key] if key in given and given[key].shape == shapes[key] else fresh[key] for key in shapes}

    def _tensor(self, name: str, shape: Shape, generator: torch.Generator) -> Tensor:
        if name.endswith("bias") or ".up_sampler." in name:
            return torch.zeros(shape)  # an adapter starts as one that adds nothing
        if len(shape) == 1:
            return torch.ones(shape)
        return torch.randn(shape, generator=generator) * self._std(name, shape)

    def _std(self, name: str, shape: Shape) -> float:
        """T5's own starting widths; N(0, 1) for embeddings, VIP5's tables included."""
        config = self.config
        if name in (SHARED, HEAD, WHOLE_WORD, CATEGORY):
            return 1.0
        if name.endswith(".q.weight"):
            return float((config.d_model * config.d_kv) ** -0.5)
        if name.endswith("relative_attention_bias.weight"):
            return float(config.d_model**-0.5)
        return float(shape[-1] ** -0.5)


def _seed_of(seed: int, stream: str) -> int:
    """A number for a stream of random values, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:7], "big")
