"""Popularity: how often events named an item, where an event counts half as much after each half-life.

A count at time t is the sum over events of 2 ** ((t_event - t) / half_life). Its base-2 logarithm less the part that
depends on t alone never overflows and needs no updates as time passes: this *weight* is what is kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_ITEMS = 1_000
"""Most items of a domain whose popularity is kept in order; up to twice as many are counted."""


def combined(weight: float, other: float) -> float:
    """The weight of two sets of events together."""
    high, low = (weight, other) if weight > other else (other, weight)
    return high + math.log2(1.0 + 2.0 ** (low - high))


def weight_of(at_ms: int, half_life_ms: int) -> float:
    """The weight of one event."""
    return at_ms / half_life_ms


def count_at(weight: float, now_ms: int, half_life_ms: int) -> float:
    """The decayed count at a time; infinitely small or large ones are cut at 2 ** ±1000."""
    return float(2.0 ** max(-1000.0, min(1000.0, weight - now_ms / half_life_ms)))


@dataclass
class Popularity:
    """Weights of one domain's items. Mutable."""

    half_life_ms: int
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, item_id: str, at_ms: int) -> None:
        weight = weight_of(at_ms, self.half_life_ms)
        known = self.weights.get(item_id)
        self.weights[item_id] = weight if known is None else combined(known, weight)
        if len(self.weights) > 2 * MAX_ITEMS:
            self.weights = dict(heapq.nlargest(MAX_ITEMS, self.weights.items(), key=lambda each: each[1]))


def merged(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The weights of all parts together."""
    weights: dict[str, float] = {}
    for part in parts:
        for item_id, weight in part.items():
            known = weights.get(item_id)
            weights[item_id] = weight if known is None else combined(known, weight)
    return weights
