"""Pages of the listed origins may use the public routes in a browser; pages of others, and /admin, may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from model.planning.runtime import Runtime
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.cross_origin import ANSWER_HEADERS, CrossOrigin
from service.settings.loading import SettingsError, load_settings
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.raw_http import GET, HOST, listening, say
from tests.service.test_bad_input import check_problem
from tests.service.workers import states_of

SHOP, OTHER = "https://shop.example", "https://other.example"
TOKEN = "open-sesame-open-sesame"
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"], "k": 2}
KEY = new_key("shop")


def preflight(method: str = "POST", headers: str = "content-type", origin: str = SHOP) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}


def allowed(response: httpx.Response) -> str | None:
    origin: str | None = response.headers.get("access-control-allow-origin")
    return origin


@pytest.fixture
def app(settings: Settings, runtime: Runtime, tmp_path: Path) -> FastAPI:
    """With all that a preflight must pass: keys, a rate limit of nothing, administration on the same port."""
    keys = tmp_path / "keys"
    keys.write_text(KEY.line + "\n")
    given = {"api_keys_file": keys, "rate_limit": "3/hour", "admin_token": SecretStr(TOKEN), "cors_origins": (SHOP,)}
    return create_app(settings.model_copy(update=given), lambda _: runtime)


def app_for(settings: Settings, runtime: Runtime, *origins: str, **others: Any) -> FastAPI:  # noqa: ANN401
    return create_app(settings.model_copy(update={"cors_origins": origins, **others}), lambda _: runtime)


def with_key(**others: str) -> dict[str, str]:
    return {"Origin": SHOP, "X-API-Key": KEY.key} | others


async def test_a_preflight_needs_no_key_and_counts_against_no_limit(client: httpx.AsyncClient) -> None:
    asked = "authorization,content-type,traceparent,x-api-key,x-request-id"
    for _ in range(5):
        response = await client.options("/recommend/sequential", headers=preflight("POST", asked))
        assert response.status_code == 200, response.text
        assert allowed(response) == SHOP
        assert response.headers["access-control-allow-methods"] == "POST"
        assert response.headers["x-request-id"]
        assert "Origin" in response.headers["vary"]
    answer = await client.post("/recommend/sequential", json=ASK, headers=with_key())
    assert (answer.status_code, allowed(answer)) == (200, SHOP)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/recommend/sequential", "GET", 400),
        ("/recommend/sequential", "DELETE", 400),
        ("/domains", "GET", 200),
        ("/domains", "HEAD", 200),
        ("/domains/toys/items", "GET", 200),
        ("/domains/toys/items", "POST", 400),
        ("/explain", "POST", 200),
        ("/no/such/path", "POST", 200),  # the page is shown the 404 then
    ],
)
async def test_methods_are_those_of_the_route(client: httpx.AsyncClient, path: str, method: str, status: int) -> None:
    response = await client.options(path, headers=preflight(method))

    assert response.status_code == status
    if status == 400:
        assert method not in response.headers["access-control-allow-methods"].split(", ")


async def test_a_refused_preflight_is_a_problem_document_that_says_why(client: httpx.AsyncClient) -> None:
    origin = await client.options("/explain", headers=preflight(origin=OTHER))
    header = await client.options("/explain", headers=preflight(headers="x-secret"))

    assert OTHER in check_problem(origin, 400, "cross_origin_refused")["detail"]
    assert "x-secret" in check_problem(header, 400, "cross_origin_refused")["detail"]
    assert (allowed(origin), allowed(header)) == (None, SHOP)


async def test_errors_of_every_kind_carry_the_headers(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def statuses(*responses: httpx.Response) -> list[int]:
        for response in responses:
            assert allowed(response) == SHOP, response.text
            assert response.headers["access-control-expose-headers"] == ", ".join(ANSWER_HEADERS)
            assert "Origin" in response.headers["vary"]
        return [response.status_code for response in responses]

    ask, explain = "/recommend/sequential", "/explain"
    assert await statuses(
        await client.post(ask, json=ASK, headers={"Origin": SHOP}),
        await client.get("/no/such/path", headers=with_key()),
        await client.get(ask, headers=with_key()),
        await client.post(ask, content="x" * 5_000, headers=with_key(**{"Content-Type": "application/json"})),
        await client.post(ask, content="{}", headers=with_key(**{"Content-Type": "text/plain"})),
        await client.post(ask, json={"domain": 1}, headers=with_key()),
    ) == [401, 404, 405, 413, 415, 422]
    for _ in range(3):
        response = await client.post(explain, json={"domain": "?", "item_id": "?"}, headers=with_key())
    assert await statuses(response) == [429]
    state_of(app).rate_limits = None
    state_of(app).readiness.drain()
    assert await statuses(await client.post(ask, json=ASK, headers=with_key())) == [503]


async def test_an_unexpected_error_carries_the_headers(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in states_of(app):
        monkeypatch.setattr(state, "running_service", None)  # an assertion of ours fails

    response = await client.get("/domains", headers=with_key())

    check_problem(response, 500, "internal_error")
    assert allowed(response) == SHOP


async def test_a_stream_of_events_carries_the_headers(client: httpx.AsyncClient) -> None:
    body = {"domain": "toys", "item_id": "item-1", "stream": True, "max_new_tokens": 2}

    response = await client.post("/explain", json=body, headers=with_key())

    assert response.headers["content-type"].startswith("text/event-stream")
    assert allowed(response) == SHOP


async def test_other_origins_read_nothing_and_caches_are_told(client: httpx.AsyncClient) -> None:
    for headers in ({"Origin": OTHER}, {"Origin": "null"}, {"Origin": SHOP + ".other.example"}, {}):
        response = await client.get("/health/live", headers=headers)
        assert (response.status_code, allowed(response)) == (200, None)
        assert response.headers["vary"] == "Origin"


async def test_administration_and_metrics_never_take_part(app: FastAPI, client: httpx.AsyncClient) -> None:
    authorized = {"Authorization": f"Bearer {TOKEN}", "Origin": SHOP}
    paths = [path for path in app.openapi()["paths"] if path.startswith(("/admin", "/metrics"))]
    assert len(paths) > 10
    for path in paths:
        for method in ("GET", "POST", "PATCH", "DELETE"):
            response = await client.options(path.format(name="toys"), headers=preflight(method, "authorization"))
            assert response.status_code == 405
            assert not [name for name in response.headers if name.startswith("access-control")]
    for path in ("/admin/domains", "/metrics"):
        response = await client.get(path, headers=authorized)
        assert (response.status_code, allowed(response)) == (200, None)


async def test_an_admin_port_never_takes_part(settings: Settings, runtime: Runtime) -> None:
    app = app_for(settings, runtime, "*", admin_port=0, admin_token=SecretStr(TOKEN))
    admin_app = state_of(app).admin_app
    assert admin_app is not None

    async with (
        client_of(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(admin_app), base_url="http://t") as admin,
    ):
        response = await admin.get("/openapi.json", headers={"Origin": SHOP})

    assert (response.status_code, allowed(response)) == (200, None)


async def test_every_origin_is_let_in_but_not_into_a_private_network(settings: Settings, runtime: Runtime) -> None:
    private = {"Access-Control-Request-Private-Network": "true"}
    async with client_of(app_for(settings, runtime, "*")) as client:
        assert allowed(await client.get("/health/live", headers={"Origin": OTHER})) == "*"
        assert (await client.options("/explain", headers=preflight(origin=OTHER))).status_code == 200
        refused = await client.options("/explain", headers=preflight(origin=OTHER) | private)
    async with client_of(app_for(settings, runtime, SHOP)) as client:
        granted = await client.options("/explain", headers=preflight() | private)

    assert "private-network" in check_problem(refused, 400, "cross_origin_refused")["detail"]
    assert granted.headers["access-control-allow-private-network"] == "true"


async def test_cookies_are_never_allowed(client: httpx.AsyncClient) -> None:
    response = await client.options("/explain", headers=preflight())

    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("prefix", ["", "/vip5"], ids=["removed by the proxy", "kept"])
async def test_behind_a_prefix_administration_is_still_recognised(
    settings: Settings, runtime: Runtime, prefix: str
) -> None:
    app = app_for(settings, runtime, SHOP, root_path="/vip5", admin_token=SecretStr(TOKEN))
    async with client_of(app) as client:
        response = await client.options(f"{prefix}/admin/domains", headers=preflight("GET"))
        public = await client.options(f"{prefix}/explain", headers=preflight())

    assert (response.status_code, allowed(response)) == (405, None)
    assert (public.status_code, allowed(public)) == (200, SHOP)


async def test_refusals_below_the_app_carry_the_headers(settings: Settings, runtime: Runtime) -> None:
    origin = f"Origin: {SHOP}\r\n".encode() + HOST  # a header is known once the next one begins
    given = settings.model_copy(update={"cors_origins": (SHOP,)})
    async with listening(create_app(given, lambda _: runtime), given) as port:
        large = await say(port, GET + origin + b"X: " + b"x" * 70_000 + b"\r\n\r\n")
        bad = await say(port, GET + origin + b"Bad Header\r\n\r\n")
        admin = await say(port, b"GET /admin/domains HTTP/1.1\r\n" + origin + b"Bad Header\r\n\r\n")
        nothing = await say(port, b"\x16\x03\x01")

    assert (large.statuses, bad.statuses, admin.statuses, nothing.statuses) == ([431], [400], [400], [400])
    allow = f"access-control-allow-origin: {SHOP}".encode()
    assert [allow in answer.raw.lower() for answer in (large, bad, admin, nothing)] == [True, True, False, False]


async def test_without_origins_there_is_no_trace_of_it(settings: Settings, runtime: Runtime) -> None:
    app = app_for(settings, runtime)
    async with client_of(app) as client:
        answered = await client.get("/health/live", headers={"Origin": SHOP})
        asked = await client.options("/explain", headers=preflight())

    assert CrossOrigin().wrap(app) is app
    check_problem(asked, 405, "method_not_allowed")
    for response in (answered, asked):
        assert "vary" not in response.headers
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_list_of_origins_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ("https://shop.example", "http://localhost:3000", "http://[::1]:8080", "capacitor://localhost")
    monkeypatch.setenv("VIP5_CORS_ORIGINS", str(list(listed)).replace("'", '"'))
    assert load_settings({"bundle": "b"}).cors_origins == listed
    monkeypatch.setenv("VIP5_CORS_ORIGINS", '["*"]')
    assert load_settings({"bundle": "b"}).cors_origins == ("*",)
    monkeypatch.setenv("VIP5_CORS_ORIGINS", "[]")
    assert load_settings({"bundle": "b"}).cors_origins == ()


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("https://shop.example", 'write a list such as ["https://shop.example"]'),
        ("", 'write a list such as ["https://shop.example"]'),
        ("{}", "write a JSON list"),
        ("[1]", "write a JSON list"),
        ('["shop.example"]', "scheme://host"),
        ('["null"]', "scheme://host"),
        ('["https://*.shop.example"]', "each one by its full name"),
        ('["https://shop.example/"]', "write 'https://shop.example'"),
        ('["https://shop.example/app"]', "write 'https://shop.example'"),
        ('["https://Shop.example:443"]', "write 'https://shop.example'"),
        ('["https://user:secret@shop.example"]', "write 'https://shop.example'"),
        ('["https://bücher.example"]', "write 'https://xn--bcher-kva.example'"),
        ('["*", "https://shop.example"]', 'write ["*"] alone'),
    ],
)
def test_an_origin_that_no_browser_sends_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str, remedy: str
) -> None:
    monkeypatch.setenv("VIP5_CORS_ORIGINS", value)

    with pytest.raises(SettingsError) as caught:
        load_settings({"bundle": "b"})

    assert "VIP5_CORS_ORIGINS" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client
