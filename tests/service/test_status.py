"""/status: figures of the last minutes, in three forms, for those who may see them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from model.degradation import DegradationKind
from model.planning.runtime import Runtime
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.status import status_text
from service.observability.metrics import Metrics
from service.observability.recent import WINDOW_S, Recent
from service.schemas.status import StatusAnswer
from service.settings.settings import Settings
from tests.service.conftest import client_of

JSON = {"Accept": "application/json"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ROUTE = "/recommend/sequential"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_quantiles_are_interpolated_in_their_bucket() -> None:
    metrics = Metrics()
    recent = Recent(metrics)
    for _ in range(10):
        metrics.observe_request(ROUTE, "toys", 200, 0.15)
    metrics.observe_request("/explain", "toys", 200, 100.0)
    window = recent.window()
    name = "vip5_e2e_request_latency_seconds"

    assert window.quantile_s(name, 0.5, route=ROUTE) == pytest.approx(0.175)  # half of the bucket from 0.1 to 0.25
    assert window.quantile_s(name, 0.5, route="/explain") == 30.0
    assert window.quantile_s(name, 0.5, route="/docs") is None


def test_a_window_forgets_what_was_long_ago() -> None:
    metrics, clock = Metrics(), Clock()
    recent = Recent(metrics, clock)
    metrics.count_degraded([DegradationKind.UNKNOWN_USER])
    for second in range(0, int(3 * WINDOW_S), 10):
        clock.now = float(second)
        recent.take()
    metrics.count_degraded([DegradationKind.UNKNOWN_ITEMS])
    window = recent.window()

    gained = {labels["kind"]: value for labels, value in window.gained("vip5_degraded_total") if value}
    assert gained == {"unknown_items": 1.0}
    assert WINDOW_S <= window.duration_s <= WINDOW_S + 20


async def test_requests_show_with_their_errors(client: httpx.AsyncClient) -> None:
    await client.post(ROUTE, json={"domain": "toys", "history": ["item-1"], "k": 2})
    await client.post(ROUTE, json={"domain": "books", "history": ["item-1"]})
    status = (await client.get("/status", headers=JSON)).json()

    (route,) = [each for each in status["routes"] if each["route"] == ROUTE]
    assert (route["num_requests"], route["num_errors"], route["num_rejected"]) == (2, 0, 0)
    assert 0 < route["p50_ms"] <= route["p95_ms"]
    assert status["status"] == "ready"
    assert status["num_rankings"] == 1
    assert status["degraded"] == {"anonymous_user": 1, "untrained_model": 1}
    assert [domain["name"] for domain in status["domains"]] == ["toys", "words"]
    assert {each["role"] for domain in status["domains"] for each in domain["versions"]} == {"stable"}
    assert status["redis"] == "not configured"


async def test_each_reader_gets_its_form(client: httpx.AsyncClient) -> None:
    page = await client.get("/status", headers=BROWSER)
    text = await client.get("/status", headers={"Accept": "*/*"})
    body = await client.get("/status", headers=JSON)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text.startswith("READY\n")
    assert "stable" in text.text
    assert body.headers["content-type"] == "application/json"
    assert [each.headers["vary"] for each in (page, text, body)] == ["Accept"] * 3


async def test_a_small_share_of_a_canary_is_not_rounded_away(client: httpx.AsyncClient) -> None:
    found = StatusAnswer.model_validate((await client.get("/status", headers=JSON)).json())
    version = found.domains[0].versions[0].model_copy(update={"role": "canary", "share": 0.001})
    domain = found.domains[0].model_copy(update={"versions": [version]})
    assert " for 0.1% of the users" in status_text(found.model_copy(update={"domains": [domain]}))


async def test_what_is_wrong_comes_first_and_names_no_folder(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    state = state_of(app)
    state.readiness.degraded = lambda: [f"{settings.bundle}/manifest.json was changed"]
    state.metrics.count_background_failure("journal")
    lines = (await client.get("/status")).text.splitlines()

    assert lines[:2] == ["READY", "  fault: manifest.json was changed"]
    assert "background task journal: 1 failures" in lines


async def test_the_public_port_needs_a_key_if_there_are_keys(
    settings: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    keys = {name: new_key(name, **options) for name, options in KEYS.items()}
    (tmp_path / "keys").write_text("".join(f"{key.line}\n" for key in keys.values()))
    given = settings.model_copy(update={"api_keys_file": tmp_path / "keys"})
    async with client_of(create_app(given, lambda _: runtime)) as client:
        found = {}
        for name, key in keys.items():
            response = await client.get("/status", headers=JSON | {"X-API-Key": key.key})
            found[name] = [each["name"] for each in response.json().get("domains", [])]
        without, page = await client.get("/status"), await client.get("/status", headers=BROWSER)

    assert found == {"all": ["toys", "words"], "words": ["words"], "explain": []}
    assert (without.status_code, page.status_code) == (401, 200)
    assert "toys" not in page.text


KEYS: dict[str, dict[str, object]] = {"all": {}, "words": {"domains": ["words"]}, "explain": {"routes": ["explain"]}}


async def test_a_port_of_its_own_needs_no_key(settings: Settings, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(new_key("someone").line)
    given = settings.model_copy(
        update={"api_keys_file": tmp_path / "keys", "admin_token": SecretStr("x" * 16), "admin_port": 0}
    )
    app = create_app(given, lambda _: runtime)
    admin_app = state_of(app).admin_app
    assert admin_app is not None
    async with client_of(app) as client:
        public = await client.get("/status", headers=JSON)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(admin_app), base_url="http://test") as admin:
            own = await admin.get("/status", headers=JSON)

    assert (public.status_code, own.status_code) == (404, 200)
    assert [domain["name"] for domain in own.json()["domains"]] == ["toys", "words"]
