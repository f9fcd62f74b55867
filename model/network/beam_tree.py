"""Keys and values of a beam search's tokens as a tree: they stay where they were written when beams branch.

All beams of a row read one set of keys; a bias says which of them lie on a beam's own path. Against moving the paths
(cache.py) that is fewer and larger operators, at the price of products with keys of other beams, which short targets
have few of. All shapes follow from the numbers of beams and steps.
"""

# L layers, B rows, K beams, n beams that run (1 in the first step), T steps, P places, H heads, E head width

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Number of keys whose multiples attention kernels take as they are."""


@dataclass(frozen=True)
class TreePlan:
    """What trees of a shape have in common. Place 0 is the start token's, then come K places for each step."""

    num_beams: int
    biases: Tensor  # [T, H, 1, P], position bias of each step's token against every place
    own_places: Tensor  # [T, K, P], bool, the place that each beam writes at a step

    @classmethod
    def of(cls, positions: Tensor, num_beams: int) -> TreePlan:
        """Positions: the decoder's bias [1, H, T, T] of as many positions as there are steps."""
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
    """The tokens of one batch; `branch` opens each step, then every layer appends to it."""

    def __init__(self, plan: TreePlan, data: Tensor) -> None:
        """Data: zeros [L, B, P, 2, H, E]; what is masked is multiplied by nought, which must not meet a NaN."""
        self._plan = plan
        self._data = data
        self._hidden = torch.full((), torch.finfo(data.dtype).min, dtype=data.dtype, device=data.device)
        self._paths: Tensor | None = None  # [B, n, P], places that lead to each beam
        self._step = -1
        self.bias: Tensor | None = None

    def branch(self, parents: Tensor | None) -> None:
        """Begin a step in which beam k of row b goes on from beam parents[b, k]; None at the first."""
        self._step += 1
        plan, own = self._plan, self._plan.own_places[self._step]
        if parents is None or self._paths is None:
            self._paths = own[:1].expand(self._data.shape[1], 1, -1)
        else:
            self._paths = self._paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, plan.num_places)) | own
        self._first = 1 + plan.num_beams * (self._step - 1) if self._step else 0
        self._end = self._first + self._paths.shape[1]
        width = _aligned(self._end)
        # [B, H, n, width], one for all layers
        self.bias = torch.where(self._paths[:, None, :, :width], plan.biases[self._step, :, :, :width], self._hidden)

    def append(self, layer: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, n, 2, H, E] of a step; returns those of all places so far, each [B, H, P', E]."""
        data = self._data[layer]
        data[:, self._first : self._end] = pairs
        keys, values = data[:, : _aligned(self._end)].unbind(2)
        return keys.transpose(1, 2), values.transpose(1, 2)


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
