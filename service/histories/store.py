"""What a store of histories does.

`embedded.py` and `redis_store.py` are the two. They give the same histories for the same events
(tests/unit/histories/test_both_stores.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.histories.events import Event, Outcome, Shown, UserKey


class HistoryStore(Protocol):
    """Histories of users. Each method raises HistoriesUnavailableError if it could not do all that it was asked for."""

    async def add(self, events: Sequence[tuple[UserKey, Event]]) -> list[Outcome]:
        """Keep events, all or none; what became of each."""
        ...

    async def read(self, user: UserKey, limit: int) -> list[Event]:
        """The newest events of a user, at most `limit`, oldest first."""
        ...

    async def erase(self, user: UserKey) -> int:
        """Remove all that is kept of a user; the number of events that were."""
        ...

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        """Keep that items were shown to a user now."""
        ...

    async def shown(self, user: UserKey) -> list[Shown]:
        """What was shown to a user lately, oldest first."""
        ...

    async def popular(self, domain: str) -> Mapping[str, float]:
        """The decayed number of events of a domain's most popular items, now."""
        ...

    @property
    def is_up(self) -> bool:
        """Whether histories can be read and events kept at present."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What prevents that, for an operator."""
        ...
