"""Eligibility of a whole batch on the device: how many returnable leaves lie in an interval."""

# B rows, Q intervals asked for, E longest list of a row

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.eligibility import Eligibility, LeafMask

_BEYOND = np.iinfo(np.int32).max


@dataclass(frozen=True)
class BatchEligibility:
    """Counts eligible leaves by two prefix sums and two binary searches.

    A row either counts its base set minus a list of leaves, or a list alone; `base_weight` and `list_sign` say which.
    """

    cumulative: Tensor  # the base sets' prefix sums, one after the other, int32
    base_offset: Tensor  # [B, 1], where a row's prefix sum starts
    base_weight: Tensor  # [B, 1], 1 or 0
    listed: Tensor  # [B, E], sorted leaves, padded beyond the last
    list_sign: Tensor  # [B, 1], -1 or 1

    @classmethod
    def of(cls, rows: Sequence[Eligibility], device: torch.device | None = None) -> BatchEligibility:
        cumulative, offsets = _stack([row.base for row in rows])
        lists = [row.excluded if row.included is None else row.included for row in rows]
        listed = np.full((len(rows), max(map(len, lists))), _BEYOND, dtype=np.int32)
        for line, leaves in zip(listed, lists, strict=True):
            line[: len(leaves)] = leaves
        is_list_only = np.array([[row.included is not None] for row in rows])
        return cls(
            cumulative=torch.from_numpy(cumulative).to(device),
            base_offset=torch.tensor(offsets, device=device).unsqueeze(1),
            base_weight=torch.from_numpy(np.where(is_list_only, 0, 1).astype(np.int32)).to(device),
            listed=torch.from_numpy(listed).to(device),
            list_sign=torch.from_numpy(np.where(is_list_only, 1, -1).astype(np.int32)).to(device),
        )

    def count(self, low: Tensor, high: Tensor) -> Tensor:
        """Eligible leaves in each interval [low, high), both [B, Q] int32: [B, Q]."""
        in_base = self.cumulative[self.base_offset + high] - self.cumulative[self.base_offset + low]
        if self.listed.shape[1] == 0:
            return in_base * self.base_weight
        position = torch.searchsorted(self.listed, torch.cat([low, high], dim=1), out_int32=True)
        below, upto = position.chunk(2, dim=1)
        return in_base * self.base_weight + (upto - below) * self.list_sign


def _stack(bases: Sequence[LeafMask]) -> tuple[NDArray[np.int32], list[int]]:
    """Distinct prefix sums one after the other, and where each row's starts."""
    starts: dict[int, int] = {}
    parts: list[NDArray[np.int32]] = []
    size = 0
    for base in bases:
        if id(base) not in starts:
            starts[id(base)] = size
            parts.append(base.cumulative)
            size += len(base.cumulative)
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return joined, [starts[id(base)] for base in bases]
