"""How far this replica has come with the journal: what it serves of it, what it could not, and since when it is behind.

Does no I/O; used on the event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from service.versions.domain_version import DomainVersion
from service.versions.journal import Journal


@dataclass(frozen=True)
class _Step:
    """A state of a domain that new requests see, and the versions before it that rankings may still use."""

    epoch: int
    revision: int
    superseded: Collection[DomainVersion]


class Progress:
    """Mutable. Times are those of the monotonic clock."""

    def __init__(self, journal: Journal) -> None:
        self.has_news = asyncio.Event()
        """Set when there is something to tell other replicas."""
        self.faults: dict[str, str] = {}
        """By domain, why it is not served as the journal says."""
        self._journal = journal
        self._num_applying = 0
        self._read_at = self._applied_at = self._current_at = time.monotonic()
        self._served: dict[str, _Step] = {}
        self._steps: defaultdict[str, deque[_Step]] = defaultdict(deque)

    @property
    def is_applying(self) -> bool:
        """Whether changes of the journal are known that requests do not see yet."""
        return self._num_applying > 0

    @property
    def obstacles(self) -> Sequence[str]:
        """What keeps this replica from serving the journal as it is."""
        reasons = [*self.faults.values()]
        if self._journal.is_broken or self._journal.lacking:
            reasons += self._journal.problems
        return reasons

    @property
    def is_settled(self) -> bool:
        """Whether no ranking uses what was before the states that are served."""
        self._settle()
        return not any(self._steps.values())

    @property
    def applied_at(self) -> float:
        """The journal as it was at this time is applied, as far as it can be."""
        self._look()
        return self._applied_at

    @property
    def behind_s(self) -> float:
        """Seconds since all that the journal held was served. 0 if nobody else writes the journal."""
        if not self._journal.is_shared:
            return 0.0
        self._look()
        return time.monotonic() - self._current_at

    def revisions(self) -> Mapping[str, int]:
        """By domain, the revision of the journal's present history that every answer is from."""
        self._settle()
        epoch = self._journal.epoch
        return {name: step.revision for name, step in self._served.items() if step.epoch == epoch}

    def begin(self) -> None:
        """Changes were taken from the journal, and requests do not see them yet."""
        self._look()
        self._num_applying += 1
        self.has_news.set()

    def end(self, read_at: float) -> None:
        """They were applied as far as they can be. `read_at` is when the read of the journal that found them began."""
        self._num_applying -= 1
        self._read_at = max(self._read_at, read_at)
        self._look()
        self.has_news.set()

    def note_published(self, name: str, epoch: int, revision: int, superseded: Collection[DomainVersion]) -> None:
        """New requests see a state of a domain, in all processes."""
        self._steps[name].append(_Step(epoch, revision, superseded))
        self.has_news.set()

    def _settle(self) -> None:
        for name, steps in self._steps.items():
            while steps and not any(version.rankings.value for version in steps[0].superseded):
                self._served[name] = steps.popleft()

    def _look(self) -> None:
        if self.is_applying:
            return
        self._applied_at = max(self._applied_at, self._read_at, self._journal.idle_at)
        if not self.obstacles:
            self._current_at = self._applied_at
