"""Sums of floats without rounding, so that totals do not depend on the order in which workers end.

A total that came out one rounding lower than before would look like a restarted counter to Prometheus.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def rounded(values: Iterable[float]) -> float:
    """The float nearest to the exact sum; infinity if that is too large, NaN if the sum is undefined."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf
    except ValueError:  # inf - inf
        return math.nan


def exact(values: Iterable[float]) -> list[float]:
    """Few floats with exactly the same sum, largest first; none if it is 0."""
    left, parts = list(values), []
    while part := rounded(left):
        parts.append(part)
        if not math.isfinite(part):
            break
        left.append(-part)
    return parts
