"""Metrics move, and the log has one line a request that holds no history, name or key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking, Timings
from model.planning.runtime import Runtime
from service.http.app import create_app
from service.observability.json_logging import configure_logging
from service.settings.settings import Settings
from tests.engines import DisguisedEngine
from tests.service.conftest import client_of

ASK = {"domain": "toys", "history": ["item-1", "item-11"], "user_id": "u1", "user_name": "Ann Secret", "k": 3}


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    text = (await client.get("/metrics")).text
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()) if key != "le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_every_metric_moves_with_a_request(client: httpx.AsyncClient) -> None:
    before = await samples(client)
    await client.post("/recommend/sequential", json=ASK)
    after = await samples(client)

    route = "route=/recommend/sequential"
    moved = {key: after[key] - before.get(key, 0) for key in after}
    assert moved["vip5_requests_total", "domain=toys", route, "status=200"] == 1
    assert moved["vip5_e2e_request_latency_seconds_count", "domain=toys", route] == 1
    assert moved["vip5_request_queue_time_seconds_count",] == 1
    assert moved["vip5_request_encode_time_seconds_count",] == 1
    assert moved["vip5_request_decode_time_seconds_count",] == 1
    assert moved["vip5_batch_size_count",] == 1
    assert moved["vip5_batch_size_sum",] == 1
    assert moved["vip5_feature_fetch_seconds_count", "tier=embedded"] == 1
    assert moved["vip5_feature_cache_hits_total", "tier=embedded"] == 1
    assert moved["vip5_feature_cache_misses_total", "tier=embedded"] == 1
    assert moved["vip5_degraded_total", "kind=missing_features"] == 1
    assert moved["vip5_degraded_total", "kind=untrained_model"] == 1
    assert moved["vip5_beam_exact_prefix_count",] == 1
    assert after["vip5_invalid_items_total",] == 0
    assert after["vip5_num_requests_running",] == 0
    assert after["vip5_num_requests_waiting",] == 0


class LyingEngine(DisguisedEngine):
    """The real engine, but for one inactive item that it puts on top."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine)
        domain = runtime.domains["toys"]
        row = domain.catalog.row_of("item-10")
        assert row is not None
        self._inactive_leaf = int(domain.leaves_of_rows[row])

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        rankings, timings = self._engine.search(batch)
        return [
            replace(ranking, leaves=np.array([self._inactive_leaf, *ranking.leaves[1:]])) for ranking in rankings
        ], timings


async def test_an_item_that_may_not_be_returned_is_dropped_and_counted(settings: Settings, runtime: Runtime) -> None:
    lying = replace(runtime, engine=LyingEngine(runtime))
    async with client_of(create_app(settings, lambda _: lying)) as client:
        before = (await samples(client))["vip5_invalid_items_total",]
        answer = (await client.post("/recommend/sequential", json=ASK)).json()
        after = (await samples(client))["vip5_invalid_items_total",]

    assert [item["rank"] for item in answer["items"]] == [1, 2]
    assert "item-10" not in {item["item_id"] for item in answer["items"]}
    assert after - before == 1


async def test_the_bundle_is_named(client: httpx.AsyncClient, runtime: Runtime) -> None:
    found = await samples(client)

    for domain in ("toys", "words"):
        assert found["vip5_bundle_info", f"domain={domain}", f"hash={runtime.bundle_hash}"] == 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/domains/toys/items?limit=1", "/domains/{name}/items"),
        ("/domains/toys/columns", "/domains/{name}/columns"),
        ("/domains/toys/users?limit=1", "/domains/{name}/users"),
        ("/domains/toys", "/domains/{name}"),
        ("/page/dom.js", "/page/{file}"),
        ("/docs/swagger-ui.css", "/docs/{file}"),
        ("/docs", "/docs"),
        ("/openapi.json", "/openapi.json"),
        ("/", "/"),
    ],
)
async def test_routes_are_named_by_their_whole_templates(client: httpx.AsyncClient, path: str, route: str) -> None:
    response = await client.get(path)
    text = (await client.get("/metrics")).text

    assert response.status_code == 200
    assert f'route="{route}",status="200"}} 1.0' in text


async def test_unknown_paths_and_domains_make_no_new_labels(client: httpx.AsyncClient) -> None:
    await client.get("/some/thing")
    await client.post("/recommend/sequential", json=ASK | {"domain": "some-domain"})
    text = (await client.get("/metrics")).text

    assert 'vip5_requests_total{domain="",route="unmatched",status="404"} 1.0' in text
    assert 'vip5_requests_total{domain="",route="/recommend/sequential",status="404"} 1.0' in text
    assert "some" not in text


@pytest.fixture
def json_lines() -> Iterator[None]:
    """Logging as the command sets it up, undone at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.mark.usefixtures("json_lines")
async def test_each_request_has_one_line_without_anything_private(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    headers = {"X-Request-ID": "shop-1", "Authorization": "Bearer hush"}
    await client.post("/recommend/sequential", json=ASK, headers=headers)
    await client.post("/recommend/sequential", json=ASK | {"k": 0}, headers={"X-Request-ID": "shop-2"})
    await client.get("/health/ready")
    await client.get("/metrics")

    out = capsys.readouterr().out
    lines = [json.loads(line) for line in out.splitlines()]
    first, second = [line for line in lines if line["event"] == "request"]
    assert first["request_id"] == "shop-1"
    assert first["route"] == "/recommend/sequential"
    assert first["domain"] == "toys"
    assert first["status"] == 200
    assert first["num_items"] == 3
    assert first["degraded"] == ["missing_features", "untrained_model"]
    assert set(first["stages_ms"]) == {"plan", "features", "queue", "encode", "decode", "total"}
    assert first["duration_ms"] > 0
    assert first["level"] == "INFO"
    assert first["time"]
    assert (second["request_id"], second["status"], second["error"]) == ("shop-2", 422, "invalid_input")
    for private in ("item-1", "item-11", "u1", "Ann", "Secret", "hush"):
        assert f'"{private}' not in out
        assert f" {private}" not in out
