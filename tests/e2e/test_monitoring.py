"""A real Prometheus sees what a real service does: panels have data, faults move their panels and fire their alerts."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from model.bundle.features import load_features
from tests.e2e.children import children_of
from tests.e2e.collector import Collector, collector
from tests.e2e.features import load_into
from tests.e2e.processes import Server, serving
from tests.e2e.prometheus import Prometheus, panel_exprs, prometheus, wait_until
from tests.redis_servers import RedisServer, redis_server
from tests.service.live import AUTHORIZED, TOKEN, bundle_of
from tests.tiny import tiny_catalog

PANELS = panel_exprs(rate_interval="3s")
NEEDS_A_GPU = {"GPU memory"}
COMMAND = (sys.executable, "-m", "tests.e2e.slow_serve")
SOME, OTHERS = range(1, 11), range(45, 55)
BUNDLES = ("first", "second", "third")
SLOW_ALERTS = {"Vip5LatencyBudgetBurnsFast", "Vip5LatencyBudgetBurnsSlowly"}
NUM_SLOW = (
    'sum(vip5_e2e_request_latency_seconds_count{route=~"/recommend/.+"}) - '
    'sum(vip5_e2e_request_latency_seconds_bucket{route=~"/recommend/.+", le="0.5"})'
)
"""Recommendations that took longer than the target."""
MAX_WAITING = 24
CALM_S = "0.02"


@dataclass
class Ground:
    """A service that can be slowed, its Redis, and the Prometheus that watches it."""

    server: Server
    redis: RedisServer
    prometheus: Prometheus
    collector: Collector
    delay: Path

    def panel(self, title: str, place: int = 0) -> str:
        return PANELS[title][place]

    def sees(self, expr: str, above: float) -> bool:
        return self.prometheus.largest(expr) > above

    @contextmanager
    def slowed(self, delay_s: str) -> Iterator[None]:
        self.delay.write_text(delay_s)
        try:
            yield
        finally:
            self.delay.write_text(CALM_S)

    @contextmanager
    def under_load(self, num_clients: int, items: Sequence[int] = SOME) -> Iterator[None]:
        """As many clients, each of which asks again as soon as it is answered."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asking = asyncio.run_coroutine_threadsafe(_ask(self.server.url, num_clients, items), loop)
        try:
            yield
            assert not asking.done(), asking.exception()
        finally:
            asking.cancel()
            asyncio.run_coroutine_threadsafe(_settled(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _settled() -> None:
    """Waits for whatever else runs on the loop."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


async def _ask(url: str, num_clients: int, items: Sequence[int]) -> None:
    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client, asyncio.TaskGroup() as workers:
        for worker in range(num_clients):
            workers.create_task(_keep_asking(client, worker, items))


async def _keep_asking(client: httpx.AsyncClient, worker: int, items: Sequence[int]) -> None:
    history = [f"item-{number}" for number in items]
    for number in itertools.count(worker):
        route, more = ("sequential", {"history": history}) if number % 4 else ("direct", {"candidates": history})
        body = {"domain": "toys", "user_id": f"u{number % 9 + 1}", "k": 3, **more}
        response = await client.post(f"/recommend/{route}", json=body)
        if response.status_code == 429:
            await asyncio.sleep(0.5)  # a client that is refused and comes back at once would only burn the CPU


def give_roles(url: str) -> None:
    """Half of the users get one more version, and another answers along."""
    with httpx.Client(base_url=f"{url}/admin/domains/toys", headers=AUTHORIZED, timeout=60) as client:
        for bundle, role, more in (("second", "canary", {"share": 0.5}), ("third", "shadow", {})):
            versions = client.post("/load", json={"bundle": bundle}).raise_for_status().json()["versions"]
            (version,) = [each["version"] for each in versions if "loaded" in each["roles"]]
            client.post(f"/{role}", json={"version": version, **more}).raise_for_status()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, num_workers: int) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("monitoring")
    bundles = {name: bundle_of(folder / name, seed, catalog=tiny_catalog()) for seed, name in enumerate(BUNDLES, 1)}
    delay = folder / "delay"
    delay.write_text(CALM_S)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        asyncio.run(load_into(redis.url, load_features(bundles["first"] / "domains/toys/features.safetensors")))
        collecting = stack.enter_context(collector())
        settings = {
            "VIP5_TRACES_ENDPOINT": collecting.endpoint,
            "VIP5_TRACES_SAMPLE_RATIO": "0.2",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "VIP5_FEATURE_STORE": "redis",
            "VIP5_FEATURE_FALLBACK": "none",
            "VIP5_REDIS_URL": redis.url,
            "VIP5_HISTORY_STORE": "redis",
            "VIP5_ADMIN_TOKEN": TOKEN,
            "VIP5_BUNDLES_ROOT": str(folder),
            "VIP5_FEATURE_REFRESH_MS": "50",
            "VIP5_MAX_WAITING": str(MAX_WAITING),
            "SLOW_ENGINE": str(delay),
        }
        server = stack.enter_context(serving(bundles["first"], settings, COMMAND))
        watching = stack.enter_context(prometheus(folder, [urlsplit(server.url).netloc]))
        give_roles(server.url)
        yield Ground(server, redis, watching, collecting, delay)


def test_every_query_of_every_panel_has_data(ground: Ground) -> None:
    exprs = {(title, expr) for title, each in PANELS.items() for expr in each if title not in NEEDS_A_GPU}
    empty = set(exprs)

    def all_have_data() -> bool:
        event = {"domain": "toys", "user_id": "u1", "item_id": "item-1"}
        httpx.post(f"{ground.server.url}/events", json=event, timeout=60).raise_for_status()
        limited = {"domain": "toys", "history": ["item-1"], "k": 1, "max_per": {"category": 1}}  # a list that fills
        httpx.post(f"{ground.server.url}/recommend/sequential", json=limited, timeout=60).raise_for_status()
        empty.difference_update([each for each in empty if ground.prometheus.query(each[1])])
        return not empty

    # One client alone: a shadow is asked only while nobody waits.
    with ground.under_load(1), suppress(AssertionError):
        wait_until(all_have_data, "data")

    assert not empty
    roles = {each.labels["role"] for each in ground.prometheus.query(ground.panel("Requests by version"))}
    assert roles == {"stable", "canary", "shadow"}
    firing = ground.prometheus.firing()
    assert firing <= SLOW_ALERTS
    assert not firing or ground.sees(NUM_SLOW, above=0), "only a machine that is too slow has a reason to fire"


def test_the_exemplars_of_latencies_lead_to_traces_that_were_collected(ground: Ground) -> None:
    buckets = "vip5_e2e_request_latency_seconds_bucket"

    def leads_to_a_whole_trace() -> bool:
        ids = {labels["trace_id"] for labels in ground.prometheus.exemplars(buckets)}
        stages = {"request", "plan", "features", "queue", "encode", "decode"}
        return any(stages <= ground.collector.traces[each] for each in ids & ground.collector.traces.keys())

    with ground.under_load(3):
        wait_until(leads_to_a_whole_trace, "an exemplar whose trace was collected")


def test_slow_answers_move_the_latency_and_burn_the_budget(ground: Ground) -> None:
    with ground.slowed("0.6"), ground.under_load(MAX_WAITING):
        wait_until(lambda: ground.sees(ground.panel("Latency p95"), above=0.5), "the latency is seen")
        wait_until(lambda: ground.sees(ground.panel("Recommendations over 0.5 s"), above=0.9), "they are seen as slow")
        wait_until(lambda: ground.sees(ground.panel("Stages p95", 1), above=0.25), "the queue is seen")
        wait_until(lambda: "Vip5LatencyBudgetBurnsFast" in ground.prometheus.firing(), "the alert fires")
        wait_until(lambda: "Vip5QueueTimeHigh" in ground.prometheus.firing(), "the queue's alert fires")


def test_too_much_load_is_refused_and_seen(ground: Ground) -> None:
    with ground.slowed("0.3"), ground.under_load(3 * MAX_WAITING):
        wait_until(lambda: ground.sees(ground.panel("Rejected requests"), above=1), "refusals are seen")
        wait_until(lambda: ground.sees(ground.panel("Requests waiting and running"), above=MAX_WAITING / 2), "a queue")
        wait_until(lambda: ground.sees(ground.panel("Engine busy"), above=0.9), "saturation is seen")
        wait_until(lambda: "Vip5RequestsRejected" in ground.prometheus.firing(), "the alert fires")


def test_a_killed_worker_is_replaced_and_seen(ground: Ground, num_workers: int) -> None:
    if not num_workers:
        pytest.skip("there are no workers")
    workers = ground.panel("Workers")
    wait_until(lambda: ground.prometheus.largest(workers) == num_workers, "all workers are seen")
    counted = 'sum(vip5_requests_total{route="/recommend/sequential"})'
    before = ground.prometheus.largest(counted)
    assert before > 0
    assert "Vip5WorkersRestart" not in ground.prometheus.firing()

    os.kill(children_of(ground.server)[0], signal.SIGKILL)

    wait_until(lambda: "Vip5WorkersRestart" in ground.prometheus.firing(), "the alert fires")
    wait_until(lambda: ground.prometheus.largest(workers) == num_workers, "another took its place")
    assert ground.prometheus.largest(counted) >= before, "what the killed one has counted is kept"


def test_a_killed_redis_degrades_answers_and_is_seen(ground: Ground) -> None:
    ground.redis.kill()
    missing = 'kind="missing_features"'
    degraded = ground.panel("Degraded answers").replace("vip5_degraded_total{", f"vip5_degraded_total{{{missing}, ")
    with ground.under_load(20, OTHERS):
        wait_until(lambda: ground.prometheus.largest(ground.panel("Redis up")) == 0, "Redis is seen to be down")
        wait_until(lambda: ground.sees(degraded, above=0.9), "answers are seen to lack embeddings")
        wait_until(lambda: {"Vip5RedisDown", "Vip5DegradedShareHigh"} <= ground.prometheus.firing(), "the alerts fire")


def test_a_replica_that_does_not_answer_is_seen(ground: Ground) -> None:
    wait_until(lambda: "Vip5TargetDown" not in ground.prometheus.firing(), "the service is seen")
    ground.server.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: "Vip5TargetDown" in ground.prometheus.firing(), "the alert fires")
    finally:
        ground.server.process.send_signal(signal.SIGCONT)
