"""Histories over HTTP with a real Redis: events in, recommendations from them, Redis lost and back, a user erased."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.processes import Server, serving
from tests.redis_servers import RedisServer, redis_server
from tests.tiny import tiny_bundle

PATIENCE_S = 60
ANN = {"domain": "toys", "user_id": "ann-the-secret"}
HISTORY = "/domains/toys/users/ann-the-secret/history"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that may be stopped."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer, num_workers: int) -> Iterator[Server]:
    bundle = tiny_bundle(tmp_path_factory.mktemp("histories"))
    settings = {"VIP5_HISTORY_STORE": "redis", "VIP5_REDIS_URL": redis.url, "VIP5_HISTORY_TIMEOUT_MS": "500"}
    with serving(bundle, settings) as server:
        yield server


def recommended(client: httpx.Client, **more: object) -> dict[str, Any]:
    answer = client.post("/recommend/sequential", json={**ANN, "k": 5, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def kinds(answer: dict[str, Any]) -> set[str]:
    return {each["kind"] for each in answer["degraded"]}


def until_taken(client: httpx.Client, event: dict[str, str]) -> None:
    """Send an event again until it is taken, as a client does."""
    deadline = time.monotonic() + PATIENCE_S
    while client.post("/events", json=event).status_code != 200:
        assert time.monotonic() < deadline


def test_a_shops_histories_outlive_redis_and_end_when_they_are_erased(service: Server, redis: RedisServer) -> None:
    with service.client() as client, httpx.Client(base_url=service.url, timeout=PATIENCE_S) as other:
        assert "history_missing" in kinds(recommended(client))
        for number in (3, 5, 8):  # over connections that different workers may have
            sent = (client, other)[number % 2].post("/events", json={**ANN, "item_id": f"item-{number}"})
            assert sent.json()["stored"] == 1
            item_ids = [f"item-{each}" for each in (3, 5, 8) if each <= number]
            for reader in (client, other):
                assert recommended(reader)["items"] == recommended(reader, history=item_ids)["items"]

        with redis.client as direct:
            direct.save()
        redis.kill()
        lost = recommended(client)
        assert "history_unavailable" in kinds(lost)
        assert lost["items"]
        refused = client.post("/recommend/sequential", json={**ANN, "fallback": "none"})
        assert (refused.status_code, refused.json()["code"]) == (503, "histories_unavailable")
        list_of_two = [{**ANN, "item_id": "item-9"}, {**ANN, "user_id": "bob", "item_id": "item-9"}]
        refused = client.post("/events", json=list_of_two)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert client.delete(HISTORY).status_code == 503

        redis.start()
        until_taken(client, {**ANN, "item_id": "item-9", "event_id": "once"})
        until_taken(other, {**ANN, "item_id": "item-9", "event_id": "once"})
        shown = client.get(HISTORY).json()
        assert [each["item_id"] for each in shown["events"]] == ["item-3", "item-5", "item-8", "item-9"]
        assert client.get("/domains/toys/users/bob/history").json()["events"] == []

        assert client.delete(HISTORY).json() == {"erased_events": 4}
        assert "history_missing" in kinds(recommended(other))
        with redis.client as direct:
            assert not [key for key in direct.keys("*") if b"ann" in key]
    service.process.terminate()
    logged = json.dumps(service.remaining_lines())
    assert "/domains/{name}/users/{user_id:path}/history" in logged
    assert "ann-the-secret" not in logged
