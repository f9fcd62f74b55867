"""SASRec without work on empty places: batches of histories of like length, and a loss of targets only."""

# N items and the padding item; B sequences of a batch, S their places, D width

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn import functional as F

_BATCHES_IN_A_POOL = 20

Batch = dict[str, torch.Tensor]


class BatchesByLength:
    """Rows of batches, drawn anew in each epoch: pools are drawn from all rows, and sorted by length within."""

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches: list[list[int]] = []
        for pool in torch.randperm(len(self._lengths)).split(_BATCHES_IN_A_POOL * self._batch_size):
            by_length = pool[self._lengths[pool].argsort()]
            batches += [rows.tolist() for rows in by_length.split(self._batch_size)]
        return iter([batches[place] for place in torch.randperm(len(batches)).tolist()])


def without_padding(batch: Batch) -> Batch:
    """Leave out the first places of `x`, `y` and `yw` [B, S], as far as they are padding (0) in all sequences."""
    longest = int((batch["y"] != 0).sum(1).max())
    return {name: values[:, -longest:] for name, values in batch.items()}


def loss_of_targets(encoded: torch.Tensor, items: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of a softmax over all items [N, D], over the places [B, S, D] that have a target, not 0."""
    has_target = targets != 0
    return F.cross_entropy(encoded[has_target] @ items.T, targets[has_target])
