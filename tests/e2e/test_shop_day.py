"""A day of a shop over HTTP: what happens to its users and its stock is in the next answers, also over an outage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.children import until
from tests.e2e.processes import PATIENCE_S, serving
from tests.redis_servers import RedisServer, redis_server
from tests.service.live import AUTHORIZED, TOKEN
from tests.tiny import tiny_bundle

ANN = {"domain": "toys", "user_id": "u1"}
HISTORY = "/domains/toys/users/u1/history"
CATALOG = "/admin/domains/toys/catalog"


class Day:
    """A shop's calls."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def buys(self, *item_ids: str) -> None:
        answer = self.client.post("/events", json=[{**ANN, "item_id": each} for each in item_ids])
        assert (answer.status_code, answer.json()["stored"]) == (200, len(item_ids))

    def asks(self, **fields: object) -> dict[str, Any]:
        answer = self.client.post("/recommend/sequential", json={**ANN, "k": 6, **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def items(self, **fields: object) -> list[str]:
        return [item["item_id"] for item in self.asks(**fields)["items"]]

    def admin(self, method: str, path: str, body: object = None) -> None:
        answer = self.client.request(method, path, json=body, headers=AUTHORIZED)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def day(redis: RedisServer, tmp_path: Path) -> Iterator[Day]:
    env = {"VIP5_ADMIN_TOKEN": TOKEN, "VIP5_HISTORY_STORE": "redis", "VIP5_REDIS_URL": redis.url}
    with (
        serving(tiny_bundle(tmp_path), env) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        yield Day(client)


def test_a_shops_day(day: Day, redis: RedisServer) -> None:
    # Purchases come in, and the next answer knows them.
    day.buys("item-3", "item-5")
    morning = day.items()
    assert morning == day.items(history=["item-3", "item-5"])
    day.buys("item-8")
    assert day.items() == day.items(history=["item-3", "item-5", "item-8"]) != morning

    # The best item sells out, and comes back.
    best, *others = day.items()
    day.admin("PATCH", CATALOG, {"deactivate": [best]})
    assert day.items()[: len(others)] == others
    day.admin("PATCH", CATALOG, {"activate": [best]})
    assert day.items() == [best, *others]

    # Games are promoted, for all and then for one request only; no more than two of a kind.
    plain = day.asks()
    day.admin("PUT", "/admin/domains/toys/boosts", {"columns": {"category": {"games": 1_000_000}}})
    assert {item["attributes"]["category"] for item in day.asks()["items"]} == {"games"}
    assert day.asks(domain_boosts=False)["items"] == plain["items"]
    day.admin("DELETE", "/admin/domains/toys/boosts")
    assert day.asks()["items"] == plain["items"]
    boost = {"columns": {"category": {"games": 1_000_000}}}
    mixed = day.asks(boost=boost, max_per={"category": 2}, exactness="certified")["items"]
    kinds = [item["attributes"]["category"] for item in mixed]
    assert kinds[:2] == ["games", "games"]
    assert sorted(kinds) == ["dolls", "dolls", "games", "games", "puzzles", "puzzles"]

    # A list that was shown gives way to others.
    rotate = {"factor": 1e-6, "fade_s": 3600}
    first = day.items(rotate=rotate)
    until(lambda: not set(first) & set(day.items(rotate=rotate)), "what was shown stays in the list")

    # One of the recommendations is explained.
    explained = day.client.post("/explain", json={**ANN, "item_id": best})
    assert explained.status_code == 200
    assert explained.json()["text"]

    # Redis is lost: events are refused with a time, popular items stand in, and a history that is sent still counts.
    brought = day.items(history=["item-3"])
    redis.kill()
    refused = day.client.post("/events", json={**ANN, "item_id": "item-9"})
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert {each["kind"] for each in day.asks()["degraded"]} >= {"history_unavailable"}
    assert day.items(history=["item-3"]) == brought

    # And back, with all that was acknowledged; then the user wants to be forgotten.
    redis.start()
    until(lambda: day.client.get(HISTORY).status_code == 200, "Redis is back, and histories are not")
    assert [each["item_id"] for each in day.client.get(HISTORY).json()["events"]] == ["item-3", "item-5", "item-8"]
    assert day.client.delete(HISTORY).status_code == 200
    with redis.client as client:
        assert not [key for key in client.scan_iter("*") if b"u1" in key]
    assert {each["kind"] for each in day.asks()["degraded"]} >= {"history_missing"}
