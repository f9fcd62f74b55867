"""Precision of float32 matrix products, a setting of torch that applies to the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

ProductPrecision = Literal["highest", "high"]
"""`highest` is float32; `high` allows tensor cores, which keep 10 bits of the mantissa (tfloat32)."""

_in_use = threading.RLock()


@contextmanager
def float32_products(precision: ProductPrecision) -> Iterator[None]:
    """Start float32 products with this precision. Other threads that use this function wait meanwhile.

    A product keeps the precision that was set when it was started, or captured.
    """
    with _in_use:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
