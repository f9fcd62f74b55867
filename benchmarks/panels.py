"""What does the dashboard show during a Redis outage and during overload?

Question  Do the panels show an operator what happens, and when it ends?
Method    `vip5 serve` on the demonstration, embeddings in a dedicated redis-server, a Prometheus that scrapes every
          second. Four phases of --seconds each: three clients; the same without Redis; the same with Redis again; 40
          clients and a queue of 4.
Output    docs/pictures/*.png, one per row of the dashboard; the alerts that fire at the end of each phase; the last
          line is JSON.

    python -m benchmarks.panels [--seconds 20] [--out docs/pictures]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from deploy.grafana.plot import Mark, Window, draw
from tests.e2e.processes import ROOT, run_vip5, serving
from tests.e2e.prometheus import Prometheus, prometheus
from tests.redis_servers import redis_server

BUNDLE = ROOT / "demo" / "bundle"
DOMAINS = ("toys", "garments")
SCRAPE_MS = 1000
SETTLED_S = 2.0
MAX_WAITING = 4


@dataclass(frozen=True)
class Known:
    """Items and users of a domain, for requests."""

    item_ids: list[str]
    user_ids: list[str]


@dataclass
class Stretches:
    """The phases of the run, and the alerts that fired in them."""

    prometheus: Prometheus
    marks: list[Mark] = field(default_factory=list)
    fired: dict[str, list[str]] = field(default_factory=dict)

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        started_at = time.time()
        yield
        self.marks.append(Mark(name, started_at, time.time()))
        self.fired[name] = sorted(self.prometheus.firing())
        print(f"{name}: {', '.join(self.fired[name]) or 'no alert'}")


async def ask(url: str, num_clients: int, duration_s: float) -> None:
    """Closed-loop clients."""
    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        known = {name: await _known(client, name) for name in DOMAINS}
        ends_at = time.monotonic() + duration_s
        await asyncio.gather(*(_keep_asking(client, known, worker, ends_at) for worker in range(num_clients)))


async def _known(client: httpx.AsyncClient, domain: str) -> Known:
    items = (await client.get(f"/domains/{domain}/items", params={"limit": 200})).json()["items"]
    users = (await client.get(f"/domains/{domain}/users", params={"limit": 200})).json()["users"]
    return Known([item["item_id"] for item in items], [user["user_id"] for user in users])


async def _keep_asking(client: httpx.AsyncClient, known: dict[str, Known], worker: int, ends_at: float) -> None:
    draws = random.Random(worker)
    while time.monotonic() < ends_at:
        domain = draws.choice(DOMAINS)
        history, user = draws.sample(known[domain].item_ids, 6), draws.choice(known[domain].user_ids)
        route, body = draws.choice(
            [
                ("recommend/sequential", {"user_id": user, "history": history, "k": 10}),
                ("recommend/direct", {"user_id": user, "candidates": history, "k": 3}),
                ("explain", {"user_id": user, "item_id": history[0], "max_new_tokens": 16}),
            ]
        )
        answer = await client.post(f"/{route}", json={"domain": domain, **body})
        if answer.status_code == 429:
            await asyncio.sleep(0.2)


def run(seconds: float, out: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        redis = stack.enter_context(redis_server(folder))
        load_embeddings(redis.url)
        settings = {
            "VIP5_FEATURE_STORE": "redis",
            "VIP5_FEATURE_FALLBACK": "none",
            "VIP5_FEATURE_TIER_MB": "0",
            "VIP5_REDIS_URL": redis.url,
            "VIP5_MAX_WAITING": str(MAX_WAITING),
        }
        server = stack.enter_context(serving(BUNDLE, settings))
        stretches = Stretches(stack.enter_context(prometheus(folder, [urlsplit(server.url).netloc], SCRAPE_MS)))
        started_at = time.time()
        with stretches.named("three clients"):
            asyncio.run(ask(server.url, 3, seconds))
        with stretches.named("no Redis"):
            redis.kill()
            asyncio.run(ask(server.url, 3, seconds))
        with stretches.named("Redis is back"):
            redis.start()
            load_embeddings(redis.url)
            asyncio.run(ask(server.url, 3, seconds))
        with stretches.named("40 clients"):
            asyncio.run(ask(server.url, 40, seconds))
        time.sleep(SETTLED_S)
        window = Window(started_at, time.time(), SCRAPE_MS / 1000)
        drawn = draw(stretches.prometheus.url, window, out, [stretches.marks[1], stretches.marks[3]])
    return {"seconds": seconds, "fired": stretches.fired, "pictures": [file.name for file in drawn]}


def load_embeddings(redis_url: str) -> None:
    for domain in DOMAINS:
        done = run_vip5("features", "load", "--bundle", BUNDLE, "--domain", domain, "--redis-url", redis_url)
        if done.returncode:
            raise RuntimeError(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    given = parser.parse_args()
    print(json.dumps(run(given.seconds, given.out)))


if __name__ == "__main__":
    main()
