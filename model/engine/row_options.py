"""From plans to the options of a search's rows, for engines with and without static buffers."""

from __future__ import annotations

from collections.abc import Sequence

from model.decoding.items import RowOptions
from model.engine.plans import RankingPlan


def row_options(plans: Sequence[RankingPlan]) -> RowOptions[Sequence[float]]:
    """One value for each plan; their types are ROW_OPTION_TYPES."""
    return RowOptions(
        beams=[plan.num_beams for plan in plans],
        wanted=[min(plan.k, plan.num_beams) for plan in plans],
        length_penalty=[plan.length_penalty for plan in plans],
    )
