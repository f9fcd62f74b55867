"""Every position of a history is a target of one pass, for training.

The prompt of a position is the items up to it and `</s>`. An encoder that reads only what precedes a token gives an
item the same state in all of these prompts, so that they share the items, and only their `</s>` are apart. T5 has no
such mask; its bias by distance can stand for one: at `UNREACHABLE` for what follows a token, any T5 reads causally,
also where it serves.
"""

# B rows, N items of a history, P tokens of an item, S = N·P + N tokens, T target length, D width, V vocabulary, H heads

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from model.network.attention import attend, relative_buckets
from model.network.banks import RowIndex
from model.network.dropout import dropout
from model.network.network import START_ID, EncoderBatch, Vip5Network
from model.network.stacks import Decoder, Memory

UNREACHABLE = -10_000.0
"""Bias of what follows a token: exp of it is 0 in all precisions that serve."""


@dataclass(frozen=True)
class ItemTokens:
    """How many tokens an item of a history has, `separator` of them after its own; the last item's are not read."""

    total: int  # P
    separator: int = 0


def make_causal(network: Vip5Network) -> None:
    """Make the encoder read only what precedes a token."""
    with torch.no_grad():
        table = network.encoder.positions.table
        table[len(table) // 2 :] = UNREACHABLE


def is_causal(network: Vip5Network) -> bool:
    """Whether the encoder reads only what precedes a token."""
    table = network.encoder.positions.table
    return bool((table[len(table) // 2 :] <= UNREACHABLE / 2).all())


def forward_in_one_pass(
    network: Vip5Network, batch: EncoderBatch, targets: Tensor, item: ItemTokens, first: int = 0
) -> Tensor:
    """Decoder states [B, N - first, T, D] that predict targets [B, N, T], the identifiers that follow each item.

    Those of the `first` positions are not asked for. `batch` has N·P tokens of items, then N times `</s>`. Padding
    follows a row's items and is read by none of them; the states after padding mean nothing.
    """
    num_items, length = targets.shape[1:]
    assert batch.input_ids.shape[1] == num_items * (item.total + 1)
    states = network.encoder(network.embed(batch), None, batch.rows, _encoder_bias(network, num_items, item))
    mask = _decoder_mask(num_items, length, item, states.device).to(states.dtype)
    memory = network.decoder.memorise(states, mask[:, :, first * length :])
    inputs = functional.pad(targets[:, first:, :-1], (1, 0), value=START_ID)
    x = functional.embedding(inputs, network.shared)
    return _decode(network.decoder, x, memory, batch.rows)


def _decode(decoder: Decoder, x: Tensor, memory: Memory, rows: RowIndex) -> Tensor:
    """Targets of all positions side by side, x [B, N, T, D]: each reads itself and its own prompt."""
    num_rows, num_items, length, width = x.shape
    future = torch.full((length, length), torch.finfo(x.dtype).min, dtype=x.dtype, device=x.device).triu(1)
    bias = decoder.positions(length).to(x.dtype) + future
    x = dropout(x, decoder.dropout, is_training=decoder.training).view(num_rows, num_items * length, width)
    for layer, block in enumerate(decoder.layers):
        normed = block.attention_branch.before(x, rows)
        q, k, v = (
            part.reshape(-1, length, *part.shape[2:]).transpose(1, 2) for part in block.attention.project(normed)
        )
        attended = attend(q, k, v, bias, decoder.dropout if decoder.training else 0.0).transpose(1, 2)
        x = block.attention_branch.after(x, attended.reshape(num_rows, num_items * length, -1), block.attention.o, rows)
        x = block.read_and_feed(x, memory, layer, rows)
    x = dropout(decoder.final_norm(x, rows.domain), decoder.dropout, is_training=decoder.training)
    return x.view(num_rows, num_items, length, width)


def _encoder_bias(network: Vip5Network, num_items: int, item: ItemTokens) -> Tensor:
    """The bias of every pair of tokens, [1, H, S, S]."""
    positions = network.encoder.positions
    buckets, mask = _encoder_pairs(num_items, item, len(positions.table), positions.max_distance)
    device = positions.table.device
    return functional.embedding(buckets.to(device), positions.table).movedim(-1, 0).unsqueeze(0) + mask.to(device)


@lru_cache(maxsize=256)
def _encoder_pairs(num_items: int, item: ItemTokens, num_buckets: int, max_distance: int) -> tuple[Tensor, Tensor]:
    """Buckets of distances in a prompt, and the additive mask of what a token does not read: [S, S] each."""
    places, is_end = _places(num_items, item)
    distances = (places[None, :] - places[:, None]).clamp(max=0)
    buckets = relative_buckets(distances, num_buckets=num_buckets, max_distance=max_distance, is_bidirectional=True)
    is_self = torch.eye(len(places), dtype=torch.bool)
    is_read = is_self | (~is_end[None, :] & (places[None, :] < places[:, None]))
    return buckets, torch.zeros(is_read.shape).masked_fill_(~is_read, UNREACHABLE)


@lru_cache(maxsize=256)
def _decoder_mask(num_items: int, length: int, item: ItemTokens, device: torch.device) -> Tensor:
    """Additive mask [1, 1, N·T, S]: a target reads the items up to its position, and their `</s>`."""
    places, is_end = _places(num_items, item)
    ends = places[is_end]
    is_read = torch.where(is_end[None, :], places[None, :] == ends[:, None], places[None, :] < ends[:, None])
    mask = torch.zeros(is_read.shape).masked_fill_(~is_read, UNREACHABLE)
    return mask.repeat_interleave(length, dim=0)[None, None].to(device)


def _places(num_items: int, item: ItemTokens) -> tuple[Tensor, Tensor]:
    """The place of each token in its prompt, and whether it is a `</s>`: [S] each."""
    ends = (torch.arange(num_items) + 1) * item.total - item.separator
    places = torch.cat([torch.arange(num_items * item.total), ends])
    return places, torch.arange(len(places)) >= num_items * item.total
