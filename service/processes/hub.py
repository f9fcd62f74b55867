"""The engine process's side of all workers: what each serves, and what it asks for."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from model.errors import EngineError
from service.channel.channel import Channel
from service.channel.messages import (
    Abandon,
    Acknowledged,
    Admit,
    AskHistories,
    Call,
    Count,
    Counted,
    Discard,
    Forgotten,
    FromWorker,
    GiveUp,
    Hello,
    Listen,
    Listening,
    Prepare,
    Publish,
    Ready,
    Received,
    Settled,
    Status,
    Stop,
    Submit,
)
from service.processes.engine_calls import EngineCalls, HubParts
from service.processes.engine_jobs import EngineJobs
from service.processes.held_versions import HeldVersions
from service.processes.history_calls import HistoryCalls
from service.processes.version_numbers import VersionNumbers
from service.versions.building import state_of_version
from service.versions.domain_version import DomainVersion, PlacedDomain
from service.versions.domains import Domains, Serving
from service.versions.formats import encode_states
from service.versions.state import DomainState

logger = logging.getLogger(__name__)


REPLACE_S = 60.0
"""A worker takes seconds to start."""


class WorkerLink:
    """One worker's connection."""

    def __init__(self, hub: Hub, number: int, end: Callable[[str], None]) -> None:
        """`end(reason)` ends the worker's process."""
        self.number = number
        self.end = end
        self.heard_at = time.monotonic()
        self.status = Status([], None, {}, {})
        self.is_greeted = asyncio.Event()
        self.is_listening = asyncio.Event()
        self.is_lost = asyncio.Event()
        self._hub = hub
        self.faults: list[str] = []
        """Messages that the worker could not follow."""
        self.is_answering = False
        """It may answer requests, so that changes wait for it."""
        self._held = HeldVersions(f"of worker {number}")
        self._awaited: dict[int, asyncio.Future[str | None]] = {}
        self._preparing: dict[int, int] = {}  # numbers of versions, by change
        self._told: asyncio.Future[str | None] | None = None
        self._when_lost: tuple[Callable[[], None], ...] = ()
        self._channel: Channel
        self._shared: socket.socket
        self._jobs: EngineJobs
        self._calls: EngineCalls
        self._histories: HistoryCalls

    async def connect(self, connected: socket.socket, shared: socket.socket, parts: HubParts) -> None:
        """Take over the sockets to the worker: for messages, and for descriptors of shared memory."""
        shared.setblocking(False)  # noqa: FBT003  # the standard library's signature
        self._shared = shared
        self._channel = await Channel.over(connected, FromWorker, self._handle, self._lost)
        self._jobs = EngineJobs(parts.lanes, self._channel, self._held.get)
        self._calls = EngineCalls(parts.app, self._channel, parts.background)
        self._histories = HistoryCalls(parts.histories, self._channel, parts.background)
        self._when_lost = self._jobs.abandon_all, self._calls.end_all

    @property
    def versions(self) -> list[str]:
        """Names of the domains' versions that the worker has."""
        return [each.ref.version for each in self._held.versions]

    def close(self) -> None:
        self._channel.close()
        self._shared.close()

    def listen(self) -> None:
        """Let the worker answer requests. It has followed all that it was told."""
        self.is_answering = True
        self._held.begin_answering()
        self._channel.send(Listen())

    async def catch_up(self) -> None:
        """Wait until the worker has followed all that it was told, also meanwhile."""
        while self._awaited:
            await asyncio.wait(list(self._awaited.values()))

    def stop(self) -> None:
        """Let the worker complete what runs and end."""
        self._channel.send(Stop())

    # Versions

    def prepare(self, name: str, version: DomainVersion) -> asyncio.Future[str | None] | None:
        """Let the worker build a version; the acknowledgement, which is an error or None.

        None if it has the version, or is lost.
        """
        number = self._hub.numbers.of_version(version)
        if number in self._held or self.is_lost.is_set():
            return None
        self._held.add(number, version)
        acknowledged, change = self._expect()
        self._preparing[change] = number
        placed = version.placed
        ref = (version.ref.bundle, version.ref.bundle_hash, version.ref.domain)
        placement_number = self._hub.numbers.of_placement(placed)
        state = encode_states({name: state_of_version(version)})
        has_index = self._send_index(placed)
        self._channel.send(Prepare(change, number, name, placed.slot, ref, placement_number, state, has_index))
        return acknowledged

    def _send_index(self, placed: PlacedDomain) -> bool:
        """Share the memory of a large catalog with the worker; whether there is any."""
        index = placed.opened.files.index
        if index is None:
            return False
        try:
            socket.send_fds(self._shared, [b"!"], [index.memory.descriptor])
        except OSError as error:  # the worker is gone, or does not read
            self.end(f"it does not take shared memory: {error}")
        return True

    def publish(self, name: str, serving: Serving) -> asyncio.Future[str | None]:
        """Let the worker route requests to these versions; the acknowledgement."""
        for version in serving.versions.values():
            self.prepare(name, version)  # for a worker that came in between
        acknowledged, change = self._expect()
        state = encode_states({name: DomainState(roles=serving.roles, has_roles=True)})
        numbers = [self._hub.numbers.of_version(serving.versions[ref]) for ref in serving.roles.refs]
        self._channel.send(Publish(change, name, state, numbers))
        return acknowledged

    def tell(self, waiting_for: Mapping[str, str], *, is_draining: bool) -> asyncio.Future[str | None]:
        """Let the worker accept or refuse requests for these reasons; the acknowledgement."""
        self._told, change = self._expect()
        self._channel.send(Ready(change, dict(waiting_for), is_draining))
        return self._told

    @property
    def is_told(self) -> bool:
        """Whether the worker has followed the last `tell`."""
        return self._told is None or self._told.done()

    def discard(self, version: DomainVersion) -> None:
        number = self._hub.numbers.of_version(version)
        if number in self._held:
            self._channel.send(Discard(number))

    def _expect(self) -> tuple[asyncio.Future[str | None], int]:
        change = next(self._hub.changes)
        acknowledged: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if self.is_lost.is_set():
            acknowledged.set_result(None)
        else:
            self._awaited[change] = acknowledged
        return acknowledged, change

    # What the worker says

    def _handle(self, message: FromWorker) -> None:
        try:
            self._dispatch(message)
        except Exception:
            logger.exception("worker_not_understood", extra={"worker": self.number})
            self.end("it said what cannot be understood")

    def _dispatch(self, message: FromWorker) -> None:
        match message:
            case Submit():
                self._jobs.submit(message)
            case Admit():
                self._jobs.admit(message)
            case GiveUp():
                self._jobs.give_up(message)
            case Abandon():
                self._jobs.abandon(message.request)
            case Call():
                self._calls.begin(message)
            case AskHistories():
                self._histories.begin(message)
            case Received():
                self._calls.receive(message)
            case Count():
                self._channel.send(self._hub.count(message))
            case _:
                self._note(message)

    def _note(self, message: Hello | Listening | Status | Acknowledged | Settled | Forgotten) -> None:
        """What the worker says of itself."""
        self.heard_at = time.monotonic()
        match message:
            case Hello():
                self.is_greeted.set()
            case Listening():
                self.is_listening.set()
            case Status():
                self._note_status(message)
            case Acknowledged():
                self._note_acknowledged(message)
            case Settled():
                self._held.settle(message.version)
            case Forgotten():
                self._held.forget(message.version)

    def _note_status(self, status: Status) -> None:
        self.status = status
        self._held.note(status.requests, status.rankings)

    def _note_acknowledged(self, message: Acknowledged) -> None:
        number = self._preparing.pop(message.number, None)
        if message.error is not None:
            self.faults.append(message.error)
            if number is not None:
                self._held.forget(number)  # it was not built
        acknowledged = self._awaited.pop(message.number, None)
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(message.error)

    def _lost(self) -> None:
        """The worker is gone: its requests are abandoned, and nothing waits for it."""
        self.is_lost.set()
        self._shared.close()
        for end in self._when_lost:
            end()
        for acknowledged in self._awaited.values():
            if not acknowledged.done():
                acknowledged.set_result(None)
        self._awaited.clear()
        self._held.forget_all()
        self._hub.links.discard(self)


class Hub:
    """All workers, as followers of what the engine process publishes."""

    def __init__(
        self,
        domains: Callable[[], Domains],
        count: Callable[[Count], Counted],
        acknowledge_s: float,
        replace_s: float = REPLACE_S,
    ) -> None:
        """`count` counts against limits. A worker that does not follow a change within `acknowledge_s` is ended.

        A change waits up to `replace_s` for the successor of a worker that could not follow it.
        """
        self.numbers = VersionNumbers()
        self.changes = itertools.count(1)
        self.links: set[WorkerLink] = set()
        self.count = count
        self._domains = domains
        self._acknowledge_s = acknowledge_s
        self._replace_s = replace_s
        self._joined = asyncio.Event()  # set for a moment when a worker begins to answer
        self._published: dict[str, list[tuple[WorkerLink, asyncio.Future[str | None]]]] = {}
        self._readiness: tuple[Mapping[str, str], bool] | None = None
        self._told: list[tuple[WorkerLink, asyncio.Future[str | None]]] = []

    async def join(self, link: WorkerLink) -> None:
        """Bring a worker that has said hello up to what is served, and let it listen. Raises EngineError.

        Changes that are made meanwhile reach it and do not wait for it.
        """
        if link.is_lost.is_set():
            return
        self.links.add(link)
        if self._readiness is not None:
            waiting_for, is_draining = self._readiness
            link.tell(waiting_for, is_draining=is_draining)
        for name, serving in self._domains().items():
            link.publish(name, serving)
        await link.catch_up()
        if link.faults:
            raise EngineError(f"worker {link.number} cannot serve what this process serves: {link.faults[0]}")
        if not link.is_lost.is_set():
            link.listen()
            self._joined.set()
            self._joined.clear()

    # Followers

    async def prepare(self, name: str, versions: Iterable[DomainVersion]) -> None:
        """A worker that cannot build a version is replaced. Raises EngineError if its successor cannot either."""
        versions = list(versions)
        faulty = await self._prepared(self.links, name, versions)
        for link, fault in faulty.items():
            await self._end(link, f"it could not build a version of {name!r}: {fault}")
        for link, fault in faulty.items():
            if (successor := await self._successor(link.number)) is None:
                again: str | None = f"{fault}; no worker took its place within {self._replace_s:g} s"
            else:
                again = (await self._prepared([successor], name, versions)).get(successor)
            if again is not None:
                raise EngineError(
                    f"worker {link.number} could not build a version of {name!r}, nor could its successor, so nothing "
                    f"was changed: {again}"
                )

    def publish(self, name: str, serving: Serving) -> None:
        self._published[name] = [(link, link.publish(name, serving)) for link in self.links]

    async def published(self, name: str) -> None:
        for link, fault in (await self._acknowledged(self._published.pop(name, []))).items():
            await self._end(link, f"it could not follow a change: {fault}")

    def discard(self, versions: Iterable[DomainVersion]) -> None:
        for version in versions:
            for link in self.links:
                link.discard(version)

    def tell(self, waiting_for: Mapping[str, str], *, is_draining: bool) -> None:
        self._readiness = waiting_for, is_draining
        self._told = [(link, link.tell(waiting_for, is_draining=is_draining)) for link in self.links]

    async def told(self) -> None:
        await self._acknowledged(self._told)

    def reasons(self) -> list[str]:
        """Why the service is not ready although this process is: workers that do not know it yet."""
        untold = sorted(link.number for link in self.links if link.is_answering and not link.is_told)
        return [f"worker {number} has not been told yet" for number in untold]

    async def _prepared(
        self, links: Iterable[WorkerLink], name: str, versions: Iterable[DomainVersion]
    ) -> dict[WorkerLink, str]:
        """Let workers build these versions; the faults."""
        sent = [(link, link.prepare(name, version)) for link in links for version in versions]
        return await self._acknowledged([(link, answer) for link, answer in sent if answer is not None])

    async def _successor(self, number: int) -> WorkerLink | None:
        """The worker that answers requests in place of one that was ended; None if there is none in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._replace_s):
                while True:
                    for link in self.links:
                        if link.number == number and link.is_answering:
                            return link
                    await self._joined.wait()
        return None

    async def _acknowledged(self, sent: list[tuple[WorkerLink, asyncio.Future[str | None]]]) -> dict[WorkerLink, str]:
        """Wait for the acknowledgements of workers that answer requests; the faults. Who is late is ended."""
        awaited = [(link, answer) for link, answer in sent if link.is_answering]
        if not awaited:
            return {}
        _, late = await asyncio.wait([answer for _, answer in awaited], timeout=self._acknowledge_s)
        for link in {link for link, answer in awaited if answer in late}:
            await self._end(link, f"it did not acknowledge a change within {self._acknowledge_s:g} s")
        return {link: fault for link, answer in awaited if answer.done() and (fault := answer.result()) is not None}

    async def _end(self, link: WorkerLink, reason: str) -> None:
        """End a worker, which must not answer as if there had been no change."""
        link.end(reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._acknowledge_s):
                await link.is_lost.wait()
