"""What happened in the last minutes, as differences between samples of the process's own metrics."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from service.observability.metrics import Metrics
from service.observability.metrics.metrics import Samples

SAMPLE_S = 10.0
WINDOW_S = 300.0

Labels = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Window:
    """The metrics now, and what the counters gained since its start."""

    duration_s: float
    now: Samples
    start: Samples

    def gained(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Labels and increase of each series of a counter."""
        for (each, labels), value in self.now.items():
            if each == name:
                yield dict(labels), value - self.start.get((each, labels), 0.0)

    def gain(self, name: str, **labels: str) -> float:
        """The increase of all series with these labels."""
        return sum(value for found, value in self.gained(name) if labels.items() <= found.items())

    def totals(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Labels and present value of each series."""
        for (each, labels), value in self.now.items():
            if each == name:
                yield dict(labels), value

    def value(self, name: str) -> float:
        """The present sum of a gauge's or counter's series."""
        return sum(value for _, value in self.totals(name))

    def quantile_s(self, name: str, share: float, **labels: str) -> float | None:
        """A quantile of a histogram, interpolated inside its bucket; None without observations.

        One beyond the last bound is this bound.
        """
        counts: dict[float, float] = {}
        for found, value in self.gained(f"{name}_bucket"):
            if labels.items() <= found.items():
                bound = float(found["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        bounds = sorted(counts)
        if not bounds or not counts[bounds[-1]]:
            return None
        rank = share * counts[bounds[-1]]
        lower = below = 0.0
        for bound in bounds[:-1]:
            if counts[bound] >= rank:
                return lower + (bound - lower) * (rank - below) / (counts[bound] - below)
            lower, below = bound, counts[bound]
        return lower


class Recent:
    """Samples of the metrics, the newest last."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._samples: deque[tuple[float, Samples]] = deque([(clock(), metrics.samples())])

    async def watch(self) -> None:
        """Take a sample now and then."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.take()

    def take(self) -> None:
        now = self._clock()
        self._samples.append((now, self._metrics.samples()))
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW_S:
            self._samples.popleft()

    def window(self) -> Window:
        """The time since the oldest sample: some five minutes, or since the start."""
        started_at, start = self._samples[0]
        return Window(self._clock() - started_at, self._metrics.samples(), start)
