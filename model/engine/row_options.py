"""Options of a search's rows, taken from plans, for engines with and without static buffers."""

from __future__ import annotations

from collections.abc import Sequence

from model.decoding.items import RowOptions
from model.engine.plans import RankingPlan


def row_options(plans: Sequence[RankingPlan]) -> RowOptions[Sequence[float]]:
    """One value for each plan, of the types in ROW_OPTION_TYPES."""
    return RowOptions(
        num_beams=[plan.num_beams for plan in plans],
        # Limits may skip any of the items found.
        k=[plan.num_beams if plan.limits else min(plan.k, plan.num_beams) for plan in plans],
        length_penalty=[plan.length_penalty for plan in plans],
    )
