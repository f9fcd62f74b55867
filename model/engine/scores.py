"""Rankings from scores of candidates. Imports no torch."""

from __future__ import annotations

import numpy as np

from model.decoding.leaf_groups import within_limits
from model.engine.plans import ScoringPlan
from model.engine.protocol import LogProbs, Ranking


def ranking_of_scores(plan: ScoringPlan, log_probs: LogProbs, *, is_exact: bool = True) -> Ranking:
    """The k best candidates by P(yes) / (P(yes) + P(no)), times the factors of boosts. Ties keep their order.

    All are proven, since all candidates were scored, unless the engine is not exact.
    Raises ValueError if the log-probabilities do not match the plan's leaves.
    """
    if len(log_probs) != len(plan.leaves):
        raise ValueError(f"{len(log_probs)} log-probabilities for {len(plan.leaves)} candidates")
    scored = [*plan.scored, *zip(plan.leaves, log_probs, strict=True)]
    yes, no = np.asarray([each for _, each in scored], dtype=np.float64).reshape(len(scored), 2).T
    scores = 1.0 / (1.0 + np.exp(no - yes))
    leaves = np.asarray([leaf for leaf, _ in scored], dtype=np.int64)
    boosted = None if plan.boosts is None else scores * np.exp(plan.boosts.of_leaves(leaves).astype(np.float64))
    order = np.argsort(-scores if boosted is None else -boosted, kind="stable")
    order = order[within_limits(leaves[order].tolist(), plan.limits, plan.k)] if plan.limits else order[: plan.k]
    return Ranking(
        leaves[order],
        scores[order],
        exact_prefix=len(order) if is_exact else 0,
        num_beams=0,
        boosted=None if boosted is None else boosted[order],
    )
