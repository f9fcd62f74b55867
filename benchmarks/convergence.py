"""Time from a change until all replicas serve it, and requests that fail meanwhile.

Question: how long does a change take until every replica of a service answers from it, under load?
Method: N processes with one journal in a real Redis, each asked without a pause by one client, on one machine. Changes
of each kind are made at replicas in turn, each with `wait=all`. One replica is the baseline: there is nobody to wait
for. Every answer is compared with the states that it may be from, by the times at which changes were sent and answered,
and with the answers of other replicas at the same state.
Output: a table of replicas and changes, p50 and p99, requests, failed and wrong ones; the last line is JSON.

    python -m benchmarks.convergence --replicas 1 2 3 --changes 70
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.fleet import Fleet, State, differing, hashes_of, wrong
from tests.e2e.live import live_bundles, live_environment
from tests.redis_servers import redis_server

LEASE_S = 60
SETTLE_ANSWERS = 3
FIRST = "first"


class Administrator:
    """Makes changes of every kind at replicas in turn, and remembers how long each took."""

    def __init__(self, fleet: Fleet, names: Sequence[str], hashes: dict[str, str]) -> None:
        self.times_s: dict[str, list[float]] = defaultdict(list)
        self._fleet = fleet
        self._others = cycle((name, digest) for name, digest in hashes.items() if name != FIRST)
        self._next = cycle(names)

    async def round(self) -> None:
        """Stock, boosts, a swap to a bundle that is not loaded and back, and a canary."""
        first, (name, digest) = self._fleet.state.stable, next(self._others)
        await self._items("stock", "PATCH", "/catalog", {"deactivate": ["item-1"]})
        await self._items("boosts", "PUT", "/boosts", {"columns": {"category": {"dolls": 2.0}}})
        await self._items("stock", "PATCH", "/catalog", {"activate": ["item-1"]})
        await self._make("load and swap", "POST", "/load", {"bundle": name, "activate": True}, stable=digest)
        body = await self._make("rollback", "POST", "/rollback", None, stable=first)
        (previous,) = [each["version"] for each in body["versions"] if "previous" in each["roles"]]
        share = {"version": previous, "share": 0.5}
        await self._make("canary", "POST", "/canary", share, canary=digest)
        await self._make("canary", "DELETE", "/canary", None, canary=None)

    async def _items(self, kind: str, method: str, path: str, body: dict[str, Any]) -> None:
        await self._make(kind, method, path, body, revision=self._fleet.state.revision + 1)

    async def _make(
        self, kind: str, method: str, path: str, body: dict[str, Any] | None, **state: int | str | None
    ) -> dict[str, Any]:
        began_at = time.monotonic()
        answer = await self._fleet.change(next(self._next), method, path, body, **state)
        self.times_s[kind].append(time.monotonic() - began_at)
        await self._fleet.more(SETTLE_ANSWERS)
        return answer


async def measure(bundles: Path, redis_url: str, num_replicas: int, num_changes: int) -> dict[str, Any]:
    """One row of the table for each kind of change."""
    hashes = hashes_of(bundles)
    environment = live_environment(
        bundles,
        VIP5_JOURNAL="redis",
        VIP5_REDIS_URL=redis_url,
        VIP5_SERVICE_ID=f"of-{num_replicas}",
        VIP5_REPLICA_LEASE_S=str(LEASE_S),
    )
    fleet = Fleet(bundles / FIRST, environment, State(0, hashes[FIRST]))
    names = [f"replica-{number}" for number in range(num_replicas)]
    try:
        for name in names:
            await fleet.start(name)
        administrator = Administrator(fleet, names, hashes)
        while len(fleet.changes) <= num_changes:
            await administrator.round()
    finally:
        await fleet.close()
    seen = [each for replica in fleet.replicas.values() for each in replica.seen]
    return {
        "replicas": num_replicas,
        "changes": len(fleet.changes) - 1,
        "times_s": dict(administrator.times_s),
        "requests": len(seen),
        "failed": sum(each.status != 200 for each in seen),
        "wrong": len([*wrong(seen, fleet.changes)]),
        "differing": len([*differing(seen, fleet.changes)]),
    }


def show(result: dict[str, Any]) -> None:
    for kind, times_s in result["times_s"].items():
        p50, p99 = (float(np.quantile(times_s, share)) * 1000 for share in (0.5, 0.99))
        print(
            f"{result['replicas']:>8} | {kind:<13} | {len(times_s):>7} | {p50:>8.0f} | {p99:>8.0f} | "
            f"{result['requests']:>8} | {result['failed']:>6} | {result['wrong'] + result['differing']:>5}"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--changes", type=int, default=70, help="changes for each number of replicas, about")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        bundles = live_bundles(Path(folder) / "bundles", (FIRST, "second", "third"))
        print("replicas | change        | changes | p50 (ms) | p99 (ms) | requests | failed | wrong")
        for number in options.replicas:
            results.append(await measure(bundles, server.url, number, options.changes))
            show(results[-1])
    print(json.dumps(results))


if __name__ == "__main__":
    asyncio.run(main())
