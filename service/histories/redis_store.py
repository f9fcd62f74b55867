"""Histories in Redis, shared by all processes and replicas with the same service id.

Keys are `vip5:{ID:DOMAIN:SLICE}:h:USER` and `…:s:USER`, sorted sets of a user's events and of the items shown, and
`vip5:{ID:DOMAIN:SLICE}:popular`. What is between braces decides the slot of a cluster; one server has one slice. Each
write is one script, and each read one command. In a cluster, a list of events is one script for each slice; if one of
them fails, the others are undone.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from redis.exceptions import ResponseError

from feature_cache.remote.breakers import Breakers
from feature_cache.remote.link import FAULTS, Command, Link, Reply
from feature_cache.remote.timing import in_time
from feature_cache.remote.watcher import Watcher
from service.errors import HistoriesUnavailableError
from service.histories.events import Event, Outcome, Retention, Shown, UserKey
from service.histories.popularity import MAX_ITEMS, count_at, merged
from service.histories.redis_scripts import ADD, ERASE, SHOW

logger = logging.getLogger(__name__)

REFRESH_S = 0.25
"""Interval at which a Redis that is asked for histories is probed."""
WRITE_S = 2.0
"""Longest wait for a write: one that has been given up may be made all the same."""
POPULAR_S = 5.0
"""How long the popularity of items is remembered by this process."""
RETRY_S = 1
NUMBER_DIGITS = 8
SEPARATOR = b"\0"


@dataclass(frozen=True)
class RedisOptions:
    """`read_s` is the longest wait of a request, `max_concurrent` the most requests to Redis at once."""

    service_id: str
    read_s: float
    max_concurrent: int
    half_life_ms: int


@dataclass(frozen=True)
class _Part:
    """The events of one slice, as one command, and their places in the list."""

    key: str
    keys: tuple[str, ...]
    command: Command
    places: list[int]


class RedisStore:
    """A HistoryStore. `watcher.run` has to run beside it: it lets a Redis be asked again that did not answer."""

    def __init__(self, link: Link, options: RedisOptions, retention: Retention, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since 1970."""
        self._link = link
        self._options = options
        self._retention = retention
        self._clock = clock
        self._breakers = Breakers()
        self._turns = asyncio.Semaphore(options.max_concurrent)
        self.watcher = Watcher(link, self._breakers, refresh_s=REFRESH_S, budget_s=options.read_s)
        self._popular: dict[str, tuple[float, Mapping[str, float]]] = {}
        """Weights by domain, and when they were read."""

    @property
    def is_up(self) -> bool:
        return self.watcher.is_up

    @property
    def problems(self) -> Sequence[str]:
        return ["Redis, which stores histories, does not answer in time"] if not self.watcher.is_up else []

    async def close(self) -> None:
        await self._link.close()

    async def add(self, events: Sequence[tuple[UserKey, Event]]) -> list[Outcome]:
        parts = self._parts(events)
        results = await asyncio.gather(*(self._run(each.key, each.command) for each in parts), return_exceptions=True)
        replies: list[Reply] = [None if isinstance(each, BaseException) else each for each in results]
        for fault in (each for each in results if isinstance(each, BaseException)):
            await self._undo(parts, replies)
            raise fault
        outcomes: list[Outcome] = ["stored"] * len(events)
        for part, found in zip(parts, replies, strict=True):
            for place, outcome in zip(part.places, found[::2], strict=True):
                outcomes[place] = outcome.decode()
        return outcomes

    async def read(self, user: UserKey, limit: int) -> list[Event]:
        key = self._key(user, "h")
        after = f"({self._retention.cutoff_ms(self._now_ms())}"
        found = await self._ask(key, ("ZREVRANGEBYSCORE", key, "+inf", after, "WITHSCORES", "LIMIT", 0, limit))
        return [_event(bytes(member), int(score)) for member, score in reversed(_pairs(found))]

    async def erase(self, user: UserKey) -> int:
        keys = self._key(user, "h"), self._key(user, "s")
        cutoff_ms = self._retention.cutoff_ms(self._now_ms())
        return int(await self._run(keys[0], ("EVAL", ERASE, 2, *keys, cutoff_ms)))

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        now_ms, key = self._now_ms(), self._key(user, "s")
        cutoff_ms = self._retention.cutoff_ms(now_ms)
        await self._run(key, ("EVAL", SHOW, 1, key, now_ms, cutoff_ms, self._retention.max_shown, *item_ids))

    async def shown(self, user: UserKey) -> list[Shown]:
        key = self._key(user, "s")
        after = f"({self._retention.cutoff_ms(self._now_ms())}"
        found = await self._ask(key, ("ZRANGEBYSCORE", key, after, "+inf", "WITHSCORES"))
        return [Shown(bytes(item_id).decode(), int(score)) for item_id, score in _pairs(found)]

    async def popular(self, domain: str) -> Mapping[str, float]:
        """As it was at most POPULAR_S ago; older while Redis does not answer."""
        read_at, weights = self._popular.get(domain, (float("-inf"), {}))
        now_s = self._clock()
        if not 0 <= now_s - read_at < POPULAR_S:
            try:
                weights = merged(await asyncio.gather(*(self._weights(key) for key in self._popular_keys(domain))))
            except HistoriesUnavailableError:
                if domain not in self._popular:
                    raise
            else:
                self._popular[domain] = now_s, weights
        now_ms, half_life_ms = self._now_ms(), self._options.half_life_ms
        return {item_id: count_at(weight, now_ms, half_life_ms) for item_id, weight in weights.items()}

    async def _weights(self, key: str) -> Mapping[str, float]:
        found = await self._ask(key, ("ZREVRANGE", key, 0, MAX_ITEMS - 1, "WITHSCORES"))
        return {bytes(item_id).decode(): float(weight) for item_id, weight in _pairs(found)}

    def _parts(self, events: Sequence[tuple[UserKey, Event]]) -> list[_Part]:
        """One command for each slice: one server has one, so that a list is one step."""
        now_ms = self._now_ms()
        places_of: dict[str, dict[str, list[int]]] = {}  # by slice and user
        for place, (user, _) in enumerate(events):
            places_of.setdefault(self._slice(user), {}).setdefault(self._key(user, "h"), []).append(place)
        head = (
            now_ms,
            self._retention.cutoff_ms(now_ms),
            self._retention.max_events,
            self._options.half_life_ms,
            MAX_ITEMS,
        )
        parts = []
        for tag, of_users in places_of.items():
            arguments: list[str | int] = []
            for places in of_users.values():
                arguments.append(len(places))
                for each in (events[place][1] for place in places):
                    arguments += [each.at_ms, each.item_id, each.kind, each.event_id]
            keys = (f"{tag}:popular", *of_users)
            command = ("EVAL", ADD, len(keys), *keys, *head, *arguments)
            key_of_place = [key for key, places in of_users.items() for _ in places]
            in_order = [place for places in of_users.values() for place in places]
            parts.append(_Part(keys[0], tuple(key_of_place), command, in_order))
        return parts

    async def _undo(self, parts: Sequence[_Part], replies: Sequence[Reply]) -> None:
        """Remove what the parts that have a reply have stored."""
        commands = [
            (key, ("ZREM", key, member))
            for part, found in zip(parts, replies, strict=True)
            if found is not None
            for key, member in zip(part.keys, found[1::2], strict=True)
            if member
        ]
        undone = await asyncio.gather(*(self._run(key, each) for key, each in commands), return_exceptions=True)
        num_left = sum(isinstance(each, BaseException) for each in undone)
        if num_left:
            logger.error("events_not_undone", extra={"num_events": num_left})

    async def _run(self, key: str, command: Command) -> Reply:
        return await self._guarded(key, command, WRITE_S)

    async def _ask(self, key: str, command: Command) -> Reply:
        return await self._guarded(key, command, self._options.read_s)

    async def _guarded(self, key: str, command: Command, limit_s: float) -> Reply:
        """Ask the node that holds the key, unless it did not answer lately. Raises HistoriesUnavailableError."""
        deadline = asyncio.get_running_loop().time() + limit_s
        try:
            node = self._link.node_of(key)
            if not self._breakers.is_closed(node):
                raise _unavailable("it did not answer lately")
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
            try:
                return await self._asked(node, command, deadline)
            finally:
                self._turns.release()
        except FAULTS as error:
            reason = _reason(error)
            logger.warning("history_request_failed", extra={"reason": reason})
            raise _unavailable(reason) from None  # the error may quote a command with the ids of users

    async def _asked(self, node: str, command: Command, deadline: float) -> Reply:
        """Raises one of FAULTS. A refusal is an answer, too, and does not count against the node."""
        async with self._breakers.guard(node):
            try:
                return await in_time(self._link.run(*command), deadline)
            except ResponseError as error:
                refusal = error
        raise refusal

    def _slice(self, user: UserKey) -> str:
        return self._tag(user.domain, zlib.crc32(user.user_id.encode()) % self._link.num_slices)

    def _key(self, user: UserKey, kind: str) -> str:
        return f"{self._slice(user)}:{kind}:{user.user_id}"

    def _tag(self, domain: str, slice_: int) -> str:
        # Quoting keeps the braces and colons that structure a key out of names.
        return f"vip5:{{{self._options.service_id}:{quote(domain, safe='')}:{slice_}}}"

    def _popular_keys(self, domain: str) -> list[str]:
        return [f"{self._tag(domain, each)}:popular" for each in range(self._link.num_slices)]

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _unavailable(reason: str) -> HistoriesUnavailableError:
    return HistoriesUnavailableError(
        f"Redis, which stores histories, does not answer in time or refuses ({reason}); retry in {RETRY_S} s",
        retry_after_s=RETRY_S,
    )


def _event(member: bytes, at_ms: int) -> Event:
    item_id, kind, event_id = (part.decode() for part in member[NUMBER_DIGITS:].split(SEPARATOR))
    return Event(item_id, at_ms, kind, event_id)


def _pairs(reply: Reply) -> list[tuple[bytes, float]]:
    """Members and scores, as RESP3 gives them."""
    return [(member, float(score)) for member, score in reply]


def _reason(error: BaseException) -> str:
    """The kind of an error of Redis, and its code, such as OOM. Its text may name keys, which hold ids of users."""
    code = str(error).partition(" ")[0]
    is_code = code.isalpha() and code.isupper() and len(code) <= 16
    return f"{type(error).__name__}: {code}" if is_code else type(error).__name__
