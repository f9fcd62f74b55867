"""Random weights that training starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.bundle.shapes import CATEGORY, HEAD, SHARED, WHOLE_WORD, Shape, expected_domain_shapes
from model.network.config import BackboneConfig, DomainLayout

_LAST_NORM = "decoder.final_layer_norm.weight"
_ADDED = (".o.weight", ".wo.weight")
"""The last products of attention and feed-forward, whose results are added to the embeddings."""


@dataclass(frozen=True)
class InitialWeights:
    """Weights by name: the same seed, stream and shapes give the same values.

    `embedding_std` is that of token embeddings, which are also the output's. The decoder's last norm begins at its
    inverse, so that logits begin with T5's standard deviation, 1: smaller ones hold up learning for hundreds of steps.
    What attention and feed-forward add begins at its square root, so that it does not drown the embeddings. Below 1,
    the tables of whole words and categories begin at 0: what is added to tokens hides them from a small model at first.
    """

    config: BackboneConfig
    seed: int
    embedding_std: float = 1.0

    def tensors(self, shapes: Mapping[str, Shape], stream: str) -> dict[str, Tensor]:
        """One tensor per name; each domain draws from its own `stream`."""
        generator = torch.Generator().manual_seed(_seed_of(self.seed, stream))
        return {name: self._tensor(name, shapes[name], generator) for name in sorted(shapes)}

    def domain(self, name: str, layout: DomainLayout, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A domain's tensors: those of `known` that have the right shape, and random ones for the rest."""
        shapes = expected_domain_shapes(self.config, layout)
        fresh = self.tensors(shapes, name)
        return {key: known[key] if key in known and known[key].shape == shapes[key] else fresh[key] for key in shapes}

    def _tensor(self, name: str, shape: Shape, generator: torch.Generator) -> Tensor:
        if name.endswith("bias") or ".up_sampler." in name:
            return torch.zeros(shape)  # an untrained adapter adds nothing
        if name == _LAST_NORM and self.config.tie_word_embeddings:
            return torch.full(shape, 1 / self.embedding_std)
        if len(shape) == 1:
            return torch.ones(shape)
        return torch.randn(shape, generator=generator) * self._std(name, shape)

    def _std(self, name: str, shape: Shape) -> float:
        """T5's initial standard deviations; 1 for embeddings, VIP5's tables included."""
        config = self.config
        if name in (SHARED, HEAD):
            return self.embedding_std
        if name in (WHOLE_WORD, CATEGORY):
            return self.embedding_std if self.embedding_std >= 1 else 0.0
        if name.endswith(".q.weight"):
            return float((config.d_model * config.d_kv) ** -0.5)
        if name.endswith("relative_attention_bias.weight"):
            return float(config.d_model**-0.5)
        width_scale = float(shape[-1] ** -0.5)
        return width_scale * self.embedding_std**0.5 if name.endswith(_ADDED) else width_scale


def _seed_of(seed: int, stream: str) -> int:
    """The seed of a stream, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:7], "big")
