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
