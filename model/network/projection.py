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
    """x·Wᵀ without bias, W: [out, in]."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self._packed: Tensor | None = None

    @classmethod
    def empty(cls, num_outputs: int, num_inputs: int) -> Projection:
        """A projection with an uninitialised weight."""
        return cls(nn.Parameter(torch.empty(num_outputs, num_inputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x [..., in] to [..., out]."""
        if self._packed is None:
            return functional.linear(x, self.weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # an operator has no public name
            x, self._packed, None, "none", [], ""
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


def pack_projections(network: nn.Module) -> None:
    """Pack the large projections of a frozen float32 network on a CPU, if torch supports it."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for module in network.modules():
        if not isinstance(module, Projection) or module.weight.dtype != torch.float32:
            continue
        if module.weight.numel() >= _SMALLEST_PACKED:
            module.pack()
