"""How wrong a lane's forecasts are, from what became of the jobs that they admitted.

A forecast knows nothing of later jobs that lengthen a batch, of prompts that fit badly together, or of a machine that
is slower under load; whatever the reason, the jobs themselves tell.
"""

from __future__ import annotations

RISE, FALL = 0.3, 0.03
"""How far one job moves the factor, up and down: most jobs are to end sooner than is corrected for."""

SLACK_S = 0.05
"""Added to both sides, so that forecasts near 0 say little."""

MOST = 20.0


class Correction:
    """Learned on a lane's thread, read on the event loop's."""

    def __init__(self) -> None:
        self.factor = 1.0
        """Times what was forecast that jobs take, all but the slowest of them; never below 1."""

    def note(self, forecast_s: float, took_s: float) -> None:
        """A job ended, or was given up, so long after it was admitted."""
        found = min((took_s + SLACK_S) / (forecast_s + SLACK_S), MOST)
        weight = RISE if found > self.factor else FALL
        self.factor = max(1.0, self.factor + weight * (found - self.factor))
