"""Dropout in training; on a CPU drawn by bytes, in half of the time of torch's own (benchmarks/RESULTS.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_VALUES = 256  # of a byte


def dropout(x: Tensor, share: float, *, is_training: bool) -> Tensor:
    """Zero a share of x, to the nearest 1/256 on a CPU, and scale the rest to the same mean."""
    if not is_training or share == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(x, share, training=True)
    num_dropped = min(max(1, round(share * _VALUES)), _VALUES - 1)
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    is_kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= num_dropped
    return x * (is_kept * (_VALUES / (_VALUES - num_dropped))).to(x.dtype)
