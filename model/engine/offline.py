"""Complete results for callers without a queue: evaluation, benchmarks, tests."""

from __future__ import annotations

from collections.abc import Sequence

from model.engine.plans import RankingPlan, TextPlan
from model.engine.protocol import Engine, GeneratedText, Ranking


def rank(engine: Engine, plans: Sequence[RankingPlan]) -> list[Ranking]:
    """One ranking per plan, in order. Certified plans are widened until all items are proven, or to the limit."""
    rankings, _ = engine.search(plans)
    for place, plan in enumerate(plans):
        while (wider := engine.widened(plan, rankings[place])) is not None:
            (rankings[place],), _ = engine.search([wider])
    return rankings


def generate(engine: Engine, plans: Sequence[TextPlan]) -> list[GeneratedText]:
    """One text per plan, in order. Raises the error of a failed search with several beams."""
    session = engine.open_texts(len(plans))
    place_of = {row: place for place, row in enumerate(session.admit(plans))}
    texts: dict[int, GeneratedText] = {}
    while len(texts) < len(plans):
        for progress in session.step():
            if progress.failure is not None:
                raise progress.failure
            if progress.finished is not None:
                texts[place_of[progress.row]] = progress.finished
    return [texts[place] for place in range(len(plans))]
