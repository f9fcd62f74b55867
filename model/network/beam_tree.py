"""Keys and values of a beam search as a tree, in which tokens are not moved when beams branch.

All beams of a row read the same keys, and a bias masks those that are not on a beam's own path. Compared with moving
the paths (cache.py), this takes fewer and larger operators, but also computes products with the keys of other beams, of
which there are few for short targets. All shapes depend only on the numbers of beams and steps.
"""

# L layers, B rows, K beams, n beams that run (1 in the first step), T steps, P places, H heads, E head width

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Attention kernels need no padding for a number of keys that is a multiple of this."""


@dataclass(frozen=True)
class TreePlan:
    """What all trees of a shape share. Place 0 is for the start token, followed by K places per step."""

    num_beams: int
    biases: Tensor  # [T, H, 1, P], position bias between each step's token and every place
    own_places: Tensor  # [T, K, P], bool, the place that each beam writes at a step

    @classmethod
    def of(cls, positions: Tensor, num_beams: int) -> TreePlan:
        """Positions: the decoder's bias for all steps, [1, H, T, T]."""
        num_steps, device = positions.shape[-1], positions.device
        num_places = _aligned(1 + num_beams * (num_steps - 1))
        places = torch.arange(num_places, device=device)
        times = ((places + num_beams - 1) // num_beams).clamp(max=num_steps - 1)
        steps = torch.arange(num_steps, device=device)
        first = (1 + num_beams * (steps - 1)).clamp(min=0)
        beams = torch.arange(num_beams, device=device)
        return cls(
            num_beams=num_beams,
            biases=positions[0][:, :, times].transpose(0, 1).unsqueeze(2).contiguous(),
            own_places=(first[:, None, None] + beams[:, None]) == places,
        )

    @property
    def num_places(self) -> int:
        return self.biases.shape[-1]


class BeamTree:
    """The tokens of one batch; `branch` starts each step, then every layer appends to it."""

    def __init__(self, plan: TreePlan, data: Tensor) -> None:
        """Data: zeros [L, B, P, 2, H, E]; masked values are multiplied by zero, so they must not be NaN."""
        self._plan = plan
        self._data = data
        self._hidden = torch.full((), torch.finfo(data.dtype).min, dtype=data.dtype, device=data.device)
        self._paths: Tensor | None = None  # [B, n, P], places on each beam's path
        self._step = -1
        self.bias: Tensor | None = None

    def branch(self, parents: Tensor | None) -> None:
        """Start a step in which beam k of row b continues beam parents[b, k]; None in the first step."""
        self._step += 1
        plan, own = self._plan, self._plan.own_places[self._step]
        if parents is None or self._paths is None:
            self._paths = own[:1].expand(self._data.shape[1], 1, -1)
        else:
            self._paths = self._paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, plan.num_places)) | own
        self._first = 1 + plan.num_beams * (self._step - 1) if self._step else 0
        self._end = self._first + self._paths.shape[1]
        width = _aligned(self._end)
        # [B, H, n, width], the same for all layers
        self.bias = torch.where(self._paths[:, None, :, :width], plan.biases[self._step, :, :, :width], self._hidden)

    def append(self, layer: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Write a step's keys and values [B, n, 2, H, E]; returns those of all places so far, each [B, H, P', E]."""
        data = self._data[layer]
        data[:, self._first : self._end] = pairs
        keys, values = data[:, : _aligned(self._end)].unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
