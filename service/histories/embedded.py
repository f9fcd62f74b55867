"""Histories in one process, which writes them to a file. All changes are made in order by one task.

Changes that wait are written together, with one flush to the disk. Nothing is visible before it is on the disk. An
erasure writes the file anew, without the user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from service.errors import HistoriesUnavailableError
from service.histories.events import Event, Outcome, Retention, Shown, UserKey
from service.histories.file import HistoryFile
from service.histories.memory import Batch, HistoryMemory

T = TypeVar("T")

COMPACT_BYTES = 4_000_000
"""The file is written anew when it has grown by this much and to twice its size."""
MAX_WAITING = 10_000
"""Most changes that wait for the disk."""
RETRY_S = 1


@dataclass(frozen=True)
class EmbeddedOptions:
    """The file, and the most users whose histories are kept; those who were not written for longest go first."""

    path: Path
    max_users: int
    half_life_ms: int


class _Waiting(Generic[T]):
    """A change that waits for the disk."""

    def __init__(self) -> None:
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # If its caller is gone first, an error of the change is of no interest.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())

    def resolve(self, result: T) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: HistoriesUnavailableError) -> None:
        if not self.done.done():
            self.done.set_exception(HistoriesUnavailableError(str(error), retry_after_s=error.retry_after_s))


class _Addition(_Waiting[list[Outcome]]):
    def __init__(self, events: Sequence[tuple[UserKey, Event]]) -> None:
        super().__init__()
        self.events = events


class _Showing(_Waiting[list[Outcome]]):
    def __init__(self, user: UserKey, item_ids: Sequence[str]) -> None:
        super().__init__()
        self.user, self.item_ids = user, item_ids


class _Erasure(_Waiting[int]):
    def __init__(self, user: UserKey) -> None:
        super().__init__()
        self.user = user


_Change: TypeAlias = _Addition | _Showing | _Erasure


class EmbeddedStore:
    """A HistoryStore. `run` makes the changes."""

    def __init__(self, options: EmbeddedOptions, retention: Retention, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since 1970."""
        self._clock = clock
        self._retention = retention
        self._file = HistoryFile(options.path)
        self._memory = HistoryMemory(retention, options.max_users, options.half_life_ms)
        self._waiting: list[_Change] = []
        self._has_changes = asyncio.Event()
        self._compact_at = 0
        self._is_ending = False

    def load(self) -> None:
        """Read the file, and lock it. Raises JournalError. Blocks."""
        now_ms = self._now_ms()
        for record in self._file.read():
            self._memory.replay(record, now_ms)
        self._plan_compaction()

    def close(self) -> None:
        """Blocks."""
        self._file.close()

    @property
    def is_up(self) -> bool:
        return not self._file.problem

    @property
    def problems(self) -> Sequence[str]:
        return [self._file.problem] if self._file.problem else []

    async def add(self, events: Sequence[tuple[UserKey, Event]]) -> list[Outcome]:
        addition = _Addition(events)
        self._enqueue(addition)
        return await asyncio.shield(addition.done)

    async def note_shown(self, user: UserKey, item_ids: Sequence[str]) -> None:
        showing = _Showing(user, item_ids)
        self._enqueue(showing)
        await asyncio.shield(showing.done)

    async def erase(self, user: UserKey) -> int:
        erasure = _Erasure(user)
        self._enqueue(erasure)
        return await asyncio.shield(erasure.done)

    async def read(self, user: UserKey, limit: int) -> list[Event]:
        cutoff_ms = self._retention.cutoff_ms(self._now_ms())
        return [each for each in self._memory.kept(user).events if each.at_ms > cutoff_ms][-limit:]

    async def shown(self, user: UserKey) -> list[Shown]:
        cutoff_ms = self._retention.cutoff_ms(self._now_ms())
        return [each for each in self._memory.kept(user).shown if each.at_ms > cutoff_ms]

    async def popular(self, domain: str) -> Mapping[str, float]:
        return self._memory.popular(domain, self._now_ms())

    async def run(self) -> None:
        """Make changes until `end`."""
        while not self._is_ending or self._waiting:
            await self._has_changes.wait()
            waiting, self._waiting = self._waiting, []
            if not self._is_ending:
                self._has_changes.clear()
            try:
                await self._make(waiting)
            finally:
                for each in waiting:  # after an unexpected error, which `run` raises
                    each.fail(_refusal("the change failed, and the log has the cause"))

    def end(self) -> None:
        """Let `run` return once nothing waits."""
        self._is_ending = True
        self._has_changes.set()

    def _enqueue(self, change: _Change) -> None:
        """Its result is to be awaited shielded: what is on its way to the disk gets there without its caller, too."""
        if self._is_ending or len(self._waiting) >= MAX_WAITING:
            raise _refusal("too many changes of histories wait for the disk, or the service is ending")
        self._waiting.append(change)
        self._has_changes.set()

    async def _make(self, changes: Sequence[_Change]) -> None:
        for is_erasure, group in groupby(changes, lambda each: isinstance(each, _Erasure)):
            if is_erasure:
                await self._erase([each for each in group if isinstance(each, _Erasure)])
            else:
                await self._write([each for each in group if not isinstance(each, _Erasure)])
        if self._file.num_bytes > self._compact_at:
            await self._compact()

    async def _write(self, changes: Sequence[_Addition | _Showing]) -> None:
        """Write changes to the file, then make them visible."""
        batch = Batch(self._memory, self._now_ms())

        def applied() -> list[list[Outcome]]:
            outcomes = [_apply(each, batch) for each in changes]
            if batch.records:
                self._file.append(batch.records)
            return outcomes

        try:
            outcomes = await asyncio.to_thread(applied)  # lists of events take long enough to hold up the event loop
        except HistoriesUnavailableError as error:
            for each in changes:
                each.fail(error)
            return
        batch.commit()
        for each, found in zip(changes, outcomes, strict=True):
            each.resolve(found)

    async def _erase(self, erasures: Sequence[_Erasure]) -> None:
        """Write the file without these users, then forget them."""
        try:
            # Also for users who are not kept: the file may have records of users who had to go.
            await self._rewrite({each.user for each in erasures})
        except HistoriesUnavailableError as error:
            for each in erasures:
                each.fail(error)
            return
        cutoff_ms = self._retention.cutoff_ms(self._now_ms())
        for each in erasures:
            each.resolve(sum(event.at_ms > cutoff_ms for event in self._memory.forget(each.user).events))

    async def _compact(self) -> None:
        """A failure is not one of any change: it is reported, and compaction is tried again after the next one."""
        try:
            await self._rewrite(set())
        except HistoriesUnavailableError:
            return

    async def _rewrite(self, erased: set[UserKey]) -> None:
        """Raises HistoriesUnavailableError. Only `run` changes what is kept, and it waits for this."""
        await asyncio.to_thread(self._file.replace, self._memory.records(erased, self._now_ms()))
        self._plan_compaction()

    def _plan_compaction(self) -> None:
        self._compact_at = max(2 * self._file.num_bytes, self._file.num_bytes + COMPACT_BYTES)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def _apply(change: _Addition | _Showing, batch: Batch) -> list[Outcome]:
    if isinstance(change, _Showing):
        batch.show(change.user, change.item_ids)
        return []
    return [batch.add(user, event) for user, event in change.events]


def _refusal(reason: str) -> HistoriesUnavailableError:
    return HistoriesUnavailableError(f"{reason}; retry in {RETRY_S} s", retry_after_s=RETRY_S)
