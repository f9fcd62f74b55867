"""Encoder and decoder: pre-norm T5 blocks with an adapter inside each residual branch."""

# B rows, S source length, T target length, N positions or beams, L layers, H heads, E head width, D width

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.attention import (
    ELEMENTS_AT_ONCE,
    CrossAttention,
    RelativePositions,
    SelfAttention,
    attend,
    attend_in_slices,
)
from model.network.banks import AdapterBank, RMSNormBank, RowIndex
from model.network.beam_tree import BeamTree
from model.network.cache import StepCache
from model.network.config import BackboneConfig
from model.network.dropout import dropout
from model.network.projection import Projection, linear_relu


@dataclass(frozen=True)
class BankSizes:
    """Numbers of domains and adapters in the banks, and the width of the widest adapter."""

    num_domains: int
    num_adapters: int
    bottleneck: int
    has_cross_adapter: bool


@dataclass(frozen=True)
class Memory:
    """What the decoder reads from the encoder: keys and values of each layer [B, H, S, E], and the padding mask."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None  # [B, 1, 1, S], None if no row is padded


class Branch(nn.Module):
    """The domain's parts around a sub-layer: the norm before it and the adapter after it."""

    def __init__(self, config: BackboneConfig, sizes: BankSizes, *, has_adapter: bool) -> None:
        super().__init__()
        self.norm = RMSNormBank(sizes.num_domains, config.d_model, config.layer_norm_epsilon)
        self.adapter = AdapterBank(sizes.num_adapters, config.d_model, sizes.bottleneck) if has_adapter else None
        self.dropout = config.dropout_rate

    def before(self, x: Tensor, rows: RowIndex) -> Tensor:
        normed: Tensor = self.norm(x, rows.domain)
        return normed

    def after(self, x: Tensor, hidden: Tensor, projection: Projection, rows: RowIndex) -> Tensor:
        """The residual x and the adapted output of the sub-layer, whose last step is `projection` of `hidden`."""
        shared = None if self.adapter is None else self.adapter.shared_entry(rows.adapter)
        if shared is not None:
            return shared.add_to(x, projection(hidden, shared.up_bias))
        output = projection(hidden)
        adapted = output if self.adapter is None else self.adapter(output, rows.adapter)
        return x + dropout(adapted, self.dropout, is_training=self.training)


class FeedForward(nn.Module):
    """relu(x·wi)·wo, or gelu_new(x·wi_0)·(x·wi_1)·wo with wi_0 and wi_1 in one matrix."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.is_gated = config.feed_forward_proj == "gated-gelu"
        self.wi = Projection.empty(config.d_ff * (2 if self.is_gated else 1), config.d_model)
        self.wo = Projection.empty(config.d_model, config.d_ff)
        self.dropout = config.dropout_rate
        self.zeros: Tensor | None = None  # [d_ff], made by PackedNetwork

    def hidden(self, x: Tensor) -> Tensor:
        """The input of `wo`."""
        if self.is_gated:
            gate, linear = self.wi(x).chunk(2, dim=-1)
            hidden = functional.gelu(gate, approximate="tanh") * linear
        else:
            hidden = linear_relu(x, self.wi, self.zeros)
        return dropout(hidden, self.dropout, is_training=self.training)


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: BackboneConfig, sizes: BankSizes) -> None:
        super().__init__()
        has_adapter = sizes.bottleneck > 0
        self.attention = SelfAttention(config)
        self.attention_branch = Branch(config, sizes, has_adapter=has_adapter)
        self.feed_forward = FeedForward(config)
        self.feed_forward_branch = Branch(config, sizes, has_adapter=has_adapter)
        self.dropout = config.dropout_rate

    def forward(self, x: Tensor, bias: Tensor, rows: RowIndex, mask: Tensor | None = None) -> Tensor:
        """X [B, S, D], bias broadcastable to [B, H, S, S]; a mask [B, 1, 1, S] is still to be added to it."""
        attended = self._attend(self.attention_branch.before(x, rows), bias, mask)
        x = self.attention_branch.after(x, attended, self.attention.o, rows)
        return _feed(x, self.feed_forward, self.feed_forward_branch, rows)

    def _attend(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in self.attention.project(x))
        if mask is None:
            attended = attend(q, k, v, bias, self.dropout if self.training else 0.0)
        else:
            attended = attend_in_slices(q, k, v, bias, mask)
        return attended.transpose(1, 2).flatten(-2)


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward."""

    def __init__(self, config: BackboneConfig, sizes: BankSizes) -> None:
        super().__init__()
        has_adapter = sizes.bottleneck > 0
        self.attention = SelfAttention(config)
        self.attention_branch = Branch(config, sizes, has_adapter=has_adapter)
        self.cross = CrossAttention(config)
        self.cross_branch = Branch(config, sizes, has_adapter=has_adapter and sizes.has_cross_adapter)
        self.feed_forward = FeedForward(config)
        self.feed_forward_branch = Branch(config, sizes, has_adapter=has_adapter)
        self.dropout = config.dropout_rate

    def forward(self, x: Tensor, bias: Tensor, memory: Memory, layer: int, rows: RowIndex) -> Tensor:
        """A whole target at once: x [B, T, D], bias [1, H, T, T] with the future masked."""
        q, k, v = (part.transpose(1, 2) for part in self.attention.project(self.attention_branch.before(x, rows)))
        attended = attend(q, k, v, bias, self.dropout if self.training else 0.0).transpose(1, 2)
        x = self.attention_branch.after(x, attended.flatten(-2), self.attention.o, rows)
        return self.read_and_feed(x, memory, layer, rows)

    def step(self, x: Tensor, bias: Tensor, cache: StepCache, memory: Memory, layer: int, rows: RowIndex) -> Tensor:
        """One new token per beam: x [B, K, D], bias [1 or B, H, 1, t + 1] of the token at position t."""
        q, k, v = self.attention.project(self.attention_branch.before(x, rows))  # [B, K, H, E]
        keys, values = cache.append(layer, k, v)  # [B·K, H, t + 1, E]
        attended = attend(q.flatten(0, 1).unsqueeze(2), keys, values, bias)  # [B·K, H, 1, E]
        x = self.attention_branch.after(x, attended.squeeze(2).view_as(q).flatten(-2), self.attention.o, rows)
        return self.read_and_feed(x, memory, layer, rows)

    def grow(self, x: Tensor, tree: BeamTree, memory: Memory, layer: int, rows: RowIndex) -> Tensor:
        """Like `step`, over a tree that has all beams of a row side by side."""
        q, pairs = self.attention.project_pairs(self.attention_branch.before(x, rows))
        keys, values = tree.append(layer, pairs)
        attended = attend(q.transpose(1, 2), keys, values, tree.bias).transpose(1, 2)  # [B, K, H, E]
        x = self.attention_branch.after(x, attended.flatten(-2), self.attention.o, rows)
        return self.read_and_feed(x, memory, layer, rows)

    def read_and_feed(self, x: Tensor, memory: Memory, layer: int, rows: RowIndex) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        normed = self.cross_branch.before(x, rows)
        read = self.cross(normed, memory.keys[layer], memory.values[layer], memory.mask, dropout)
        x = self.cross_branch.after(x, read, self.cross.o, rows)
        return _feed(x, self.feed_forward, self.feed_forward_branch, rows)


def _feed(x: Tensor, feed_forward: FeedForward, branch: Branch, rows: RowIndex) -> Tensor:
    return branch.after(x, feed_forward.hidden(branch.before(x, rows)), feed_forward.wo, rows)


class Encoder(nn.Module):
    """A stack of encoder blocks over embedded input."""

    def __init__(self, config: BackboneConfig, sizes: BankSizes) -> None:
        super().__init__()
        self.positions = RelativePositions(config, is_bidirectional=True)
        self.blocks = nn.ModuleList(EncoderBlock(config, sizes) for _ in range(config.num_layers))
        self.final_norm = RMSNormBank(sizes.num_domains, config.d_model, config.layer_norm_epsilon)
        self.dropout = config.dropout_rate

    @property
    def layers(self) -> Iterable[EncoderBlock]:
        return cast("Iterable[EncoderBlock]", self.blocks)

    def forward(self, x: Tensor, mask: Tensor | None, rows: RowIndex, positions: Tensor | None = None) -> Tensor:
        """X [B, S, D], mask [B, 1, 1, S] or None → encoder states [B, S, D].

        `positions` is the bias for S positions, [1, H, S, S], if it is known already.
        """
        bias = (self.positions(x.shape[1]) if positions is None else positions).to(x.dtype)
        if mask is not None and not _is_sliced(x, bias):
            bias, mask = bias + mask, None
        x = dropout(x, self.dropout, is_training=self.training)
        for block in self.layers:
            x = block(x, bias, rows, mask)
        return dropout(self.final_norm(x, rows.domain), self.dropout, is_training=self.training)


def _is_sliced(x: Tensor, bias: Tensor) -> bool:
    """Whether attention adds the mask in slices: on a processor, for sums of more memory than its caches."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and len(x) * bias.numel() > ELEMENTS_AT_ONCE


class Decoder(nn.Module):
    """A stack of decoder blocks over embedded target tokens."""

    def __init__(self, config: BackboneConfig, sizes: BankSizes) -> None:
        super().__init__()
        self.positions = RelativePositions(config, is_bidirectional=False)
        self.blocks = nn.ModuleList(DecoderBlock(config, sizes) for _ in range(config.num_decoder_layers))
        self.final_norm = RMSNormBank(sizes.num_domains, config.d_model, config.layer_norm_epsilon)
        self.dropout = config.dropout_rate

    @property
    def layers(self) -> Iterable[DecoderBlock]:
        return cast("Iterable[DecoderBlock]", self.blocks)

    def memorise(self, states: Tensor, mask: Tensor | None) -> Memory:
        """Keys and values of encoder states [B, S, D], computed once for all steps and beams."""
        pairs = [block.cross.memorise(states) for block in self.layers]
        return Memory(keys=tuple(k for k, _ in pairs), values=tuple(v for _, v in pairs), mask=mask)

    def forward(self, x: Tensor, memory: Memory, rows: RowIndex) -> Tensor:
        """Teacher forcing: x [B, T, D] → states [B, T, D]."""
        length = x.shape[1]
        future = torch.full((length, length), torch.finfo(x.dtype).min, dtype=x.dtype, device=x.device).triu(1)
        bias = self.positions(length).to(x.dtype) + future
        x = dropout(x, self.dropout, is_training=self.training)
        for layer, block in enumerate(self.layers):
            x = block(x, bias, memory, layer, rows)
        return dropout(self.final_norm(x, rows.domain), self.dropout, is_training=self.training)

    def step(self, x: Tensor, bias: Tensor, cache: StepCache, memory: Memory, rows: RowIndex) -> Tensor:
        """The next token of every beam, x [B, K, D], bias [1 or B, H, 1, t + 1] → states [B, K, D]."""
        for layer, block in enumerate(self.layers):
            x = block.step(x, bias, cache, memory, layer, rows)
        cache.advance()
        states: Tensor = self.final_norm(x, rows.domain)
        return states

    def grow(self, x: Tensor, tree: BeamTree, memory: Memory, rows: RowIndex) -> Tensor:
        """The next token of every beam of a tree, x [B, K, D] → states [B, K, D]."""
        for layer, block in enumerate(self.layers):
            x = block.grow(x, tree, memory, layer, rows)
        states: Tensor = self.final_norm(x, rows.domain)
        return states
