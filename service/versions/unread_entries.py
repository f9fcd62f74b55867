"""Entries in Redis that this release cannot read: they stay there, are skipped once, and are reported until deleted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import islice

logger = logging.getLogger(__name__)

MAX_TRACKED = 100
MAX_NAMED = 3


class UnreadEntries:
    """Mutable. Ids and reasons of the first entries, and the number of the others."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._reasons: dict[str, str] = {}
        self._num_more = 0
        self._new: dict[str, str] = {}
        self.domains: set[str] = set()
        """Domains that have changes among them."""

    def __len__(self) -> int:
        return len(self._reasons) + self._num_more

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._reasons)

    def add(self, entry_id: str, reason: str) -> None:
        if len(self._reasons) < MAX_TRACKED:
            self._reasons[entry_id] = self._new[entry_id] = reason
        else:
            self._num_more += 1

    def keep(self, present: Iterable[str]) -> None:
        """Forget the entries that are not in the stream any more."""
        self._reasons = {each: self._reasons[each] for each in present}
        if not self._reasons and not self._num_more:
            self.domains.clear()

    def log(self) -> None:
        """Once for each time that entries were read."""
        if self._new:
            reasons: Mapping[str, str] = dict(islice(self._new.items(), MAX_NAMED))
            logger.error("journal_entries_unread", extra={"number": len(self), "entries": reasons})
            self._new.clear()

    @property
    def problem(self) -> str:
        if not self:
            return ""
        named = "; ".join(f"{entry_id}: {reason}" for entry_id, reason in islice(self._reasons.items(), MAX_NAMED))
        domains = f" (changes of {', '.join(sorted(self.domains))} among them)" if self.domains else ""
        number = "1 entry" if len(self) == 1 else f"{len(self)} entries"
        more = "; …" if len(self) > MAX_NAMED else ""
        return (
            f"the journal {self._stream} in Redis has {number} that cannot be read, kept and not served"
            f"{domains}: {named}{more}; start a release that reads them, or delete those that no release wrote with "
            f"XDEL {self._stream} ID"
        )
