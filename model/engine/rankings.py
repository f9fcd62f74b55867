"""Rankings from the results of searches, and the widening of certified searches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.decoding.items import ItemBeams, exact_prefixes
from model.decoding.leaf_groups import within_limits
from model.decoding.trie import Trie
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking

CERTIFIED_BEAM_LIMIT = 2048
_CERTIFIED_GROWTH = 4  # factor of the beams from one search to the next


def rankings_of(beams: ItemBeams, plans: Sequence[RankingPlan], *, is_exact: bool = True) -> list[Ranking]:
    """The k best items of each row, with the number of proven ones: 0 unless scores are those of float32."""
    found = (beams.scores > float("-inf")).sum(1).tolist()
    counts = [number if plan.limits else min(plan.k, number) for plan, number in zip(plans, found, strict=True)]
    proven = exact_prefixes(beams, counts) if is_exact else [0] * len(counts)
    boosted, leaves = beams.scores.double().cpu().numpy(), beams.leaves.long().cpu().numpy()
    scores = boosted if beams.model_scores is None else beams.model_scores.double().cpu().numpy()
    rankings = [
        Ranking(
            leaves=np.ascontiguousarray(leaves[row, :count]),
            scores=np.ascontiguousarray(scores[row, :count]),
            exact_prefix=proven[row],
            num_beams=plan.num_beams,
            boosted=None if plan.boosts is None else np.ascontiguousarray(boosted[row, :count]),
        )
        for row, (plan, count) in enumerate(zip(plans, counts, strict=True))
    ]
    return [_limited(ranking, plan) for ranking, plan in zip(rankings, plans, strict=True)]


def _limited(ranking: Ranking, plan: RankingPlan) -> Ranking:
    """The first k items of all found that keep the plan's limits."""
    if not plan.limits:
        return ranking
    taken = within_limits(ranking.leaves.tolist(), plan.limits, plan.k)
    return replace(
        ranking,
        leaves=ranking.leaves[taken],
        scores=ranking.scores[taken],
        boosted=None if ranking.boosted is None else ranking.boosted[taken],
        # An item depends on those before it only, so what is taken of a proven beginning is proven.
        exact_prefix=bisect_left(taken, ranking.exact_prefix),
        is_short=len(taken) < plan.k and len(ranking.leaves) < plan.eligibility.num_eligible,
    )


def widened_plan(plan: RankingPlan, ranking: Ranking, trie: Trie, beam_limit: int) -> RankingPlan | None:
    """The next plan to prove a certified plan's ranking; None if it is proven or cannot be widened further.

    The beams are limited by `beam_limit` and by the trie's widest level, but not below the requested beams.
    """
    if not plan.certified or (ranking.exact_prefix == len(ranking.leaves) and not ranking.is_short):
        return None
    limit = max(plan.num_beams, min(beam_limit, max(trie.level_widths)))
    if ranking.num_beams >= limit:
        return None
    return replace(plan, num_beams=min(limit, ranking.num_beams * _CERTIFIED_GROWTH))
