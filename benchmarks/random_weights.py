"""Random weights of an untrained model, seeded, and scaled so that answers depend on the prompt."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from model.bundle.shapes import CATEGORY, SHARED, WHOLE_WORD, Shape

_EMBEDDING_STD = 0.1
_FINAL_NORM = 20.0


def initial_weights(shapes: Mapping[str, Shape], seed: int) -> dict[str, torch.Tensor]:
    """A tensor for each name in `shapes`, determined by names, shapes and seed.

    Embeddings are small compared with the layers' outputs; otherwise a tied head would mostly repeat the last token.
    The decoder's last norm compensates.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: _initial(name, shapes[name], generator) for name in sorted(shapes)}


def _initial(name: str, shape: Shape, generator: torch.Generator) -> torch.Tensor:
    if name == "decoder.final_layer_norm.weight":
        return torch.full(shape, _FINAL_NORM)
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) * _std(name, shape)


def _std(name: str, shape: Shape) -> float:
    if name in (SHARED, WHOLE_WORD, CATEGORY):
        return _EMBEDDING_STD
    if name.endswith("relative_attention_bias.weight"):
        return 0.5
    _, fan_in = shape
    if name.endswith((".q.weight", ".k.weight")):
        return float(2 * fan_in**-0.5 * shape[0] ** -0.25)  # attention that is neither uniform nor on one token
    return float(fan_in**-0.5)
