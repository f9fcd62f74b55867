"""Correction of a lane's forecasts by how long the admitted jobs really took.

A forecast does not see that later jobs lengthen a batch, that prompts of different lengths pad each other, or that the
machine slows down under load. The ratio of actual to forecast times includes all of these.
"""

from __future__ import annotations

INCREASE_RATE, DECREASE_RATE = 0.3, 0.03
"""Weights of one job that took longer, or less long, than the corrected forecast. They settle at about the slowest
tenth of the jobs, so that most jobs finish within the corrected forecast."""

SMOOTHING_S = 0.05
"""Added to both times, so that forecasts near 0 have little influence."""

MAX_FACTOR = 20.0
MAX_CLIENTS = 1_000


class CorrectionFactor:
    """Moving average of actual / forecast time. Updated on the lane's thread, read on the event loop's."""

    def __init__(self) -> None:
        self.value = 1.0
        """Multiplies a forecast; never below 1."""

    def record(self, forecast_s: float, took_s: float) -> None:
        """A job finished, or its deadline passed, `took_s` after its admission."""
        ratio = min((took_s + SMOOTHING_S) / (forecast_s + SMOOTHING_S), MAX_FACTOR)
        rate = INCREASE_RATE if ratio > self.value else DECREASE_RATE
        self.value = max(1.0, self.value + rate * (ratio - self.value))


class Corrections:
    """A factor for each client: of one whom others overtake, the requests take longer than was forecast."""

    def __init__(self) -> None:
        self._factors: dict[str, CorrectionFactor] = {}  # the last to be recorded is last

    def value(self, name: str) -> float:
        """The client's factor."""
        factor = self._factors.get(name)
        return 1.0 if factor is None else factor.value

    @property
    def mean(self) -> float:
        """Of all clients' factors."""
        return sum(each.value for each in self._factors.values()) / len(self._factors) if self._factors else 1.0

    def record(self, name: str, forecast_s: float, took_s: float) -> None:
        """A client's job finished, or its deadline passed, `took_s` after its admission."""
        factor = self._factors.pop(name, None) or CorrectionFactor()
        factor.record(forecast_s, took_s)
        self._factors[name] = factor
        if len(self._factors) > MAX_CLIENTS:
            del self._factors[next(iter(self._factors))]
