"""Replicas as processes that are asked without a pause while they are changed, and what each answer may be."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from model.bundle.manifest import file_record
from tests.e2e.load import PATIENCE_S
from tests.e2e.processes import Server, serving
from tests.service.live import AUTHORIZED

PATH = "/recommend/sequential"
BROKEN = 0
"""The status of a request whose connection broke."""
NUM_REQUESTS = 24
PAUSE_S = 0.01
"""Between an answer and the next request of a client, which leaves the processor to changes."""


def hashes_of(bundles: Path) -> dict[str, str]:
    """Hashes of all bundles in a folder by their names."""
    return {folder.name: file_record(folder / "manifest.json").sha256 for folder in bundles.iterdir()}


@dataclass(frozen=True)
class State:
    """What is served: the catalog's revision, and the hashes of the bundles that answer."""

    revision: int
    stable: str
    canary: str | None = None

    def allows(self, answer: Mapping[str, Any]) -> bool:
        return answer["catalog_revision"] == self.revision and answer["bundle"] in {self.stable, self.canary}


@dataclass(frozen=True)
class Change:
    """A change that all replicas served when it was answered."""

    sent_at: float
    answered_at: float
    state: State


@dataclass(frozen=True)
class Seen:
    """One request to one replica, and its answer."""

    replica: str
    sent_at: float
    received_at: float
    status: int
    number: int
    """Of the request."""
    body: Mapping[str, Any] = field(default_factory=dict)


def request_of(number: int) -> dict[str, Any]:
    history = [f"item-{place}" for place in range(number + 1, number + 8)]
    return {"domain": "toys", "history": history, "k": 5, "user_id": f"user {number}", "deadline_ms": 600_000}


@dataclass
class Replica:
    """A process, and a client that asks it all the time."""

    name: str
    server: Server
    seen: list[Seen] = field(default_factory=list)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.server.process.pid, number)

    async def ask(self, client: httpx.AsyncClient, number: int) -> Seen:
        sent_at = time.monotonic()
        try:
            response = await client.post(PATH, json=request_of(number))
        except httpx.TransportError:
            return Seen(self.name, sent_at, time.monotonic(), BROKEN, number)
        return Seen(self.name, sent_at, time.monotonic(), response.status_code, number, response.json())

    async def keep_asking(self) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE_S) as client:
            for number in itertools.count():
                self.seen.append(await self.ask(client, number % NUM_REQUESTS))
                if self.seen[-1].status == BROKEN:
                    break
                await asyncio.sleep(PAUSE_S)


class Fleet:
    """Mutable: replicas that come and go, and the changes that were made."""

    def __init__(self, bundle: Path, environment: Mapping[str, str], first: State) -> None:
        self.replicas: dict[str, Replica] = {}
        self.changes = [Change(0.0, 0.0, first)]
        self._bundle = bundle
        self._environment = environment
        self._processes = ExitStack()
        self._running = AsyncExitStack()

    @property
    def state(self) -> State:
        return self.changes[-1].state

    async def start(self, name: str) -> Replica:
        """Start a replica, and ask it from when it is ready."""
        context = serving(self._bundle, {**self._environment, "VIP5_REPLICA_NAME": name})
        server = await asyncio.to_thread(self._processes.enter_context, context)
        replica = self.replicas[name] = Replica(name, server)
        await self._running.enter_async_context(_kept(replica))
        return replica

    async def change(
        self, at: str, method: str, path: str, body: Mapping[str, Any] | None = None, **state: int | str | None
    ) -> dict[str, Any]:
        """Make a change at one replica that all serve when it is answered. `state` is what it changes of the state."""
        sent_at = time.monotonic()
        response = await self.admin(at, method, f"/domains/toys{path}?wait=all&timeout_s={PATIENCE_S:g}", body)
        assert response.status_code == 200, response.text
        self.changes.append(Change(sent_at, time.monotonic(), replace(self.state, **state)))  # type: ignore[arg-type]
        answer: dict[str, Any] = response.json()
        return answer

    async def admin(self, at: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.replicas[at].server.url, timeout=2 * PATIENCE_S) as client:
            content = {} if body is None else {"json": body}
            return await client.request(method, f"/admin{path}", headers=AUTHORIZED, **content)  # type: ignore[arg-type]

    async def more(self, number: int) -> None:
        """Wait until every replica that lives has given so many further answers."""
        live = [each for each in self.replicas.values() if each.server.process.poll() is None]
        due = {each.name: len(each.seen) + number for each in live}
        async with asyncio.timeout(PATIENCE_S):
            while any(len(each.seen) < due[each.name] for each in live):  # noqa: ASYNC110  # clients in the loop
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self._running.aclose()
        await asyncio.to_thread(self._processes.close)


@asynccontextmanager
async def _kept(replica: Replica) -> AsyncIterator[None]:
    task = asyncio.create_task(replica.keep_asking())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def allowed(seen: Seen, changes: Sequence[Change]) -> Sequence[State]:
    """What an answer may be from: the last state that all served when it was asked for, or one that came meanwhile."""
    first = bisect.bisect_right([each.answered_at for each in changes], seen.sent_at) - 1
    last = bisect.bisect_right([each.sent_at for each in changes], seen.received_at)
    return [each.state for each in changes[first:last]]


def wrong(every: Sequence[Seen], changes: Sequence[Change]) -> Iterator[str]:
    """Answers that are from another state than they may be."""
    for seen in every:
        states = allowed(seen, changes)
        if seen.status == 200 and not any(state.allows(seen.body) for state in states):
            given = {name: seen.body[name] for name in ("catalog_revision", "bundle")}
            yield f"{seen.replica} answered from {given}, allowed are {states}"


def differing(every: Sequence[Seen], changes: Sequence[Change]) -> Iterator[str]:
    """Requests to which replicas that are at the same state have given different answers."""
    found: dict[tuple[State, int], tuple[str, list[str]]] = {}
    for seen in every:
        states = allowed(seen, changes)
        if seen.status != 200 or len(states) != 1:
            continue
        answer = seen.body["bundle"], [each["item_id"] for each in seen.body["items"]]
        if found.setdefault((states[0], seen.number), answer) != answer:
            yield f"{seen.replica} at {states[0]} answered {answer}, another {found[states[0], seen.number]}"
