"""Narrower searches while many requests wait, if the operator allows it: a list that is a little worse, in time.

Widths are chosen from a table that was measured beforehand (`vip5 bench` writes one).
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
from service.settings import ReductionOptions

DEADLINE_SHARE = 0.3
"""Searches become narrower where what waits would take more than this share of a request's deadline."""


class BeamWidth(BaseModel):
    """What a width was measured to cost, and what it finds."""

    model_config = ConfigDict(frozen=True)

    num_beams: int = Field(ge=1)
    latency_ms: float = Field(gt=0, allow_inf_nan=False)
    recall: float = Field(ge=0, le=1)  # share of the widest search's items


class BeamTable(BaseModel):
    """Widths in any order."""

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
                f'{path} is no table of beams ({reason}); it must be JSON of the form {{"beams": [{{"num_beams": 20, '
                '"latency_ms": 40.5, "recall": 0.99}]}, as vip5 bench writes it'
            ) from error

    def latency_ms(self, num_beams: int) -> float:
        """That of the nearest width that was measured, in proportion."""
        nearest = min(self.beams, key=lambda each: abs(each.num_beams - num_beams))
        return nearest.latency_ms * num_beams / nearest.num_beams


class NoReduction:
    """Searches stay as wide as they are."""

    def reduce(self, plan: RankingPlan, deadline: float) -> RankingPlan:  # noqa: ARG002  # whatever there is to gain
        return plan


class BeamReduction:
    """Chooses the widest search that lets what waits be done in time."""

    def __init__(self, table: BeamTable, min_beams: int, completion_s: Callable[[], float]) -> None:
        """`completion_s` tells how long what waits will take."""
        self._widths = sorted(table.beams, key=lambda each: -each.num_beams)
        self._table = table
        self._min_beams = min_beams
        self._completion_s = completion_s

    def reduce(self, plan: RankingPlan, deadline: float) -> RankingPlan:
        """The plan as it is, or narrower and with a note of it; certified searches are never narrowed."""
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
            f"that width was measured to find {width.recall:.1%} of the widest one's items"
        )
        narrower = replace(plan, num_beams=width.num_beams)
        return narrower.degraded_by(Degradation(DegradationKind.BEAMS_REDUCED, detail))


def open_reduction(options: ReductionOptions | None, completion_s: Callable[[], float]) -> BeamReduction | NoReduction:
    """`completion_s` tells how long what waits will take. Raises BeamTableError."""
    if options is None:
        return NoReduction()
    return BeamReduction(BeamTable.read(options.table), options.min_beams, completion_s)
