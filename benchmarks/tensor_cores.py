"""Emulates tensor cores: while torch allows it, float32 products round their factors to 10 bits of mantissa."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_FACTORS = {  # places of the factors among each product's arguments
    "aten::mm": (0, 1),
    "aten::bmm": (0, 1),
    "aten::linear": (0, 1),
    "aten::addmm": (1, 2),
    "aten::addmm_": (1, 2),
    "aten::baddbmm": (1, 2),
    "aten::baddbmm_": (1, 2),
    "aten::_addmm_activation": (1, 2),
}
_DROPPED_BITS = 13


class TensorCores(TorchDispatchMode):
    """Rounds to the nearest as NVIDIA's tensor cores do, when the precision of float32 products is not `highest`.

    Products with packed weights (Projection.pack) are not seen; attention is not narrowed on a GPU either.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no annotation for it
        self.num_narrowed = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        places = _FACTORS.get(func.name().split(".")[0], ())
        if places and torch.get_float32_matmul_precision() != "highest":
            self.num_narrowed += 1
            args = tuple(_narrowed(each) if place in places else each for place, each in enumerate(args))
        return func(*args, **(kwargs or {}))


def _narrowed(factor: object) -> object:
    if not isinstance(factor, Tensor) or factor.dtype != torch.float32:
        return factor
    bits = factor.contiguous().view(torch.int32)
    half = (1 << (_DROPPED_BITS - 1)) - 1 + ((bits >> _DROPPED_BITS) & 1)
    return ((bits + half) & -(1 << _DROPPED_BITS)).view(torch.float32)
