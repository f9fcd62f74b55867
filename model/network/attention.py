"""T5's attention: no scale, no biases, relative positions as an additive bias."""

# B rows, N queries, M keys, H heads, E width of a head, D model width

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.config import BackboneConfig
from model.network.projection import Projection

ELEMENTS_AT_ONCE = 1 << 20
"""Of a bias, 4 MB."""


class SelfAttention(nn.Module):
    """Projections of self-attention; one matrix product computes queries, keys and values."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.qkv = Projection.empty(3 * config.inner_dim, config.d_model)
        self.o = Projection.empty(config.d_model, config.inner_dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """X [B, N, D] → queries, keys and values, each [B, N, H, E]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def project_pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X [B, N, D] → queries [B, N, H, E], and keys and values together [B, N, 2, H, E]."""
        projected = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return projected[:, :, 0], projected[:, :, 1:]


class CrossAttention(nn.Module):
    """Projections of cross-attention; keys and values are computed once per encoder output."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q = Projection.empty(config.inner_dim, config.d_model)
        self.kv = Projection.empty(2 * config.inner_dim, config.d_model)
        self.o = Projection.empty(config.d_model, config.inner_dim)

    def memorise(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states [B, M, D] → keys and values, each [B, H, M, E]."""
        k, v = self.kv(states).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """X [B, N, D]: N positions of a target, or N beams of a row, which all read the row's single memory.

        Returns what they read, the input of `o`: [B, N, H·E].
        """
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return attend(q, keys, values, mask, dropout).transpose(1, 2).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(q·kᵀ + bias)·v for q [B, H, N, E], k and v [B, H, M, E], bias broadcastable to [B, H, N, M]."""
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=1.0)


def attend_in_slices(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """`attend` with the bias `positions` [1, H, N, N] + `mask` [B, 1, 1, N], a few rows at a time; without gradients.

    The sum for 32 prompts of 512 tokens and 4 heads has 134 MB, that of a slice a few.
    """
    num_rows = min(len(q), max(1, ELEMENTS_AT_ONCE // positions.numel()))
    bias = positions.new_empty(num_rows, *positions.shape[1:])  # memory that is used again is much quicker
    attended = torch.empty_like(q)
    for first in range(0, len(q), num_rows):
        rows = slice(first, first + num_rows)
        number = len(q[rows])
        torch.add(positions, mask[rows], out=bias[:number])
        attended[rows] = attend(q[rows], k[rows], v[rows], bias[:number])
    return attended


def padding_mask(is_token: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive mask [B, 1, 1, M] that gives padding exactly zero weight after the softmax; is_token: [B, M]."""
    mask = torch.zeros(is_token.shape, dtype=dtype, device=is_token.device)
    return mask.masked_fill_(~is_token, torch.finfo(dtype).min)[:, None, None, :]


class RelativePositions(nn.Module):
    """T5's bias by bucketed distance; a stack's first block holds the table for all of its layers."""

    def __init__(self, config: BackboneConfig, *, is_bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.relative_attention_num_buckets, config.num_heads))
        self.max_distance = config.relative_attention_max_distance
        self.is_bidirectional = is_bidirectional

    def forward(self, length: int) -> Tensor:
        """Bias of every pair of query and key positions: [1, H, length, length]."""
        positions = torch.arange(length, device=self.table.device)
        distances = torch.arange(1 - length, length, device=self.table.device)
        buckets = relative_buckets(
            distances,
            num_buckets=self.table.shape[0],
            max_distance=self.max_distance,
            is_bidirectional=self.is_bidirectional,
        )
        offsets = positions[None, :] - positions[:, None] + (length - 1)
        return functional.embedding(buckets, self.table).t()[:, offsets].unsqueeze(0)


def relative_buckets(distances: Tensor, *, num_buckets: int, max_distance: int, is_bidirectional: bool) -> Tensor:
    """Bucket of each distance (key minus query position): exact for small ones, logarithmic up to max_distance."""
    first = torch.zeros_like(distances)
    if is_bidirectional:
        num_buckets //= 2
        first = (distances > 0).long() * num_buckets
        distances = distances.abs()
    else:
        distances = (-distances).clamp(min=0)
    num_exact = num_buckets // 2
    ratio = distances.clamp(min=1).float() / num_exact
    growth = torch.log(ratio) / math.log(max_distance / num_exact) * (num_buckets - num_exact)
    distant = (num_exact + growth.long()).clamp(max=num_buckets - 1)
    return first + torch.where(distances < num_exact, distances, distant)
