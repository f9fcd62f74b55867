"""From a search's beams to what an engine answers, and what it searches next where that must be proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.decoding.items import ItemBeams, exact_prefixes
from model.decoding.trie import Trie
from model.engine.protocol import Ranking, RankingWork

CERTIFIED_BEAM_LIMIT = 2048
_CERTIFIED_GROWTH = 4


def rankings_of(beams: ItemBeams, works: Sequence[RankingWork]) -> list[Ranking]:
    """At most k items of each row, with how many of them are proven."""
    found = (beams.scores > float("-inf")).sum(1).tolist()
    counts = [min(work.k, number) for work, number in zip(works, found, strict=True)]
    proven = exact_prefixes(beams, counts)
    scores, leaves = beams.scores.double().cpu().numpy(), beams.leaves.cpu().numpy()
    return [
        Ranking(
            leaves=np.ascontiguousarray(leaves[row, :count]),
            scores=np.ascontiguousarray(scores[row, :count]),
            exact_prefix=proven[row],
            num_beams=work.num_beams,
        )
        for row, (work, count) in enumerate(zip(works, counts, strict=True))
    ]


def widened_work(work: RankingWork, ranking: Ranking, trie: Trie, beam_limit: int) -> RankingWork | None:
    """What to search next to prove a certified work's ranking; None where it is proven, or cannot be widened.

    At most as wide as the limit, the trie's widest level, or what was asked for.
    """
    if not work.certified or ranking.exact_prefix == len(ranking.leaves):
        return None
    limit = max(work.num_beams, min(beam_limit, max(trie.level_widths)))
    if ranking.num_beams >= limit:
        return None
    return replace(work, num_beams=min(limit, ranking.num_beams * _CERTIFIED_GROWTH))
