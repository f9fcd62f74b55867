"""Which replicas there are, and what each serves: this one alone, or all that hold a lease in Redis.

A replica renews its lease several times in its length, and at once when it serves another revision. Who waits for all
replicas counts those that hold a lease. So one that has lost its lease was not waited for, and may serve what was
replaced, until it has registered again and read the journal after that (`Membership.silence_s`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from feature_cache.remote.link import FAULTS, Link
from feature_cache.signing import Signing
from service.errors import JournalError
from service.settings.options import ReplicaOptions
from service.versions.members import (
    MAX_REASON,
    WHOLE,
    Failure,
    Identity,
    Member,
    Report,
    decode_report,
    encode_report,
)
from service.versions.replica import Replica
from service.versions.stored_members import StoredMembers

logger = logging.getLogger(__name__)

DISTRIBUTION = "vip5-serve"
TIMEOUT_S = 5.0
RETRY_S = 0.5
BEATS_PER_LEASE = 5
SETTLING_S = 0.02
"""Interval at which rankings that use what was replaced are looked at, while there are any."""
FORGET_S = 600.0
"""A replica that was lost for so long is not listed any more."""
SKIPPED = "replicas have entries in Redis that cannot be read or are not signed as they must be, and are not counted"


@dataclass(frozen=True)
class Members:
    """The replicas that are known, this one among them, and what keeps others from being known."""

    members: Sequence[Member]
    problem: str = ""
    is_complete: bool = True
    """False while Redis does not answer, so that others may be there."""


class Membership(Protocol):
    """The replicas of a service."""

    @property
    def problems(self) -> Sequence[str]:
        """Faults for the operator."""
        ...

    @property
    def silence_s(self) -> float:
        """Seconds for which others may not count this replica in, or it may not have followed them."""
        ...

    async def known(self) -> Members:
        """All replicas, the lost ones included."""
        ...


class Alone:
    """The only replica."""

    problems: Sequence[str] = ()
    silence_s = 0.0

    def __init__(self, replica: Replica, options: ReplicaOptions) -> None:
        self._replica = replica
        self._identity = new_identity(options.name)
        self._lease_s = options.lease_s

    async def known(self) -> Members:
        return Members([Member(report_of(self._replica, self._identity), 0.0, self._lease_s, is_self=True)])


class RedisMembership:
    """Used on the event loop only."""

    def __init__(
        self, link: Link, service_id: str, replica: Replica, options: ReplicaOptions, signing: Signing | None = None
    ) -> None:
        self._link = link
        self._replica = replica
        self._identity = new_identity(options.name)
        self._lease_s = options.lease_s
        self._stored = StoredMembers(link, service_id, options.lease_s + FORGET_S)
        self._signer = None if signing is None else signing.signer("replicas", service_id)
        self._problem = ""
        self._told: Mapping[str, int] = {}
        self._beat_at = -math.inf
        self._confirmed_at = time.monotonic()
        self._rejoined_at: float | None = None  # and the journal was not read since

    @property
    def problems(self) -> Sequence[str]:
        return [self._problem] if self._problem else []

    @property
    def silence_s(self) -> float:
        self._confirm()
        return time.monotonic() - self._confirmed_at

    async def join(self) -> None:
        """Register, and follow the journal once more: who waits for a change made from now on waits for this replica.

        If Redis does not answer, it is tried again in `run`.
        """
        await self._beat()
        with suppress(JournalError):
            await self._replica.catch_up()

    async def run(self) -> None:
        """Renew the lease until cancelled, and say at once what is new."""
        while True:
            if await self._beat():
                await self._until_due()
            else:
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Give the lease up, so that nobody waits for it."""
        try:
            with suppress(*FAULTS):
                async with asyncio.timeout(TIMEOUT_S):
                    await self._stored.leave(self._identity.id)
        finally:
            await self._link.close()

    async def known(self) -> Members:
        own = Member(report_of(self._replica, self._identity), 0.0, self._lease_s, is_self=True)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                stored = await self._stored.listed()
        except FAULTS as error:
            problem = f"Redis, which knows the other replicas, does not answer: {_reason(error)}"
            return Members([own], problem, is_complete=False)
        others = [each for each in stored if each.id != self._identity.id]
        reports = [(decode_report(each.id, each.content, self._signer), each.age_s) for each in others]
        members = [own, *(Member(report, age_s, self._lease_s) for report, age_s in reports if report is not None)]
        return Members(members, SKIPPED if len(members) <= len(others) else "")

    def _confirm(self) -> None:
        """The last heartbeat counts if the lease had not ended before it, or the journal was read after it."""
        if self._rejoined_at is not None and self._replica.progress.applied_at >= self._rejoined_at:
            self._rejoined_at = None
        if self._rejoined_at is None:
            self._confirmed_at = max(self._confirmed_at, self._beat_at)

    async def _until_due(self) -> None:
        """Wait until there is something new to say, or the lease has to be renewed."""
        progress, loop = self._replica.progress, asyncio.get_running_loop()
        due_at = loop.time() + self._lease_s / BEATS_PER_LEASE
        while loop.time() < due_at and not progress.has_news.is_set() and progress.revisions() == self._told:
            until = due_at if progress.is_settled else min(due_at, loop.time() + SETTLING_S)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await progress.has_news.wait()

    async def _beat(self) -> bool:
        """Renew the lease; whether Redis has answered."""
        self._confirm()
        self._replica.progress.has_news.clear()
        report = report_of(self._replica, self._identity)
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(min(TIMEOUT_S, self._lease_s)):
                await self._stored.beat(self._identity.id, encode_report(report, self._signer))
        except FAULTS as error:
            if not self._problem:
                logger.warning("replica_not_registered", extra={"reason": f"{type(error).__name__}: {error}"})
            self._problem = (
                f"this replica cannot say in Redis what it serves ({_reason(error)}), so changes that wait for all "
                "replicas do not wait for it"
            )
            return False
        if time.monotonic() - self._beat_at > self._lease_s:
            self._rejoined_at = time.monotonic()
        self._problem, self._told, self._beat_at = "", report.revisions, began_at
        return True


def new_identity(name: str | None) -> Identity:
    host, pid = socket.gethostname(), os.getpid()
    return Identity(uuid.uuid4().hex, name or f"{host}:{pid}", host, pid, version(DISTRIBUTION), time.time())


def report_of(replica: Replica, identity: Identity) -> Report:
    """What this replica serves now."""
    journal, progress = replica.journal, replica.progress
    failures = {name: Failure(replica.state(name).revision, _cut(reason)) for name, reason in progress.faults.items()}
    for name in journal.lacking:
        reason = f"the journal has changes of {name!r} that this replica cannot read or that are gone"
        failures.setdefault(name, Failure(journal.revisions.get(name, 0), reason))
    if journal.is_broken and not journal.lacking:
        reason = next(iter(journal.problems), "the journal is broken")
        failures[WHOLE] = Failure(0, _cut(reason))
    return Report(
        identity,
        journal.history,
        progress.revisions(),
        failures,
        is_applying=progress.is_applying,
        behind_s=round(progress.behind_s, 3),
    )


def _cut(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"


def _reason(error: BaseException) -> str:
    return str(error) or f"no reply in time ({type(error).__name__})"
