"""Opens the store of histories that the settings name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass

from feature_cache.background import Background
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import connect
from service.histories.embedded import EmbeddedOptions, EmbeddedStore
from service.histories.events import Retention, UserKey
from service.histories.redis_store import RedisOptions, RedisStore
from service.histories.shown_log import ShownLog
from service.histories.store import HistoryStore
from service.observability.metrics import Metrics
from service.settings.options import HistoryOptions


@dataclass(frozen=True)
class Histories:
    """What the service keeps of users."""

    store: HistoryStore
    shown: ShownLog

    async def erase(self, user: UserKey) -> int:
        """Remove all that is kept of a user; the number of events that were. Raises HistoriesUnavailableError."""
        await self.shown.forget(user)
        return await self.store.erase(user)


@asynccontextmanager
async def open_histories(
    options: HistoryOptions, metrics: Metrics, background: Background, elsewhere: HistoryStore | None = None
) -> AsyncIterator[Histories | None]:
    """None if no histories are kept. Raises JournalError for a file that cannot be used.

    `elsewhere` takes the place of embedded histories, which only one process can keep.
    """
    if options.store == "none":
        yield None
        return
    async with _opened(options, background, elsewhere) as store:
        metrics.watch_histories(lambda: store.is_up)
        shown = ShownLog(store)
        async with background.kept("shown", shown.run):
            yield Histories(store, shown)


def _opened(
    options: HistoryOptions, background: Background, elsewhere: HistoryStore | None
) -> AbstractAsyncContextManager[HistoryStore]:
    if options.redis is not None:
        return _redis(options, options.redis, background)
    return _embedded(options, background) if elsewhere is None else nullcontext(elsewhere)


@asynccontextmanager
async def _redis(options: HistoryOptions, address: RedisAddress, background: Background) -> AsyncIterator[HistoryStore]:
    """The store with a running watcher, which has asked once, whether or not Redis answered."""
    redis_options = RedisOptions(options.service_id, options.timeout_s, options.max_concurrent, _half_life_ms(options))
    store = RedisStore(connect(address), redis_options, _retention(options), time.time)
    try:
        await store.watcher.poll()
        async with background.kept("history_watcher", store.watcher.run):
            yield store
    finally:
        await store.close()


@asynccontextmanager
async def _embedded(options: HistoryOptions, background: Background) -> AsyncIterator[HistoryStore]:
    embedded_options = EmbeddedOptions(options.path, options.max_users, _half_life_ms(options))
    store = EmbeddedStore(embedded_options, _retention(options), time.time)
    try:
        await asyncio.to_thread(store.load)
        async with background.kept("histories", store.run, end=store.end):
            yield store
    finally:
        await asyncio.to_thread(store.close)


def _retention(options: HistoryOptions) -> Retention:
    return Retention(options.max_events, round(options.lifetime_s * 1000))


def _half_life_ms(options: HistoryOptions) -> int:
    return round(options.half_life_s * 1000)
