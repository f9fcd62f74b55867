"""The journal in Redis that all replicas of a service follow (`stored_journal.py` describes its keys).

What this replica read or appended is never taken back by what it finds in Redis later. If Redis holds a beginning of it
(an older backup, a lagging server after a fail-over, nothing at all), the rest is put back, by the replica that has
the most. If Redis holds anything else, this replica serves its own state and refuses changes until `resolve`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from redis.exceptions import AuthenticationError, BusyLoadingError, ResponseError

from feature_cache.remote.link import FAULTS, Link
from feature_cache.signing import Signing
from service.errors import JournalBrokenError, JournalError, OperationConflictError, RevisionConflictError
from service.observability.metrics import JournalBreak, Metrics
from service.versions.followed_journal import FollowedJournal
from service.versions.journal import Kept, Update, conflict
from service.versions.state import AnyEntry, States
from service.versions.stored_journal import Found, NewEntry, Position, Standing, StoredJournal, new_history

logger = logging.getLogger(__name__)

BLOCK_MS = 200
TIMEOUT_S = 5.0
RETRY_S = 0.5
RECHECK_S = 5.0
"""Between looks at a snapshot that could not be read."""
MAX_TRIES = 10
ENTRIES_BETWEEN_SNAPSHOTS = 1_000
DAMAGES = ("WRONGTYPE", "exhausted the last possible ID", "equal or smaller than the target stream top item")
"""Errors of Redis that mean that a key holds something else than a journal's."""
REFUSALS = (ResponseError, AuthenticationError, BusyLoadingError)
"""Errors with which Redis says that it has not run a command."""
KINDS: Mapping[Standing, JournalBreak] = {
    "empty": "lost",
    "cut": "lost",
    "apart": "forked",
    "unnamed": "other",
    "other": "other",
}
UNANSWERED = "Redis, which stores the journal, does not answer; changes by other replicas are missing"


class RedisJournal:
    """The stream is authoritative: states are folded in its order, including this replica's own entries."""

    kind = "redis"
    is_shared = True

    def __init__(
        self,
        link: Link,
        service_id: str,
        metrics: Metrics,
        entries_between_snapshots: int = ENTRIES_BETWEEN_SNAPSHOTS,
        signing: Signing | None = None,
    ) -> None:
        self._link = link
        self._service_id = service_id
        self._metrics = metrics
        self._entries_between_snapshots = entries_between_snapshots
        self._signing = signing
        signer = None if signing is None else signing.signer("journal", service_id)
        self._stored = StoredJournal(link, service_id, signer)
        self._followed = FollowedJournal(self._stored.stream, signer)
        self._lock = asyncio.Lock()
        self._problem = ""  # of the connection
        self._break = ""
        self._refusal = ""  # of the last append
        self._recheck_at = 0.0
        self._idle_at = 0.0

    @property
    def problems(self) -> list[str]:
        return [each for each in (self._problem, self._break, self._refusal, *self._followed.problems) if each]

    @property
    def is_broken(self) -> bool:
        return bool(self._break) or self._followed.is_incomplete

    @property
    def num_unread(self) -> int:
        return len(self._followed.unread)

    @property
    def epoch(self) -> int:
        return self._followed.epoch

    @property
    def history(self) -> str:
        return self._followed.position.history

    @property
    def revisions(self) -> Mapping[str, int]:
        return {name: state.revision for name, state in self._followed.states.items()}

    @property
    def lacking(self) -> Collection[str]:
        return self._followed.lacking

    @property
    def idle_at(self) -> float:
        return self._idle_at

    async def open(self) -> States:
        try:
            return (await self.catch_up()).states
        except JournalError:
            return {}

    async def append(self, entry: AnyEntry) -> None:
        """What was appended is part of the position at once, so that its loss is noticed."""
        async with self._lock:
            with self._unconfirmed():
                async with asyncio.timeout(TIMEOUT_S):
                    is_appended = await self._append(entry)
            self._refusal = ""
        if not is_appended:
            raise conflict(entry)

    async def catch_up(self) -> Update:
        return self._taken(await self._read())

    async def changes(self) -> AsyncIterator[Update]:
        while True:
            try:
                await self._wait()
                read_at = await self._read()
            except JournalError:
                await asyncio.sleep(RETRY_S)
            else:
                if (update := self._taken(read_at)).states:
                    yield update

    def _taken(self, read_at: float) -> Update:
        """What has changed and was not taken yet, after a read."""
        if not self._followed.has_changed:
            self._idle_at = max(self._idle_at, read_at)
        return replace(self._followed.take(), read_at=read_at)

    async def resolve(self, keep: Kept) -> None:
        """Begin a new history, which the replicas on this one and on the stored one follow.

        Raises OperationConflictError, RevisionConflictError if the journal changes meanwhile, and JournalError.
        """
        async with self._lock:
            with self._faults():
                async with asyncio.timeout(TIMEOUT_S):
                    await (self._keep_served() if keep == "served" else self._keep_stored())
            self._refusal = ""
        logger.warning("journal_resolved", extra={"keep": keep, "history": self._followed.position.history})
        await self._read()

    async def close(self) -> None:
        await self._link.close()

    async def _wait(self) -> None:
        """Wait for entries. What fails here fails again when they are read, which reports it."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._stored.wait(self._followed.position.id, BLOCK_MS)
        except FAULTS:
            await asyncio.sleep(RETRY_S)

    async def _append(self, entry: AnyEntry) -> bool:
        """False if the entry is not based on the domain's last one. Raises JournalBrokenError."""
        followed, epoch = self._followed, self.epoch
        for _ in range(MAX_TRIES):
            followed.require_complete(entry.domain)
            known = followed.revision(entry.domain)
            if followed.is_signed and known < entry.revision - 1:  # a signed entry follows what has been read
                await self._read_all()
                known = followed.revision(entry.domain)
            if followed.is_signed and known != entry.revision - 1:
                return False
            history = followed.position.history or new_history()
            content = followed.next_entry(history, entry)
            new = NewEntry(history, entry.domain, known, entry.revision, content, followed.is_signed)
            found = await self._stored.append(followed.position, new, followed.unread.ids)
            if await self._settle(found) and found.result != "behind":
                return found.result == "appended"
            if self.epoch != epoch:
                return False
        raise _unsettled()

    async def _read(self) -> float:
        """Fold new entries; when that began.

        Raises JournalError while Redis does not answer, or holds another history.
        """
        began_at = time.monotonic()
        async with self._lock:
            epoch = self.epoch
            with self._faults():
                async with asyncio.timeout(TIMEOUT_S):
                    self._look_again()
                    await self._read_all()
                    await self._write_snapshot()
            if self.epoch != epoch:  # a new history, which has refused nothing
                self._refusal = ""
        return began_at

    async def _found(self) -> Found:
        for _ in range(MAX_TRIES):
            found = await self._stored.read(self._followed.position, self._followed.unread.ids)
            if await self._settle(found):
                return found
        raise _unsettled()

    async def _settle(self, found: Found) -> bool:
        """Take in what was found; false if the position had to be changed for it, so that it has to be read again.

        Raises JournalBrokenError.
        """
        if found.standing == "same":
            self._break = ""
            self._followed.take_in(found)
            return True
        if found.standing == "empty" and not self._followed.position.history:
            return True
        if self._followed.position.history in found.replaces and await self._is_complete():
            logger.warning(
                "journal_followed", extra={"before": self._followed.position.history, "now": found.head.history}
            )
            self._followed.restart()
            return False
        if self._followed.extends(found) and await self._restore(found):
            return False
        told = self._followed.difference(found)
        if told != self._break:
            self._break = told
            self._metrics.count_journal_break(KINDS[found.standing])
            logger.error("journal_broken", extra={"reason": told})
        raise JournalBrokenError(told)

    async def _is_complete(self) -> bool:
        """Whether what is stored can replace what is served; those without the secret cannot have it replaced."""
        if not self._followed.is_strict:
            return True
        probe = RedisJournal(self._link, self._service_id, self._metrics, signing=self._signing)
        await probe._read_all()
        return not probe.is_broken

    async def _read_all(self) -> Found:
        found = await self._found()
        while not found.is_last:
            found = await self._found()
        return found

    async def _restore(self, found: Found) -> bool:
        """Put back what Redis has lost of this replica's history; false if that cannot be done."""
        followed = self._followed
        if not followed.has_entries:
            if followed.states:
                return False
            followed.restart()
            return True
        links = followed.links_after(found.head.id)
        content = followed.content(followed.position.history)
        reply = await self._stored.restore(found.head, followed.position, content, links, followed.replaces)
        if reply > 0:
            self._metrics.count_journal_break("behind")
            logger.warning("journal_restored", extra={"before": found.head.id, "now": followed.position.id})
        return reply >= 0

    async def _keep_served(self) -> None:
        followed = self._followed
        try:
            found = await self._stored.read(followed.position, ())
        except ResponseError as error:
            if not _is_damage(error):
                raise
            expected: Position | None = None
            replaces: tuple[str, ...] = ()
        else:
            expected, replaces = found.head, (found.head.history, *found.replaces)
            if found.standing == "same":
                await self._found()
                expected = followed.position
        history = new_history()
        position = await self._stored.begin(
            expected, history, followed.content(history), (followed.position.history, *replaces, *followed.replaces)
        )
        if position is None:
            raise _moved()
        followed.begin(position)
        self._break = self._problem = ""

    async def _keep_stored(self) -> None:
        if not self._break:
            raise OperationConflictError(
                "this replica follows what Redis holds, so there is nothing else to keep; to replace what Redis holds "
                'by what this replica serves, send {"keep": "served"}'
            )
        probe = RedisJournal(self._link, self._service_id, self._metrics, signing=self._signing)
        found = await probe._read_all()
        if probe.is_broken:
            raise JournalBrokenError(
                "what Redis holds cannot be kept, because it is incomplete: "
                f'{"; ".join(probe.problems)}; send {{"keep": "served"}} to a replica that serves the right state'
            )
        before = self._followed.position.history, *self._followed.replaces
        replaces = (found.head.history, *found.replaces, *before)
        if not self._followed.is_signed:
            is_done = await self._stored.rename(found.head, replaces)
        else:  # signatures of the stored history are not valid in another one
            history = new_history()
            content = probe._followed.content(history)
            is_done = bool(await self._stored.begin(found.head, history, content, replaces))
        if not is_done:
            raise _moved()

    def _look_again(self) -> None:
        """Read everything again from time to time while the snapshot cannot be read: it may have been repaired."""
        now = asyncio.get_running_loop().time()
        if self._followed.snapshot_fault and now >= self._recheck_at:
            self._recheck_at = now + RECHECK_S
            self._followed.read_again()

    async def _write_snapshot(self) -> None:
        """Unread entries are never trimmed: a release that can read them needs those before them, too."""
        followed = self._followed
        is_due = followed.num_entries >= self._entries_between_snapshots
        if is_due and not followed.unread and not followed.is_incomplete:
            await self._stored.write_snapshot(followed.position, followed.content(followed.position.history).states)
            followed.num_entries = 0

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn faults of Redis into a problem and a JournalError."""
        try:
            yield
        except JournalError:
            self._problem = ""
            raise
        except FAULTS as error:
            problem = UNANSWERED
            if isinstance(error, REFUSALS):
                problem = f"Redis, which stores the journal, refuses to read it ({error}); changes are missing"
            if isinstance(error, ResponseError) and _is_damage(error):
                problem = (
                    f"a key of the journal {self._stored.stream} in Redis is not a journal's ({error}); this replica "
                    "serves its own state and refuses changes until POST /admin/journal/resolve with "
                    '{"keep": "served"} stores that again; the keys are kept under other names'
                )
            if self._problem != problem:
                logger.warning("journal_lost", extra={"reason": f"{type(error).__name__}: {error}"})
            self._problem = problem
            raise JournalError(problem) from error
        self._problem = ""

    @contextmanager
    def _unconfirmed(self) -> Iterator[None]:
        """Faults while something is written, which may have been done nevertheless."""
        try:
            yield
        except FAULTS as error:
            if isinstance(error, REFUSALS):
                self._refusal = f"Redis, which stores the journal, refused the last change, which was not made: {error}"
                raise JournalError(self._refusal) from error
            raise JournalError(
                "Redis, which stores the journal, did not confirm the change, so it may have been made or not; check "
                "the domain's current state before you retry"
            ) from error


def _is_damage(error: ResponseError) -> bool:
    return any(each in str(error) for each in DAMAGES)


def _unsettled() -> JournalError:
    return JournalError("the journal in Redis changes faster than this replica can follow; retry")


def _moved() -> RevisionConflictError:
    return RevisionConflictError("the journal in Redis has changed meanwhile; look at its problems again and retry")
