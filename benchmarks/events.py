"""What do stored histories cost?

Question  How fast are events kept, what does reading a history add to a request, and how much memory does Redis need?
Method    `vip5 serve` with the demonstration, in its own process, with histories in a redis-server of its own and then
          in its own process and file. One connection sends one event after another, then lists of 100, and reads the
          history right after some of them; then four connections at once. Requests that bring a history of 20 items
          and requests that have the same one stored alternate. Memory: --users users with 20 events each are written
          through the store itself to an empty redis-server.
Output    Median and p99 of one event, events per second, median of both requests and their difference, bytes of Redis
          for each user, and as many for a million users by extrapolation; the last line is JSON.

    python -m benchmarks.events [--events 2000] [--requests 200] [--users 50000]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import redis

from benchmarks.commit import ROOT, commit
from benchmarks.own_redis import own_redis
from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import connect
from service.histories.events import Event, Retention, UserKey
from service.histories.redis_store import RedisOptions, RedisStore
from tests.e2e.processes import serving

BUNDLE = ROOT / "demo" / "bundle"
EVENTS_PER_USER = 20
LIST = 100
NUM_CONNECTIONS = 4
MILLION = 1_000_000
DAY_MS = 86_400_000
ITEMS = [f"toy-{number:04d}" for number in range(1, 201)]
JSON = {"Content-Type": "application/json"}


class Client:
    """One connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def send(self, method: str, path: str, body: object = None) -> tuple[float, bytes]:
        """Seconds until the whole answer, and the answer. Any status but 200 ends the run."""
        content = None if body is None else json.dumps(body).encode()
        started_at = time.perf_counter()
        self._connection.request(method, path, content, JSON)
        response = self._connection.getresponse()
        answer = response.read()
        duration_s = time.perf_counter() - started_at
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {answer.decode()}")
        return duration_s, answer


def event(rng: random.Random, user: str) -> dict[str, str]:
    return {"domain": "toys", "user_id": user, "item_id": rng.choice(ITEMS), "type": "view"}


def percentiles_ms(durations_s: Sequence[float], name: str) -> dict[str, float]:
    in_order = sorted(each * 1000 for each in durations_s)
    return {
        f"{name}_p50_ms": round(statistics.median(in_order), 3),
        f"{name}_p99_ms": round(in_order[int(0.99 * (len(in_order) - 1))], 3),
    }


def single_events(client: Client, num_events: int) -> dict[str, float]:
    """One event after another; every tenth is looked for at once."""
    rng = random.Random(1)
    durations_s, until_read_s, num_missing = [], [], 0
    for number in range(num_events):
        user = f"user-{number % 500}"
        body = event(rng, user) | {"event_id": str(number)}
        duration_s, _ = client.send("POST", "/events", body)
        durations_s.append(duration_s)
        if number % 10 == 0:
            read_s, answer = client.send("GET", f"/domains/toys/users/{user}/history")
            until_read_s.append(duration_s + read_s)
            num_missing += all(each["event_id"] != str(number) for each in json.loads(answer)["events"])
    return {
        **percentiles_ms(durations_s, "event"),
        "events_per_s": round(len(durations_s) / sum(durations_s)),
        **percentiles_ms(until_read_s, "written_and_read"),
        "acknowledged_and_not_read": num_missing,
    }


def at_once(url: str, num_events: int, per_list: int) -> float:
    """Events per second over several connections."""

    def send(seed: int) -> None:
        rng, client = random.Random(seed), Client(url)
        for _ in range(num_events // NUM_CONNECTIONS // per_list):
            events = [event(rng, f"user-{rng.randrange(5_000)}") for _ in range(per_list)]
            client.send("POST", "/events", events)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(NUM_CONNECTIONS)]
    started_at = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(num_events / (time.perf_counter() - started_at))


def brought_and_stored(client: Client, num_requests: int, readers: str) -> dict[str, float]:
    """The same requests with and without their history, one after the other in turn."""
    rng = random.Random(2)
    users: dict[str, list[str]] = {}
    for number in range(20):
        items = rng.sample(ITEMS, EVENTS_PER_USER)
        users[f"{readers}-{number}"] = items
        now = time.time()
        events: list[dict[str, object]] = [
            {**event(rng, f"{readers}-{number}"), "item_id": item, "timestamp": now - 60 + place}
            for place, item in enumerate(items)
        ]
        client.send("POST", "/events", events)
    brought_s, stored_s, differences_s = [], [], []
    for number in range(num_requests):
        user = f"{readers}-{number % 20}"
        ask = {"domain": "toys", "user_id": user}
        pair: list[tuple[str, dict[str, object]]] = [("brought", {**ask, "history": users[user]}), ("stored", {**ask})]
        took: dict[str, float] = {}
        ranked: dict[str, object] = {}
        for name, body in pair if number % 2 else reversed(pair):
            took[name], answer = client.send("POST", "/recommend/sequential", body)
            ranked[name] = json.loads(answer)["items"]
        if ranked["brought"] != ranked["stored"]:
            raise SystemExit(f"{user}: the two answers differ")
        brought_s.append(took["brought"])
        stored_s.append(took["stored"])
        differences_s.append(took["stored"] - took["brought"])
    return {
        **percentiles_ms(brought_s, "brought"),
        **percentiles_ms(stored_s, "stored"),
        "difference_median_ms": round(statistics.median(differences_s) * 1000, 3),
        "ratio_of_medians": round(statistics.median(stored_s) / statistics.median(brought_s), 4),
    }


def service_of(settings: Mapping[str, str], num_events: int, num_requests: int) -> dict[str, float]:
    with serving(BUNDLE, settings) as server:
        client = Client(server.url)
        brought_and_stored(client, 20, "warming")
        return {
            **single_events(client, num_events),
            f"events_per_s_over_{NUM_CONNECTIONS}": at_once(server.url, num_events, 1),
            f"events_per_s_in_lists_of_{LIST}": at_once(server.url, 10 * num_events, LIST),
            **brought_and_stored(client, num_requests, "reader"),
        }


async def fill(port: int, num_users: int) -> None:
    """Write 20 events of each user, at random times of a month, 50 users in each list."""
    rng = random.Random(3)
    retention = Retention(100, 365 * DAY_MS)
    address = RedisAddress.parse(f"redis://127.0.0.1:{port}")
    store = RedisStore(connect(address), RedisOptions("vip5", 10.0, 16, 14 * DAY_MS), retention, time.time)
    now_ms = round(time.time() * 1000)
    for first in range(0, num_users, 50):
        users = [UserKey("toys", f"user-{number:07d}") for number in range(first, min(first + 50, num_users))]
        await store.add(
            [
                (user, Event(rng.choice(ITEMS), now_ms - rng.randrange(30 * DAY_MS), "view"))
                for user in users
                for _ in range(EVENTS_PER_USER)
            ]
        )
    await store.close()


def memory(folder: Path, num_users: int) -> dict[str, float]:
    with own_redis(folder) as port, redis.Redis(port=port) as client:
        before = client.info("memory")["used_memory"]
        asyncio.run(fill(port, num_users))
        used = client.info("memory")["used_memory"] - before
        num_keys = client.dbsize()
    return {
        "users": num_users,
        "keys": num_keys,
        "bytes_per_user": round(used / num_users),
        "gigabytes_for_a_million_users_extrapolated": round(used / num_users * MILLION / 1e9, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--users", type=int, default=50_000)
    options = parser.parse_args()
    findings: dict[str, object] = {"commit": commit()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with own_redis(folder) as port:
            settings = {"VIP5_HISTORY_STORE": "redis", "VIP5_REDIS_URL": f"redis://127.0.0.1:{port}"}
            settings["VIP5_HISTORY_TIMEOUT_MS"] = "1000"
            findings["redis"] = service_of(settings, options.events, options.requests)
        settings = {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(folder / "histories.jsonl")}
        findings["embedded"] = service_of(settings, options.events, options.requests)
        findings["memory"] = memory(folder, options.users)
    for part, figures in findings.items():
        print(part, figures)
    print(json.dumps(findings))


if __name__ == "__main__":
    main()
