"""Whatever happens to Redis, every request is answered, says what it misses, and misses nothing once Redis is back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from model.bundle.features import ItemFeatures, load_features
from model.planning.runtime import Runtime, load_runtime
from service.http.app import create_app
from service.settings.settings import Settings
from tests.e2e.features import load_into
from tests.e2e.load import Answer, Load, load_on
from tests.e2e.proxy import Proxy, proxy_to
from tests.redis_servers import RedisServer, redis_server
from tests.service.conftest import client_of
from tests.tiny import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Runtime:
    return load_runtime(bundle, num_threads=1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@dataclass
class Ground:
    """A service under load, its Redis, and the way between them."""

    server: RedisServer
    proxy: Proxy
    source: ItemFeatures
    client: httpx.AsyncClient

    async def fill(self) -> None:
        await load_into(self.server.url, self.source, dtype="float32")

    async def metric(self, name: str) -> float:
        lines = (await self.client.get("/metrics")).text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).split()[-1])


@asynccontextmanager
async def ground_of(
    runtime: Runtime, bundle: Path, server: RedisServer, *, tier_mb: int = 0, fallback: str = "none", fills: bool = True
) -> AsyncIterator[Ground]:
    async with proxy_to(server.port) as proxy:
        settings = Settings(
            bundle=bundle,
            feature_store="redis",
            feature_fallback="embedded" if fallback == "embedded" else "none",
            feature_tier_mb=tier_mb,
            feature_refresh_ms=20,
            feature_timeout_ms=100,
            redis_url=SecretStr(proxy.url),
        )
        source = load_features(runtime.feature_files["toys"])
        if fills:
            await load_into(server.url, source, dtype="float32")
        async with client_of(create_app(settings, lambda _: runtime)) as client:
            yield Ground(server, proxy, source, client)


Step = Callable[[Ground], Awaitable[None]]


async def kill(ground: Ground) -> None:
    ground.server.kill()


async def start_and_fill(ground: Ground) -> None:
    ground.server.start()
    await ground.fill()


async def pause(ground: Ground) -> None:
    ground.server.pause()


async def resume(ground: Ground) -> None:
    ground.server.resume()


async def flush(ground: Ground) -> None:
    with ground.server.client as client:
        client.flushall()


async def fill(ground: Ground) -> None:
    await ground.fill()


async def slow_down(ground: Ground) -> None:
    ground.proxy.delay_s = 0.2


async def silence(ground: Ground) -> None:
    ground.proxy.silence()


async def cut(ground: Ground) -> None:
    ground.proxy.cut()


async def mend(ground: Ground) -> None:
    ground.proxy.mend()


def is_short(answer: Answer) -> bool:
    return bool(answer.shortfall)


def is_full(answer: Answer) -> bool:
    return answer.is_full


def check(load: Load) -> None:
    """No request failed, and each got as many items as it asked for."""
    assert {answer.status for answer in load.answers} == {200}
    assert {len(answer.body["items"]) for answer in load.answers} == {3}


@pytest.mark.parametrize(
    ("break_it", "mend_it", "words"),
    [
        pytest.param(kill, start_and_fill, "Redis does not answer", id="killed and started again"),
        pytest.param(pause, resume, "Redis", id="paused"),
        pytest.param(flush, fill, "Redis holds no embeddings of toys by vitb32", id="flushed"),
        pytest.param(slow_down, mend, "Redis", id="slow"),
        pytest.param(silence, mend, "Redis", id="silent"),
        pytest.param(cut, mend, "Redis does not answer", id="cut off"),
    ],
)
async def test_no_request_fails_and_quality_comes_back(
    runtime: Runtime, bundle: Path, server: RedisServer, break_it: Step, mend_it: Step, words: str
) -> None:
    async with ground_of(runtime, bundle, server) as ground, load_on(ground.client) as load:
        await load.until(is_full)
        await break_it(ground)
        await load.until(lambda answer: words in answer.shortfall)
        while break_it is not flush and await ground.metric("vip5_redis_up"):
            await load.until(is_short)
        ready = await ground.client.get("/health/ready")
        await mend_it(ground)
        await load.until(is_full)
        await load.until(is_full)

    check(load)
    assert ready.status_code == 200
    short = next(answer.shortfall for answer in load.answers if words in answer.shortfall)
    assert "items of the prompt had no image embedding: " in short


async def test_the_metrics_and_readiness_tell_of_a_redis_that_is_gone_and_back(
    runtime: Runtime, bundle: Path, server: RedisServer
) -> None:
    async with ground_of(runtime, bundle, server) as ground, load_on(ground.client) as load:
        await load.until(is_full)
        up_before = await ground.metric("vip5_redis_up")
        misses_before = await ground.metric('vip5_feature_cache_misses_total{tier="redis"}')
        ground.proxy.cut()
        await load.until(is_short)
        while await ground.metric("vip5_redis_up"):
            await load.until(is_short)
        degraded = (await ground.client.get("/health/ready")).json()
        ground.proxy.mend()
        await load.until(is_full)
        while not await ground.metric("vip5_redis_up"):
            await load.until(is_full)
        healthy = (await ground.client.get("/health/ready")).json()

        assert up_before == 1
        assert await ground.metric('vip5_feature_cache_misses_total{tier="redis"}') > misses_before
        assert await ground.metric('vip5_degraded_total{kind="missing_features"}') > 0
    assert degraded == {
        "status": "ready",
        "reasons": [],
        "degraded": ["Redis does not answer in time"],
    }
    assert healthy == {"status": "ready", "reasons": [], "degraded": []}


async def test_a_redis_that_is_away_at_the_start_is_used_once_it_is_there(
    runtime: Runtime, bundle: Path, server: RedisServer
) -> None:
    server.kill()
    async with ground_of(runtime, bundle, server, fills=False) as ground, load_on(ground.client) as load:
        ready = (await ground.client.get("/health/ready")).json()
        await load.until(is_short)
        await start_and_fill(ground)
        await load.until(is_full)

    check(load)
    assert ready == {"status": "ready", "reasons": [], "degraded": ["Redis does not answer in time"]}


async def test_a_full_redis_is_read_as_before(runtime: Runtime, bundle: Path, server: RedisServer) -> None:
    async with ground_of(runtime, bundle, server) as ground, load_on(ground.client) as load:
        with server.client as client:
            client.config_set("maxmemory", 1)
        for _ in range(5):
            await load.until(is_full)
        assert not any(answer.shortfall for answer in load.answers)
    check(load)


async def test_what_the_process_keeps_is_used_while_redis_is_away(
    runtime: Runtime, bundle: Path, server: RedisServer
) -> None:
    body = {"domain": "toys", "history": ["item-1", "item-2"], "k": 3}
    async with ground_of(runtime, bundle, server, tier_mb=1) as ground:
        before = (await ground.client.post("/recommend/sequential", json=body)).json()
        ground.server.kill()
        during = (await ground.client.post("/recommend/sequential", json=body)).json()
        other = (await ground.client.post("/recommend/sequential", json=body | {"history": ["item-3"]})).json()

    assert before["items"] == during["items"]
    assert "missing_features" not in [each["kind"] for each in during["degraded"]]
    assert "missing_features" in [each["kind"] for each in other["degraded"]]


async def test_the_bundles_own_embeddings_stand_in_where_they_may(
    runtime: Runtime, bundle: Path, server: RedisServer
) -> None:
    async with ground_of(runtime, bundle, server, fallback="embedded") as ground, load_on(ground.client) as load:
        await load.until(is_full)
        ground.server.kill()
        while await ground.metric("vip5_redis_up"):
            await load.until(is_full)
        await load.until(is_full)

    check(load)
    assert not any(answer.shortfall for answer in load.answers)


@pytest.mark.parametrize("tier_mb", [0, 1])
async def test_recommendations_are_those_of_the_bundles_own_embeddings(
    runtime: Runtime, bundle: Path, server: RedisServer, tier_mb: int
) -> None:
    bodies = [{"domain": "toys", "history": [f"item-{n}", f"item-{n + 1}"], "k": 10} for n in range(1, 40, 3)]

    async def answers(client: httpx.AsyncClient) -> list[list[tuple[str, float]]]:
        found = [(await client.post("/recommend/sequential", json=body)).json()["items"] for body in bodies]
        return [[(item["item_id"], item["score"]) for item in items] for items in found]

    async with ground_of(runtime, bundle, server, tier_mb=tier_mb) as ground:
        from_redis = [await answers(ground.client) for _ in range(2)]
    async with client_of(create_app(Settings(bundle=bundle), lambda _: runtime)) as client:
        embedded = await answers(client)

    assert from_redis == [embedded, embedded]
