"""Stores of histories for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.histories.events import Event, Outcome, Shown, UserKey


class NoStore:
    """A HistoryStore that does nothing; tests override what they need."""

    is_up = True
    problems: Sequence[str] = ()

    async def add(self, events: Sequence[tuple[UserKey, Event]]) -> list[Outcome]:
        raise NotImplementedError

    async def read(self, user: UserKey, limit: int) -> list[Event]:
        raise NotImplementedError

    async def erase(self, user: UserKey) -> int:
        raise NotImplementedError

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        raise NotImplementedError

    async def shown(self, user: UserKey) -> list[Shown]:
        raise NotImplementedError

    async def popular(self, domain: str) -> Mapping[str, float]:
        raise NotImplementedError
