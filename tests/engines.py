"""An engine to be disguised: tests override what is to behave otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from model.engine.protocol import (
    Engine,
    GeneratedText,
    OnToken,
    Placement,
    Ranking,
    RankingWork,
    ScoringWork,
    TextSession,
    TextWork,
    Timings,
)


class DisguisedEngine:
    """Does what another engine does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def num_slots(self) -> int:
        return self._engine.num_slots

    def place(self, slot: int, placement: Placement) -> None:
        self._engine.place(slot, placement)

    def vacate(self, slot: int) -> None:
        self._engine.vacate(slot)

    def rank(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        return self._engine.rank(batch)

    def search(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        return self._engine.search(batch)

    def widened(self, work: RankingWork, ranking: Ranking) -> RankingWork | None:
        return self._engine.widened(work, ranking)

    def score(self, batch: Sequence[ScoringWork]) -> tuple[list[tuple[float, ...]], Timings]:
        return self._engine.score(batch)

    def generate(
        self, batch: Sequence[TextWork], on_token: OnToken | None = None
    ) -> tuple[list[GeneratedText], Timings]:
        return self._engine.generate(batch, on_token)

    def open_texts(self, num_rows: int) -> TextSession:
        return self._engine.open_texts(num_rows)
