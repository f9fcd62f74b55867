"""Swaps, catalog patches and canaries over workers under load, while a worker is killed and another one stopped.

Used by `python -m benchmarks.live_swaps --workers N`, which describes it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.live_workers import BROKEN, Change, Client, Seen, counts_of, uncounted, violations
from tests.e2e.children import children_of, until
from tests.e2e.live import Items, admin_of, change, live_bundles, live_environment, recomputed
from tests.e2e.load import Answer
from tests.e2e.processes import Server, serving
from tests.service.live import AUTHORIZED

BUNDLES = ("first", "second", "third")
NUM_HISTORIES = 40
NUM_KEPT = NUM_NEW = 8
"""Connections that are kept, and clients that open one for each request."""
ACKNOWLEDGE_S = 5.0
RECOVERY_S = 10.0
"""After its death a worker's connections may break for so long: that of a stopped one comes when it is ended."""
SHARE = 0.5
TOLERANCE = 1e-4


@dataclass
class Administrator:
    """Changes one domain over the engine's own address, and remembers what was answered."""

    client: httpx.AsyncClient
    hashes: dict[str, str]
    """Hashes of bundles by name."""
    item_id: str
    changes: list[Change] = field(default_factory=list)
    stable: str = "first"
    revision: int = 0

    async def cycle(self, following: str) -> None:
        """Out of stock, a swap, a canary that is promoted or ended, and back."""
        await self.patch(deactivate=[self.item_id])
        await self.made("swap", change(self.client, "POST", "/load", bundle=following, activate=True), following)
        canary = next(name for name in BUNDLES if name not in (following, self.stable))  # which is not loaded
        self.stable = following
        version = await change(self.client, "POST", "/load", bundle=canary)
        await self.made(
            "canary",
            change(self.client, "POST", "/canary", version=_version_of(version), share=SHARE),
            following,
            canary,
        )
        await self.patch(activate=[self.item_id])
        await self.made("end canary", change(self.client, "DELETE", "/canary"), following)

    async def patch(self, **changes: Any) -> None:  # noqa: ANN401  # lists of items
        self.revision += 1
        await self.made("patch", change(self.client, "PATCH", "/catalog", **changes), *self._serving())

    def _serving(self) -> tuple[str, ...]:
        names = {digest: name for name, digest in self.hashes.items()}
        return tuple(names[each] for each in self.changes[-1].bundles) if self.changes else (self.stable,)

    async def made(self, kind: str, work: Awaitable[dict[str, Any]], *bundles: str) -> None:
        sent_at = time.monotonic()
        await work
        allowed = frozenset(self.hashes[each] for each in bundles)
        self.changes.append(Change(sent_at, time.monotonic(), kind, self.revision, allowed))


def _version_of(body: dict[str, Any]) -> str:
    """The version in the role `loaded`."""
    (loaded,) = [each for each in body["versions"] if "loaded" in each["roles"]]
    return str(loaded["version"])


async def measure_changes(folder: Path, workers: int, num_requests: int, signals: Sequence[int]) -> dict[str, Any]:
    """Change a service with workers until it has answered so many requests; `signals` go to workers meanwhile."""
    live_bundles(folder, BUNDLES)
    asked = asks()
    expected, hashes, item_id = await expectation(folder, asked)
    environment = live_environment(
        folder,
        VIP5_WORKERS=str(workers),
        VIP5_ADMIN_PORT="0",
        VIP5_WORKER_ACK_S=str(ACKNOWLEDGE_S),
        VIP5_JOURNAL=str(folder / "journal"),
    )
    with serving(folder / "first", environment) as server:
        must_end, source = threading.Event(), itertools.cycle(asked)
        clients = [
            Client(server.url, asked_by(source), must_end, is_new=number < NUM_NEW)
            for number in range(NUM_NEW + NUM_KEPT)
        ]
        started_at = time.monotonic()
        for each in clients:
            each.start()
        async with admin_of(server) as client:
            administrator = Administrator(client, hashes, item_id)
            deaths = await keep_changing(server, administrator, clients, num_requests, list(signals))
            must_end.set()
            for each in clients:
                await asyncio.to_thread(each.join)
            duration_s = time.monotonic() - started_at
            counted = counts_of((await client.get("/metrics")).text)
            slots = (await client.get("/admin/domains", headers=AUTHORIZED)).json()["num_slots"]
        lines = read_lines(server)
    by_worker = Counter(line.get("worker") for line in lines if line["event"] == "request")
    seen = [each for client in clients for each in client.seen]
    own = Counter(each.status for each in seen)
    held = [violations(client.seen, administrator.changes) for client in clients]
    return {
        "workers": workers,
        "requests": len(seen),
        "seconds": round(duration_s, 1),
        "changes": dict(Counter(each.kind for each in administrator.changes)),
        "workers_killed_or_stopped": [kind for kind, _ in deaths],
        "workers_ended_by_the_service": [line["reason"] for line in lines if line["event"] == "worker_killed"],
        "failed": sum(number for status, number in own.items() if status not in (BROKEN, HTTPStatus.OK)),
        "broken_with_a_killed_worker": own[BROKEN],
        "broken_otherwise": sum(each.status == BROKEN and not is_near(each, deaths) for each in seen),
        "recomputed": own[HTTPStatus.OK],
        "mixed": sum(is_mixed(each, expected, item_id) for each in seen if each.status == HTTPStatus.OK),
        "asked_between_changes": sum(number for number, _ in held),
        "violations": sum(number for _, number in held),
        "counted_by_metrics": dict(counted),
        "metrics_differ": uncounted(own, counted),
        "requests_by_worker": {str(worker): number for worker, number in sorted(by_worker.items(), key=str)},
        "slots_at_the_end": slots,
    }


async def keep_changing(
    server: Server, administrator: Administrator, clients: Sequence[Client], num_requests: int, signals: list[int]
) -> list[tuple[str, float]]:
    """Change in cycles; each signal goes to a worker in the middle of one. What was sent, and when."""
    deaths: list[tuple[str, float]] = []
    following = itertools.cycle((*BUNDLES[1:], BUNDLES[0]))
    due = [num_requests * (place + 1) // (len(signals) + 1) for place in range(len(signals))]
    while sum(len(each.seen) for each in clients) < num_requests or signals:
        running = asyncio.create_task(administrator.cycle(next(following)))
        if signals and sum(len(each.seen) for each in clients) >= due[0]:
            await asyncio.wait({running}, timeout=0.005 * len(deaths))  # begun, and not done
            each = signals.pop(0)
            del due[0]
            before = children_of(server)
            os.kill(before[len(deaths) % len(before)], each)
            deaths.append((signal.Signals(each).name, time.monotonic()))
            await running
            await asyncio.to_thread(
                until,
                lambda before=before: len(now := children_of(server)) == len(before) and set(now) != set(before),  # type: ignore[misc]
                "no worker took the place of the one that ended",
            )
        await running
    return deaths


def asked_by(source: Any) -> Any:  # noqa: ANN401  # itertools.cycle, shared by threads
    return iter(lambda: next(source), None)


def asks() -> list[dict[str, Any]]:
    drawn = np.random.default_rng(5).integers(1, 121, size=(NUM_HISTORIES, 3)).tolist()
    return [{"domain": "toys", "history": [f"item-{row}" for row in rows], "k": 5} for rows in drawn]


Expected = dict[tuple[str, str], Items]


async def expectation(folder: Path, asked: Sequence[dict[str, Any]]) -> tuple[Expected, dict[str, str], str]:
    """Items by bundle hash and request, hashes by bundle, and an item that is recommended most often."""
    everything: Expected = {}
    hashes: dict[str, str] = {}
    plain = [Answer(0, {}, dict(each)) for each in asked]
    for name in BUNDLES:
        found = await recomputed([folder / name], plain, folder)
        (hashes[name],) = {key[0] for key in found}
        everything |= found
    ranked = Counter(each["item_id"] for items in everything.values() for each in items)
    (item_id, _), *_ = ranked.most_common(1)
    without = [Answer(0, {}, {**each, "exclude_items": [item_id]}) for each in asked]
    everything |= await recomputed([folder / name for name in BUNDLES], without, folder)
    return everything, hashes, item_id


def is_mixed(seen: Seen, expected: Expected, item_id: str) -> bool:
    """Whether an answer differs from that of the bundle and the catalog that it names; odd ones lack the item."""
    request = dict(seen.request)
    if seen.body["catalog_revision"] % 2:
        request["exclude_items"] = [item_id]
    due = expected[seen.body["bundle"], json.dumps({"task": "sequential", **request})]
    items = seen.body["items"]
    return [each["item_id"] for each in items] != [each["item_id"] for each in due] or any(
        abs(each["score"] - other["score"]) > TOLERANCE for each, other in zip(items, due, strict=True)
    )


def is_near(seen: Seen, deaths: Sequence[tuple[str, float]]) -> bool:
    return any(seen.received_at >= at and seen.sent_at <= at + RECOVERY_S for _, at in deaths)


def read_lines(server: Server) -> list[dict[str, Any]]:
    """The log so far."""
    return [server.lines.get() for _ in range(server.lines.qsize())]
