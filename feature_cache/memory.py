"""Embeddings kept in this process: bounded, and not to be flushed by a scan.

The policy is W-TinyLFU (theine's): what is seen once does not push out what is asked for often. Belongs to one event
loop; knows nothing of Redis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from theine_core import TlfuCore, spread

ENTRY_BYTES = 500  # of everything about an entry but its row; see tests/unit/feature_cache/test_memory.py
NEGATIVE_LIFE_S = 0.5
LOOKUPS_PER_SAMPLE = 4  # the policy is told of one in so many: telling it takes as long as finding the rows


@dataclass(frozen=True, slots=True)
class Entry:
    """A row, or for a while the knowledge that there is none."""

    token: int
    item_id: str
    row: bytes | None
    expires_at: float  # on the clock of time.monotonic; infinite for rows


class ProcessTier:
    """Rows by item, and by the token of the edition that they belong to."""

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
        """Make room by rows of this size. Wider ones than before leave room for fewer, so everything is dropped."""
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
            # Two items may share a place: the entry says whose it is.
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
        """Keep a row, or that there is none, if the policy admits it."""
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
