"""Matrix products with frozen weights, which on a CPU may be laid out anew for the processor.

The plain product of a few rows with a large weight reads the weight in an order that suits neither the caches nor the
vector units; oneDNN's packed layout does (figures in benchmarks/RESULTS.md). The packed product is an operator that
torch's own compiler emits; where a build of torch does not have it, the plain product is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS_HINT = 64
"""Number of rows that weights are packed for; measured to be good from 1 row to 8,000."""

_SMALLEST_PACKED = 2**17
"""Number of elements below which the plain product is as good or better."""


class Projection(nn.Module):
    """x·Wᵀ without bias, W: [out, in]."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self._packed: Tensor | None = None

    @classmethod
    def empty(cls, num_outputs: int, num_inputs: int) -> Projection:
        """A projection whose weight is yet to be filled."""
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
        """Multiply x [..., in] to float32 [..., out], which a narrower weight's own precision does not round."""
        if self.weight.dtype == torch.float32:
            product: Tensor = self(x)
            return product.float()  # where torch casts by itself, it is not yet
        if not x.is_cuda:
            plain: Tensor = functional.linear(x.float(), self.weight.float())
            return plain
        rows = torch.mm(x.flatten(0, -2), self.weight.t(), out_dtype=torch.float32)
        wide: Tensor = rows.unflatten(0, x.shape[:-1])
        return wide

    def pack(self) -> None:
        """Lay the weight out for this processor; it must not change any more."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001  # likewise
            self.weight.detach(), _ROWS_HINT
        )


def pack_projections(network: nn.Module) -> None:
    """Pack the large projections of a frozen float32 network on a CPU, where torch can; the others stay as they are."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return
    for module in network.modules():
        if not isinstance(module, Projection) or module.weight.dtype != torch.float32:
            continue
        if module.weight.numel() >= _SMALLEST_PACKED:
            module.pack()
