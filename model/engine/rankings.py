"""From what the network computed to rankings, and what to search next where a ranking must be proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.decoding.items import ItemBeams, exact_prefixes
from model.decoding.trie import Trie
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import LogProbs, Ranking

CERTIFIED_BEAM_LIMIT = 2048
_CERTIFIED_GROWTH = 4


def rankings_of(beams: ItemBeams, plans: Sequence[RankingPlan]) -> list[Ranking]:
    """At most k items of each row, with how many of them are proven."""
    found = (beams.scores > float("-inf")).sum(1).tolist()
    counts = [min(plan.k, number) for plan, number in zip(plans, found, strict=True)]
    proven = exact_prefixes(beams, counts)
    scores, leaves = beams.scores.double().cpu().numpy(), beams.leaves.cpu().numpy()
    return [
        Ranking(
            leaves=np.ascontiguousarray(leaves[row, :count]),
            scores=np.ascontiguousarray(scores[row, :count]),
            exact_prefix=proven[row],
            num_beams=plan.num_beams,
        )
        for row, (plan, count) in enumerate(zip(plans, counts, strict=True))
    ]


def ranking_of_scores(plan: ScoringPlan, log_probs: LogProbs) -> Ranking:
    """The k best candidates by P(yes) / (P(yes) + P(no)); ties keep the candidates' order.

    Every candidate was scored, so all items are proven.
    """
    yes, no = np.asarray(log_probs, dtype=np.float64).reshape(len(plan.leaves), 2).T
    scores = 1.0 / (1.0 + np.exp(no - yes))
    order = np.argsort(-scores, kind="stable")[: plan.k]
    leaves = np.asarray(plan.leaves, dtype=np.int64)[order]
    return Ranking(leaves, scores[order], exact_prefix=len(order), num_beams=0)


def widened_plan(plan: RankingPlan, ranking: Ranking, trie: Trie, beam_limit: int) -> RankingPlan | None:
    """What to search next to prove a certified plan's ranking; None where it is proven, or cannot be widened.

    At most as wide as the limit, the trie's widest level, or what was asked for.
    """
    if not plan.certified or ranking.exact_prefix == len(ranking.leaves):
        return None
    limit = max(plan.num_beams, min(beam_limit, max(trie.level_widths)))
    if ranking.num_beams >= limit:
        return None
    return replace(plan, num_beams=min(limit, ranking.num_beams * _CERTIFIED_GROWTH))
