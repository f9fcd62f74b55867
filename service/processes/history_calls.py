"""Histories that the engine process keeps in memory and in its file, for workers: both ends of each call."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from feature_cache.background import Background
from model.errors import Vip5Error
from service.channel.channel import Channel
from service.channel.messages import AskHistories, ToldHistories
from service.errors import HistoriesUnavailableError
from service.histories.events import Event, Outcome, Shown, UserKey
from service.histories.store import HistoryStore

logger = logging.getLogger(__name__)

_ARGUMENTS: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
    "add": msgspec.msgpack.Decoder(tuple[list[tuple[UserKey, Event]]]),
    "read": msgspec.msgpack.Decoder(tuple[UserKey, int]),
    "erase": msgspec.msgpack.Decoder(tuple[UserKey]),
    "note_shown": msgspec.msgpack.Decoder(tuple[UserKey, list[str]]),
    "shown": msgspec.msgpack.Decoder(tuple[UserKey]),
    "popular": msgspec.msgpack.Decoder(tuple[str]),
}
_RESULTS: Mapping[str, msgspec.msgpack.Decoder[Any]] = {
    "add": msgspec.msgpack.Decoder(list[Outcome]),
    "read": msgspec.msgpack.Decoder(list[Event]),
    "erase": msgspec.msgpack.Decoder(int),
    "note_shown": msgspec.msgpack.Decoder(None),
    "shown": msgspec.msgpack.Decoder(list[Shown]),
    "popular": msgspec.msgpack.Decoder(dict[str, float]),
}
_ENCODER = msgspec.msgpack.Encoder()


class RemoteHistories:
    """The store of the engine process, as a worker sees it: a `HistoryStore`."""

    is_up = True
    """The engine process reports what its store lacks."""
    problems: Sequence[str] = ()

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[ToldHistories]] = {}

    async def add(self, events: Sequence[tuple[UserKey, Event]]) -> list[Outcome]:
        outcomes: list[Outcome] = await self._ask("add", list(events))
        return outcomes

    async def read(self, user: UserKey, limit: int) -> list[Event]:
        events: list[Event] = await self._ask("read", user, limit)
        return events

    async def erase(self, user: UserKey) -> int:
        number: int = await self._ask("erase", user)
        return number

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        await self._ask("note_shown", user, list(item_ids))

    async def shown(self, user: UserKey) -> list[Shown]:
        shown: list[Shown] = await self._ask("shown", user)
        return shown

    async def popular(self, domain: str) -> Mapping[str, float]:
        counts: dict[str, float] = await self._ask("popular", domain)
        return counts

    def handle(self, message: ToldHistories) -> None:
        """The engine process's answer."""
        asked = self._asked.get(message.request)
        if asked is not None and not asked.done():
            asked.set_result(message)

    async def _ask(self, method: str, *arguments: object) -> Any:  # noqa: ANN401  # as the method returns
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send(AskHistories(number, method, _ENCODER.encode(arguments)))
        try:
            told = await asked
        finally:
            del self._asked[number]
        if told.error is not None:
            raise HistoriesUnavailableError(told.error, retry_after_s=told.retry_after_s)
        return _RESULTS[method].decode(told.result)


class HistoryCalls:
    """The engine process's end of one worker's calls."""

    def __init__(self, store: HistoryStore | None, channel: Channel, background: Background) -> None:
        """Without a store, workers have their own, or none, and do not ask."""
        self._store = store
        self._channel = channel
        self._background = background

    def begin(self, message: AskHistories) -> None:
        self._background.once("histories_of_workers", lambda: self._run(message))

    async def _run(self, message: AskHistories) -> None:
        number = message.request
        try:
            arguments = _ARGUMENTS[message.method].decode(message.arguments)
            result = await getattr(self._store, message.method)(*arguments)
        except Vip5Error as error:
            retry_after_s = error.retry_after_s if isinstance(error, HistoriesUnavailableError) else None
            self._channel.send(ToldHistories(number, b"", str(error), retry_after_s))
        except Exception:
            logger.exception("histories_failed")
            self._channel.send(ToldHistories(number, b"", "the store of histories failed; its log has the cause", None))
        else:
            self._channel.send(ToldHistories(number, _ENCODER.encode(result), None, None))
