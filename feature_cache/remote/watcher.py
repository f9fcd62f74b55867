"""Follows Redis: which edition is current, which items were put since, and whether Redis answers.

Polls every `refresh_s`, outside of requests. While Redis answers, what is known is at most `refresh_s` and one reply
old; while it does not, it stays as it was at the last reply.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from feature_cache.background import Backoff
from feature_cache.remote.breakers import Breakers
from feature_cache.remote.layout import Edition, EditionError, SpaceKeys
from feature_cache.remote.link import ANY_KEY, FAULTS, Link, Reply
from feature_cache.remote.timing import in_time
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace

logger = logging.getLogger(__name__)

LONGEST_POLL_S = 0.4
MOST_CHANGES = 1000  # in one poll; after more, all cached rows of the edition are dropped

ItemChanged = Callable[[int, str], None]
"""Called with an edition's token and the item that was put."""


@dataclass(frozen=True)
class Known:
    """What is known of one space.

    `token` identifies the edition in caches, and changes with every switch. `changes` counts the items put since, so
    that a row that was read before a put is not cached after it.
    """

    edition: Edition | None = None
    token: int = 0
    changes: int = 0
    problem: str = ""


class Watcher:
    """Polls Redis, and probes the nodes that requests skip."""

    def __init__(
        self, link: Link, breakers: Breakers, *, refresh_s: float, budget_s: float, signing: Signing | None = None
    ) -> None:
        self._link = link
        self._signing = signing
        self._breakers = breakers
        self._refresh_s = refresh_s
        self._budget_s = budget_s
        self._backoff = Backoff(base_s=refresh_s / 4, cap_s=refresh_s)
        self._known: dict[FeatureSpace, Known] = {}
        self._tokens = itertools.count(1)
        self._num_failures = 0
        self._has_answered = False
        self._listeners: list[ItemChanged] = []
        self._turn = asyncio.Lock()

    async def watch(self, space: FeatureSpace) -> None:
        """Follow one more space from now on, and poll once, whether or not Redis answers."""
        self._known[space] = Known(problem="Redis has not answered since the start")
        await self.poll()

    def forget(self, space: FeatureSpace) -> None:
        self._known.pop(space, None)

    def known(self, space: FeatureSpace) -> Known:
        return self._known.get(space) or Known(problem="this version of the domain is no longer served")

    @property
    def editions(self) -> list[Edition]:
        return [known.edition for known in self._known.values() if known.edition is not None]

    def on_change(self, listener: ItemChanged) -> None:
        self._listeners.append(listener)

    @property
    def is_up(self) -> bool:
        """Whether all nodes of Redis answered when they were last asked."""
        return self._has_answered and self._num_failures == 0 and not any(self._breakers.open_nodes())

    @property
    def problems(self) -> list[str]:
        """What prevents fetching, for an operator."""
        if not self.is_up:
            return ["Redis does not answer in time"]
        return sorted({known.problem for known in self._known.values() if known.problem})

    async def run(self) -> None:
        """Poll until cancelled. A Redis that does not answer is waited for; any other error is raised."""
        while True:
            async with self._turn:
                await self._poll()
            # Jitter keeps services from reconnecting all at once after an outage.
            pause_s = self._backoff.pause_s(self._num_failures) if self._num_failures else self._refresh_s
            await asyncio.sleep(pause_s)

    async def poll(self) -> None:
        """Poll once; a failure is recorded and not raised."""
        async with self._turn:
            try:
                await self._poll()
            except Exception:
                logger.exception("feature_watch_failed")

    async def _poll(self) -> None:
        """Raises only what Redis cannot cause."""
        try:
            async with asyncio.timeout(max(LONGEST_POLL_S, 4 * self._budget_s)):
                if not self.is_up:
                    await self._link.refresh()
                await self._learn_all()
            await self._probe()
        except FAULTS as error:
            self._note_failure(error)
        except Exception as error:
            self._note_failure(error)
            raise
        else:
            if self._num_failures or not self._has_answered:
                logger.info("redis_answers", extra={"after_failures": self._num_failures})
            self._num_failures, self._has_answered = 0, True

    def _note_failure(self, error: Exception) -> None:
        if not self._num_failures:
            logger.warning("redis_lost", extra={"reason": f"{type(error).__name__}: {error}"})
        self._num_failures += 1

    async def _probe(self) -> None:
        """Let requests use a node again once it answers within their time budget. Raises one of FAULTS."""
        for node in self._breakers.open_nodes():
            async with self._breakers.guard(node):
                await in_time(self._link.ping(node), asyncio.get_running_loop().time() + self._budget_s)

    async def _learn_all(self) -> None:
        commands: list[Sequence[str | int]] = []
        spaces = list(self._known)
        for space in spaces:
            keys, edition = SpaceKeys(space), self._known[space].edition
            version, revision = (edition.version, edition.revision) if edition else ("", 0)
            commands.append(("HGETALL", keys.current))
            commands.append(("XRANGE", keys.changes(version), f"({revision}-0", "+", "COUNT", MOST_CHANGES))
        if not commands:  # nothing else shows whether Redis answers
            await self._link.run("EXISTS", ANY_KEY)
            return
        replies = await self._link.run_all(commands)
        faults = []
        for place, space in enumerate(spaces):
            if space not in self._known:  # forgotten during the poll
                continue
            record, changes = replies[2 * place : 2 * place + 2]
            if isinstance(record, FAULTS) or isinstance(changes, FAULTS):
                faults.append(record if isinstance(record, FAULTS) else changes)
            else:
                self._learn(space, record, changes)
        if faults:
            raise faults[0]

    def _learn(self, space: FeatureSpace, record: Mapping[bytes, bytes], changes: Reply) -> None:
        known = self._known[space]
        if not record:
            self._known[space] = Known(
                problem=f"Redis holds no embeddings of {space.domain} by {space.encoder}; load them"
            )
            return
        try:
            edition = Edition.parse(space, record, self._signing)
        except EditionError as error:
            self._known[space] = Known(problem=str(error))
            return
        old = known.edition
        if old is None or replace(old, num_items=0, revision=0) != replace(edition, num_items=0, revision=0):
            logger.info("features_switched", extra={"domain": space.domain, "version": edition.version})
            self._known[space] = Known(edition, next(self._tokens))
            return
        put = _items_of(changes)
        if put is None:
            logger.warning("feature_changes_refused", extra={"domain": space.domain, "num_changes": len(changes)})
            seen = max(edition.revision, old.revision + len(changes))
            self._known[space] = Known(replace(edition, revision=seen), next(self._tokens))
            return
        if edition.revision > old.revision + len(put) or edition.revision < old.revision:
            # The stream no longer holds some of the changes, or holds more than one poll reads.
            self._known[space] = Known(edition, next(self._tokens))
            return
        # An item put between the two commands is in the stream already, but not yet in the record.
        self._known[space] = Known(
            replace(edition, revision=old.revision + len(put)), known.token, known.changes + len(put)
        )
        for item_id in put:
            for listener in self._listeners:
                listener(known.token, item_id)


def _items_of(changes: Reply) -> list[str] | None:
    """The items that were put; None if a change does not name one, so that any item may have changed."""
    try:
        return [fields[b"item_id"].decode() for _, fields in changes]
    except (KeyError, TypeError, ValueError):
        return None
