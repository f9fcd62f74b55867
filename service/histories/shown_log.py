"""Keeps what was shown to users, after their answers are made, so that no answer waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.errors import HistoriesUnavailableError
from service.histories.events import UserKey
from service.histories.store import HistoryStore

MAX_WAITING = 1_000
"""Most users whose shown items wait to be written; more are not remembered."""


class ShownLog:
    """Mutable. `run` writes what was noted. What cannot be written is forgotten, so lists may repeat themselves."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._waiting: dict[UserKey, list[str]] = {}
        self._has_some = asyncio.Event()
        self._writing: tuple[UserKey, asyncio.Task[None]] | None = None

    def note(self, user: UserKey, item_ids: Sequence[str]) -> None:
        """These items were shown to the user now. Returns at once."""
        if item_ids and (user in self._waiting or len(self._waiting) < MAX_WAITING):
            self._waiting.setdefault(user, []).extend(item_ids)
            self._has_some.set()

    async def forget(self, user: UserKey) -> None:
        """Nothing of the user is written after this, unless it is noted again."""
        self._waiting.pop(user, None)
        if self._writing is not None and self._writing[0] == user:
            await asyncio.wait({self._writing[1]})

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            while self._waiting:
                user = next(iter(self._waiting))
                item_ids = self._waiting.pop(user)
                self._writing = user, asyncio.create_task(self._write(user, item_ids))
                try:
                    await self._writing[1]
                finally:
                    self._writing = None

    async def _write(self, user: UserKey, item_ids: Sequence[str]) -> None:
        try:
            await self._store.note_shown(user, list(dict.fromkeys(item_ids)))
        except HistoriesUnavailableError:
            self._waiting.clear()  # the next ones would wait for the same store
