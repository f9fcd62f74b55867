"""Matrix products with frozen weights, which can be packed for the processor on a CPU.

The plain product of a few rows with a large weight reads the weight in an order that is slow for caches and vector
units; oneDNN's packed layout is faster (figures in benchmarks/RESULTS.md). The packed product is an operator that
torch's compiler emits; a torch build without it falls back to the plain product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS_HINT = 64
"""Number of rows that weights are packed for; fast from 1 to 8,000 rows in measurements."""

_SMALLEST_PACKED = 2**17
"""Number of elements below which the plain product is as fast or faster."""


class Projection(nn.Module):
    """x·Wᵀ, W: [out, in]."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self._packed: Tensor | None = None

    @classmethod
    def empty(cls, num_outputs: int, num_inputs: int) -> Projection:
        """A projection with an uninitialised weight."""
        return cls(nn.Parameter(torch.empty(num_outputs, num_inputs)))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply x [..., in] to [..., out], and add a bias [out]."""
        if self._packed is None:
            return functional.linear(x, self.weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # an operator has no public name
            x, self._packed, bias, "none", [], ""
        )
        return product

    def in_float32(self, x: Tensor) -> Tensor:
        """Multiply x [..., in] to float32 [..., out] without rounding to a narrower weight's precision."""
        if self.weight.dtype == torch.float32:
            product: Tensor = self(x)
            return product.float()  # under autocast, it is not float32 yet
        if not x.is_cuda:
            plain: Tensor = functional.linear(x.float(), self.weight.float())
            return plain
        rows = torch.mm(x.flatten(0, -2), self.weight.t(), out_dtype=torch.float32)
        wide: Tensor = rows.unflatten(0, x.shape[:-1])
        return wide

    def pack(self) -> None:
        """Pack the weight for this processor; it must not change afterwards."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001  # likewise
            self.weight.detach(), _ROWS_HINT
        )


def linear_relu(x: Tensor, projection: Projection, zeros: Tensor | None) -> Tensor:
    """relu(x·Wᵀ); one operator on a GPU, given `zeros` [out], since it has none without a bias."""
    if zeros is None or x.device.type == "cpu":
        return functional.relu(projection(x))
    return _activated(x, projection.weight, zeros, is_gelu=False)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x·Wᵀ + bias) in the approximation by tanh, W: [out, in]; one operator on a GPU."""
    if x.device.type == "cpu":  # where the operator below computes the exact gelu
        return functional.gelu(functional.linear(x, weight, bias), approximate="tanh")
    return _activated(x, weight, bias, is_gelu=True)


def _activated(x: Tensor, weight: Tensor, bias: Tensor, *, is_gelu: bool) -> Tensor:
    rows: Tensor = torch._addmm_activation(  # noqa: SLF001  # the only name of the product with an activation
        bias, x.flatten(0, -2), weight.t(), use_gelu=is_gelu
    )
    activated: Tensor = rows.unflatten(0, x.shape[:-1])
    return activated


def pack_projections(network: nn.Module) -> None:
    """Pack the large projections of a frozen float32 network on a CPU, if torch supports it."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for module in network.modules():
        if not isinstance(module, Projection) or module.weight.dtype != torch.float32:
            continue
        if module.weight.numel() >= _SMALLEST_PACKED:
            module.pack()
