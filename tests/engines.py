"""A wrapper of an engine, of which tests override methods."""

from __future__ import annotations

from collections.abc import Sequence

from model.decoding.leaf_boosts import BoostTable
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import Engine, LogProbs, Placement, Ranking, TextSession, Timings


class DisguisedEngine:
    """Delegates to another engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def num_slots(self) -> int:
        return self._engine.num_slots

    @property
    def is_exact(self) -> bool:
        return self._engine.is_exact

    def place(self, slot: int, placement: Placement) -> None:
        self._engine.place(slot, placement)

    def vacate(self, slot: int) -> None:
        self._engine.vacate(slot)

    def expect_boosts(self, tables: Sequence[BoostTable]) -> None:
        self._engine.expect_boosts(tables)

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        return self._engine.search(batch)

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        return self._engine.widened(plan, ranking)

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        return self._engine.score(batch)

    def open_texts(self, num_rows: int) -> TextSession:
        return self._engine.open_texts(num_rows)
