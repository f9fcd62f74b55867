"""The journal as a Redis stream that all replicas of a service follow.

Keys are `vip5:{ID}:journal` (a stream of entries as JSON), `vip5:{ID}:revisions` (a hash from each domain to the
revision of its last entry, for compare-and-set) and `vip5:{ID}:snapshot` (a hash of the `id` of an entry and the
`states` after it; older entries are trimmed).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping

from pydantic import ValidationError

from feature_cache.remote.link import FAULTS, Link, Reply
from service.errors import JournalError
from service.versions.journal import conflict, fold
from service.versions.state import ENTRIES, STATES, CatalogEntry, DomainState, FeaturesEntry, RolesEntry, States

logger = logging.getLogger(__name__)

BLOCK_MS = 200
TIMEOUT_S = 5.0
RETRY_S = 0.5
ENTRIES_BETWEEN_SNAPSHOTS = 1_000
FIRST = "0-0"

_APPEND = """
local revision = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if revision ~= tonumber(ARGV[2]) - 1 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[1], '*', 'entry', ARGV[3])
return 1
"""
# Refuses to replace a newer snapshot: the stream is trimmed up to that one, so an older one would leave a gap.
_SNAPSHOT = """
local function parts(id) local a, b = string.match(id, '(%d+)-(%d+)') return tonumber(a), tonumber(b) end
local old = redis.call('HGET', KEYS[1], 'id')
if old then
  local a, b = parts(old)
  local c, d = parts(ARGV[1])
  if a > c or (a == c and b >= d) then return 0 end
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'states', ARGV[2])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[1])
return 1
"""


class RedisJournal:
    """The stream is authoritative: states are folded in its order, including this replica's own entries."""

    kind = "redis"

    def __init__(self, link: Link, service_id: str, entries_between_snapshots: int = ENTRIES_BETWEEN_SNAPSHOTS) -> None:
        self._link = link
        self._stream, self._revisions, self._snapshot = (
            f"vip5:{{{service_id}}}:{name}" for name in ("journal", "revisions", "snapshot")
        )
        self._entries_between_snapshots = entries_between_snapshots
        self._states: States = {}
        self._last_id = self._snapshot_id = FIRST
        self._num_entries = 0
        self._lock = asyncio.Lock()
        self._problem = ""

    @property
    def problems(self) -> list[str]:
        return [self._problem] if self._problem else []

    async def open(self) -> States:
        try:
            return await self.catch_up()
        except JournalError:
            return {}

    async def append(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> None:
        text = ENTRIES.dump_json(entry)
        keys = (self._stream, self._revisions)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                is_first = await self._link.run("EVAL", _APPEND, 2, *keys, entry.domain, entry.revision, text)
        except FAULTS as error:
            raise JournalError(
                "Redis, which stores the journal, did not confirm the change, so it may have been made or not; check "
                "the domain's current state before you retry"
            ) from error
        if not is_first:
            raise conflict(entry)

    async def catch_up(self) -> States:
        return await self._read(block_ms=None)

    async def changes(self) -> AsyncIterator[States]:
        while True:
            try:
                states = await self._read(BLOCK_MS)
            except JournalError:
                await asyncio.sleep(RETRY_S)
            else:
                if states:
                    yield states

    async def close(self) -> None:
        await self._link.close()

    async def _read(self, block_ms: int | None) -> States:
        """Fold new entries; the states that changed. Raises JournalError while Redis does not answer."""
        try:
            async with self._lock, asyncio.timeout(TIMEOUT_S):
                before = self._states
                if self._last_id == FIRST:
                    await self._read_snapshot()
                await self._read_entries(block_ms)
                await self._write_snapshot()
        except FAULTS as error:
            if not self._problem:
                logger.warning("journal_lost", extra={"reason": f"{type(error).__name__}: {error}"})
            self._problem = "Redis, which stores the journal, does not answer; changes by other replicas are missing"
            raise JournalError(self._problem) from error
        self._problem = ""
        return {name: state for name, state in self._states.items() if before.get(name) is not state}

    async def _read_snapshot(self) -> None:
        found = await self._link.run("HGETALL", self._snapshot)
        if found:
            self._states = STATES.validate_json(found[b"states"])
            self._last_id = self._snapshot_id = found[b"id"].decode()

    async def _read_entries(self, block_ms: int | None) -> None:
        options = () if block_ms is None else ("BLOCK", block_ms)
        found = await self._link.run("XREAD", *options, "STREAMS", self._stream, self._last_id)
        for entry_id, fields in _entries(found):
            try:
                entry = ENTRIES.validate_json(fields[b"entry"])
            except ValidationError:
                logger.exception("journal_entry_refused", extra={"entry_id": entry_id.decode()})
                continue
            if self._is_gap(entry) and await self._has_newer_snapshot():
                await self._read_snapshot()  # it includes the missing entries, which were trimmed
                await self._read_entries(None)
                return
            self._states = fold(self._states, entry)
            self._last_id = entry_id.decode()
            self._num_entries += 1

    def _is_gap(self, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> bool:
        return entry.revision > self._states.get(entry.domain, DomainState()).revision + 1

    async def _has_newer_snapshot(self) -> bool:
        found = await self._link.run("HGET", self._snapshot, "id")
        return found is not None and found.decode() != self._snapshot_id

    async def _write_snapshot(self) -> None:
        if self._num_entries >= self._entries_between_snapshots:
            states = STATES.dump_json(dict(self._states))
            await self._link.run("EVAL", _SNAPSHOT, 2, self._snapshot, self._stream, self._last_id, states)
            self._num_entries = 0


def _entries(found: Reply) -> Iterator[tuple[bytes, Mapping[bytes, bytes]]]:
    """Ids and fields in XREAD's reply over RESP3."""
    for pages in (found or {}).values():
        for page in pages:
            yield from page
