"""Reduces the beams of searches under load, if the operator allows it: less recall for lower latency.

The number of beams is chosen from a table of measurements, which `vip5 bench` writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.degradation import Degradation, DegradationKind
from model.engine.plans import RankingPlan
from service.errors import BeamTableError
from service.settings.options import ReductionOptions

DEADLINE_SHARE = 0.3
"""Beams are reduced if the waiting requests will take more than this share of a request's time budget."""


class BeamWidth(BaseModel):
    """Measured latency and recall of a number of beams."""

    model_config = ConfigDict(frozen=True)

    num_beams: int = Field(ge=1)
    latency_ms: float = Field(gt=0, allow_inf_nan=False)
    recall: float = Field(ge=0, le=1)  # share of the items that the widest search finds


class BeamTable(BaseModel):
    """Measurements, in any order."""

    model_config = ConfigDict(frozen=True)

    beams: tuple[BeamWidth, ...] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> BeamTable:
        """Raises BeamTableError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise BeamTableError(
                f"{path} is not a table of beams ({reason}); it must be JSON of the form "
                '{"beams": [{"num_beams": 20, "latency_ms": 40.5, "recall": 0.99}]}, as vip5 bench writes it'
            ) from error

    def latency_ms(self, num_beams: int) -> float:
        """Latency of the nearest measured number of beams, scaled in proportion."""
        nearest = min(self.beams, key=lambda each: abs(each.num_beams - num_beams))
        return nearest.latency_ms * num_beams / nearest.num_beams


class NoReduction:
    """Never reduces beams."""

    def reduce(self, plan: RankingPlan, deadline: float) -> RankingPlan:  # noqa: ARG002  # same signature as BeamReduction
        return plan


class BeamReduction:
    """Chooses the largest number of beams with which the waiting requests finish in time."""

    def __init__(self, table: BeamTable, min_beams: int, completion_s: Callable[[], float]) -> None:
        """`completion_s` forecasts the seconds until all waiting requests are done."""
        self._widths = sorted(table.beams, key=lambda each: -each.num_beams)
        self._table = table
        self._min_beams = min_beams
        self._completion_s = completion_s

    def reduce(self, plan: RankingPlan, deadline: float) -> RankingPlan:
        """The plan, or one with fewer beams and a degradation. Certified plans are not reduced."""
        allowed_s = DEADLINE_SHARE * (deadline - time.monotonic())
        waiting_s = self._completion_s()
        if plan.certified or waiting_s <= allowed_s:
            return plan
        fewest = max(self._min_beams, plan.k)
        widths = [each for each in self._widths if fewest <= each.num_beams < plan.num_beams]
        if not widths:
            return plan
        full_ms = self._table.latency_ms(plan.num_beams)
        fitting = (each for each in widths if waiting_s * each.latency_ms / full_ms <= allowed_s)
        width = next(fitting, widths[-1])
        detail = (
            f"searched with {width.num_beams} beams instead of {plan.num_beams} because many requests are waiting; "
            f"this finds {width.recall:.1%} of the items of the widest search, as measured beforehand"
        )
        narrower = replace(plan, num_beams=width.num_beams)
        return narrower.degraded_by(Degradation(DegradationKind.BEAMS_REDUCED, detail))


def open_reduction(options: ReductionOptions | None, completion_s: Callable[[], float]) -> BeamReduction | NoReduction:
    """`completion_s` as in BeamReduction. Raises BeamTableError."""
    if options is None:
        return NoReduction()
    return BeamReduction(BeamTable.read(options.table), options.min_beams, completion_s)
