"""What was shown is kept after the answer, and not after an erasure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from feature_cache.background import Background
from service.errors import HistoriesUnavailableError
from service.histories.events import UserKey
from service.histories.shown_log import MAX_WAITING, ShownLog
from tests.unit.histories.fakes import NoStore

ANN, BOB = UserKey("toys", "ann"), UserKey("toys", "bob")


class SlowStore(NoStore):
    """Writes when it is let, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.written: list[tuple[str, list[str]]] = []
        self.is_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self._fails = fails

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        self.is_asked.set()
        await self.may_go_on.wait()
        if self._fails:
            raise HistoriesUnavailableError("gone")
        self.written.append((user.user_id, list(item_ids)))


async def until_idle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_items_are_written_later_and_together() -> None:
    store = SlowStore()
    log = ShownLog(store)
    async with Background().kept("shown", log.run):
        log.note(ANN, ["a"])
        await store.is_asked.wait()
        log.note(BOB, ["b", "c"])
        log.note(BOB, ["c", "d"])
        log.note(BOB, [])
        assert store.written == []
        store.may_go_on.set()
        await until_idle()
    assert store.written == [("ann", ["a"]), ("bob", ["b", "c", "d"])]


async def test_a_forgotten_user_is_not_written_after_that() -> None:
    store = SlowStore()
    log = ShownLog(store)
    async with Background().kept("shown", log.run):
        log.note(ANN, ["a"])
        await store.is_asked.wait()
        log.note(ANN, ["b"])
        log.note(BOB, ["b"])
        forgotten = asyncio.create_task(log.forget(ANN))
        await log.forget(BOB)
        await until_idle()
        assert not forgotten.done()  # what is on its way arrives before the erasure
        store.may_go_on.set()
        await forgotten
        assert store.written == [("ann", ["a"])]
        await until_idle()
    assert store.written == [("ann", ["a"])]


async def test_a_store_that_is_gone_is_asked_once_for_all_that_wait() -> None:
    store = SlowStore(fails=True)
    log = ShownLog(store)
    background = Background()
    async with background.kept("shown", log.run):
        for number in range(2 * MAX_WAITING):
            log.note(UserKey("toys", f"user-{number}"), ["a"])
        assert len(log._waiting) == MAX_WAITING
        store.may_go_on.set()
        await until_idle()
        assert not log._waiting
        assert background.problems == []
