"""In-process cache of embeddings, bounded in bytes.

Eviction follows W-TinyLFU (theine's): items that are requested once do not evict those that are requested often. Not
thread-safe, so it belongs to one event loop. Knows nothing of Redis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from theine_core import TlfuCore, spread

ENTRY_BYTES = 500  # size of an entry without its row; measured by tests/unit/feature_cache/test_memory.py
NEGATIVE_LIFE_S = 0.5
LOOKUPS_PER_SAMPLE = 4  # the policy records one lookup in four: recording takes as long as finding the rows


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, or None for an item that has no embedding, which is remembered for a short time."""

    token: int
    item_id: str
    row: bytes | None
    expires_at: float  # on the clock of time.monotonic; infinite for rows


class ProcessTier:
    """Rows by item, and by the token of the edition they belong to."""

    def __init__(self, max_bytes: int, negative_life_s: float = NEGATIVE_LIFE_S) -> None:
        self._max_bytes = max_bytes
        self._negative_life_s = negative_life_s
        self._row_bytes = 0
        self._entries: dict[int, Entry] = {}
        self._policy = TlfuCore(1)
        self._num_lookups = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def max_entries(self) -> int:
        return self._max_bytes // (self._row_bytes + ENTRY_BYTES)

    def fit(self, row_bytes: int) -> None:
        """Size the cache for rows of this many bytes. If they are larger than before, all entries are dropped."""
        if row_bytes > self._row_bytes:
            self._row_bytes = row_bytes
            self._entries.clear()
            self._policy = TlfuCore(max(1, self.max_entries))

    def get_many(self, token: int, item_ids: Sequence[str]) -> list[Entry | None]:
        entries: list[Entry | None] = []
        found: list[int] = []
        for item_id in item_ids:
            place = spread(hash((token, item_id)))
            entry = self._entries.get(place)
            # Two items may have the same hash, so the entry names its item.
            is_it = entry is not None and entry.item_id == item_id and entry.token == token
            if entry is None or not is_it or (entry.row is None and entry.expires_at <= time.monotonic()):
                entries.append(None)
            else:
                entries.append(entry)
                found.append(place)
        self._num_lookups += 1
        if self._num_lookups % LOOKUPS_PER_SAMPLE == 0:
            self._policy.access(found)
        return entries

    def put(self, token: int, item_id: str, row: bytes | None) -> None:
        """Keep a row, or the fact that there is none, if the policy admits it."""
        if not self.max_entries:
            return
        expires_at = float("inf") if row is not None else time.monotonic() + self._negative_life_s
        place = spread(hash((token, item_id)))
        self._entries[place] = Entry(token, item_id, row, expires_at)
        for evicted in self._policy.set([(place, 0)]):
            self._entries.pop(evicted, None)

    def drop(self, token: int, item_id: str) -> None:
        place = spread(hash((token, item_id)))
        if self._entries.pop(place, None) is not None:
            self._policy.remove(place)
