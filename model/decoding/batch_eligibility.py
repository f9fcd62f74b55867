"""Eligibility of a batch on the device: the number of eligible leaves in an interval."""

# B rows, Q queried intervals, E length of the longest list of a row

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.eligibility import Eligibility, LeafMask

_PADDING = np.iinfo(np.int32).max  # sorts after every leaf


@dataclass(frozen=True)
class BatchEligibility:
    """Counts eligible leaves with two prefix sums and two binary searches.

    A row counts either its base set minus a list of leaves, or only the list; `base_weight` and `list_sign` select.
    """

    cumulative: Tensor  # int32, the concatenated prefix sums of the base sets
    base_offset: Tensor  # [B, 1], start of each row's prefix sum
    base_weight: Tensor  # [B, 1], 1 to count the base set, otherwise 0
    listed: Tensor  # [B, E], sorted leaves, padded at the end
    list_sign: Tensor  # [B, 1], -1 for excluded leaves, 1 for included ones

    @classmethod
    def of(cls, rows: Sequence[Eligibility], device: torch.device | None = None) -> BatchEligibility:
        cumulative, offsets = _stack([row.base for row in rows])
        lists = [row.excluded if row.included is None else row.included for row in rows]
        listed = np.full((len(rows), max(map(len, lists))), _PADDING, dtype=np.int32)
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

    def count(self, intervals: Tensor) -> Tensor:
        """Eligible leaves in intervals [low, high), given as int32 [B, Q, 2]: [B, Q]."""
        sums = self.cumulative[self.base_offset.unsqueeze(-1) + intervals]
        in_base = (sums[..., 1] - sums[..., 0]) * self.base_weight
        if self.listed.shape[1] == 0:
            return in_base
        places = torch.searchsorted(self.listed, intervals.flatten(1), out_int32=True).view_as(intervals)
        return torch.addcmul(in_base, places[..., 1] - places[..., 0], self.list_sign)


def _stack(bases: Sequence[LeafMask]) -> tuple[NDArray[np.int32], list[int]]:
    """The distinct prefix sums, concatenated, and the start of each row's."""
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
