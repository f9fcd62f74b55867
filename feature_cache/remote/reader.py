"""Reads embeddings from Redis within a time budget. Never raises: failures become a shortfall."""

# N requested items

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from feature_cache.remote.breakers import Breakers
from feature_cache.remote.layout import Edition
from feature_cache.remote.link import FAULTS, Link, Reply
from feature_cache.remote.refused import RefusedValues
from feature_cache.remote.timing import in_time
from feature_cache.remote.watcher import Known, Watcher
from feature_cache.signing import Signing
from feature_cache.store import REDIS_TIER, FeatureObserver

logger = logging.getLogger(__name__)


@dataclass
class Fetched:
    """Raw floats of N items, in the requested order; `is_absent` marks those that Redis does not hold."""

    rows: list[bytes | None]
    is_absent: list[bool]
    shortfall: str = ""

    @classmethod
    def nothing(cls, num_items: int, shortfall: str = "") -> Fetched:
        return cls([None] * num_items, [False] * num_items, shortfall)


@dataclass(frozen=True)
class ReadLimits:
    """Time budget of a read, number of concurrent reads, and interval between the watcher's polls."""

    budget_s: float
    max_concurrent: int
    refresh_s: float


@dataclass
class RemoteReader:
    """Fetches raw values of the current edition."""

    link: Link
    limits: ReadLimits
    observer: FeatureObserver
    signing: Signing | None = None
    breakers: Breakers = field(default_factory=Breakers)

    def __post_init__(self) -> None:
        self.watcher = Watcher(
            self.link,
            self.breakers,
            refresh_s=self.limits.refresh_s,
            budget_s=self.limits.budget_s,
            signing=self.signing,
        )
        self._refused = RefusedValues()
        self._turns = asyncio.Semaphore(self.limits.max_concurrent)

    @property
    def problems(self) -> list[str]:
        """What prevents fetching, for an operator."""
        refused = (self._refused.problem(edition) for edition in self.watcher.editions)
        return [*self.watcher.problems, *filter(None, refused)]

    async def fetch(self, known: Known, item_ids: Sequence[str]) -> Fetched:
        """Ask all nodes that hold some of the items, concurrently."""
        started_at = time.perf_counter()
        if known.edition is None:
            fetched = Fetched.nothing(len(item_ids), known.problem)
        else:
            fetched = await self._ask_all(known.edition, item_ids)
        num_present = sum(row is not None for row in fetched.rows)
        duration_s = time.perf_counter() - started_at
        self.observer.observe_features(REDIS_TIER, num_present, len(item_ids) - num_present, duration_s)
        return fetched

    async def _ask_all(self, edition: Edition, item_ids: Sequence[str]) -> Fetched:
        keys = edition.bucket_keys(item_ids)
        fetched = Fetched.nothing(len(item_ids))
        deadline = asyncio.get_running_loop().time() + self.limits.budget_s
        try:
            places_of = self._split(keys)
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            fetched.shortfall = "all connections to Redis were busy"
            return fetched
        except FAULTS:
            fetched.shortfall = "Redis does not answer"
            return fetched
        try:
            asked = [
                self._ask(node, [keys[place] for place in places], [item_ids[place] for place in places], deadline)
                for node, places in places_of.items()
            ]
            answers = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        finally:
            self._turns.release()
        for places, answer in zip(places_of.values(), answers, strict=True):
            if isinstance(answer, str):
                fetched.shortfall = answer
            else:
                self._take(edition, item_ids, places, answer, fetched)
        return fetched

    def _split(self, keys: Sequence[str]) -> dict[str, list[int]]:
        """Places of the keys that each node holds. Raises one of FAULTS."""
        places_of: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places_of.setdefault(self.link.node_of(key), []).append(place)
        return places_of

    async def _ask(self, node: str, keys: Sequence[str], item_ids: Sequence[str], deadline: float) -> list[Reply] | str:
        """Replies, or the reason why there are none."""
        if not self.breakers.is_closed(node):
            return "Redis does not answer"
        try:
            async with self.breakers.guard(node):
                return await in_time(self.link.read(keys, item_ids), deadline)
        except TimeoutError:
            return f"Redis did not answer within {self.limits.budget_s * 1000:.0f} ms"
        except FAULTS as error:
            logger.warning("feature_read_failed", extra={"reason": f"{type(error).__name__}: {error}"})
            return "Redis does not answer"

    def _take(
        self, edition: Edition, item_ids: Sequence[str], places: Sequence[int], replies: Sequence[Reply], into: Fetched
    ) -> None:
        codec = edition.codec
        refused: list[str] = []
        read: list[str] = []
        asked = [item_ids[place] for place in places]
        rows = codec.finite([codec.row_of(item_id, reply) for item_id, reply in zip(asked, replies, strict=True)])
        for place, reply, row in zip(places, replies, rows, strict=True):
            if reply is None:
                into.is_absent[place] = True
                continue
            into.rows[place] = row
            (refused if row is None else read).append(item_ids[place])
        self._refused.note(edition, refused, read)
        if refused:
            signed = "" if edition.signing is None else " with a valid signature"
            into.shortfall = f"{len(refused)} values in Redis are not embeddings by {edition.space.encoder}{signed}"
            self.observer.count_rejected_features(len(refused))
