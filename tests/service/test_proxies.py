"""Behind proxies: whose word counts, under which path and name the service is found."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urljoin

import httpx
import pytest

from model.planning.runtime import Runtime
from service.http.app import create_app
from service.http.proxies import AllowedHosts, TrustedProxies
from service.settings.loading import SettingsError, load_settings
from service.settings.settings import Settings
from tests.service.conftest import client_of

ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"], "k": 1}
LOOPBACK = "127.0.0.1"
PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"

Served: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def served(settings: Settings, runtime: Runtime) -> Served:
    """A client at an address, of an app with other settings."""

    @asynccontextmanager
    async def serve(peer: str | None = LOOPBACK, **others: object) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(settings.model_copy(update=others), lambda _: runtime)
        async with client_of(app, address=None if peer is None else (peer, 4711)) as client:
            yield client

    return serve


async def ask(client: httpx.AsyncClient, *forwarded_for: str) -> int:
    headers = [("X-Forwarded-For", each) for each in forwarded_for]
    return (await client.post("/recommend/sequential", json=ASK, headers=headers)).status_code


# The client's address


@pytest.mark.parametrize("peer", [LOOPBACK, "::1", CLIENT, None])
async def test_nobody_evades_the_rate_limit_by_a_header(served: Served, peer: str | None) -> None:
    async with served(peer, rate_limit="1/hour") as client:
        assert [await ask(client, f"198.51.100.{n}") for n in range(3)] == [200, 429, 429]


async def test_the_addresses_of_one_ipv6_network_are_one_client(served: Served) -> None:
    async with served(PROXY, rate_limit="1/hour", trusted_proxies=(PROXY,)) as client:
        assert [await ask(client, f"2001:db8:1:2:{n}::{n}") for n in range(3)] == [200, 429, 429]
        assert await ask(client, "2001:db8:1:3::1") == 200, "the next network"
        assert [await ask(client, f"::ffff:192.0.2.{n}") for n in (1, 2, 1)] == [200, 200, 429], "IPv4 in IPv6"


async def test_the_link_local_addresses_of_two_interfaces_are_two_clients(served: Served) -> None:
    for zone in ("eth0", "eth1"):
        async with served(f"fe80::1%{zone}", rate_limit="1/hour") as client:
            assert [await ask(client), await ask(client)] == [200, 429]


@pytest.mark.parametrize("host", ["shop.example", "test"])
async def test_two_host_headers_are_refused_even_if_they_are_equal(served: Served, host: str) -> None:
    async with served() as client:
        answer = await client.get("/domains", headers=[("Host", host), ("Host", host)])
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_host")


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [(PROXY, ("10.0.0.0/8",)), (f"::ffff:{PROXY}", (PROXY,)), ("2001:db8::1", ("2001:db8::/32",)), (None, ("unix",))],
)
async def test_a_trusted_proxy_says_who_the_client_is(served: Served, peer: str | None, trusted: tuple[str]) -> None:
    async with served(peer, rate_limit="1/hour", trusted_proxies=trusted) as client:
        assert await ask(client, CLIENT) == 200
        assert await ask(client, f"198.51.100.1, {CLIENT}") == 429, "what a client puts before its address"
        assert await ask(client, "198.51.100.2", f"{CLIENT}:5000") == 429, "in a line of its own"
        assert await ask(client, "198.51.100.3") == 200


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ([], PROXY),
        ([CLIENT], CLIENT),
        (["1.1.1.1, 2.2.2.2, 203.0.113.7"], CLIENT),
        (["1.1.1.1, 203.0.113.7, 10.9.9.9"], CLIENT),
        (["1.1.1.1", "203.0.113.7", "10.9.9.9, 10.8.8.8"], CLIENT),
        (["203.0.113.7:1234"], CLIENT),
        (["[2001:db8::5]:1234"], "2001:db8::5"),
        (["2001:DB8:0::5"], "2001:db8::5"),
        (["::ffff:203.0.113.7"], CLIENT),
        (["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        (["unknown"], PROXY),
        (["1.1.1.1, unknown"], PROXY),
        (["1.1.1.1, unknown, 10.9.9.9"], "10.9.9.9"),
        (["203.0.113.7, "], PROXY),
        (["unix"], PROXY),
    ],
)
def test_the_client_is_the_rightmost_hop_that_is_not_trusted(forwarded_for: list[str], client: str) -> None:
    assert TrustedProxies(("10.0.0.0/8", "unix")).client_of(PROXY, forwarded_for) == client


# The path


async def document_of(client: httpx.AsyncClient, page: str, headers: dict[str, str] | None = None) -> str:
    """Where the page's script looks for the OpenAPI document, as a browser resolves it."""
    text = (await client.get(page, headers=headers)).text
    url: str
    (url,) = re.findall(r"['\"]([^'\"]*openapi\.json)['\"]", text)
    return urljoin(page, url)


@pytest.mark.parametrize("prefix", ["", "/shop/recommender"], ids=["removed by the proxy", "kept"])
async def test_everything_is_found_under_the_root_path(served: Served, prefix: str) -> None:
    async with served(root_path="/shop/recommender") as client:
        assert (await client.get(f"{prefix}/health/ready")).status_code == 200
        assert await document_of(client, f"{prefix}/docs") == f"{prefix}/openapi.json"
        document = (await client.get(f"{prefix}/openapi.json")).json()
        assert document["servers"][0] == {"url": "/shop/recommender"}
        moved = await client.get(f"{prefix}/domains/?limit=2")
        assert moved.headers["location"] == "/shop/recommender/domains?limit=2"
        assert (await client.post(f"{prefix}/recommend/sequential", json=ASK)).status_code == 200
        assert (await client.get(f"{prefix}/nowhere")).status_code == 404


async def test_a_trusted_proxy_names_the_prefix_that_it_removed(served: Served) -> None:
    headers = {"X-Forwarded-Prefix": "/recommend/"}
    async with served(PROXY, trusted_proxies=(PROXY,), root_path="/other") as client:
        assert await document_of(client, "/docs", headers) == "/openapi.json", "relative, so that any prefix fits"
        moved = await client.get("/domains/", headers=headers)
        assert moved.headers["location"] == "/recommend/domains"
        assert (await client.post("/recommend/sequential", json=ASK, headers=headers)).status_code == 200
    async with served(CLIENT, trusted_proxies=(PROXY,)) as client:
        assert await document_of(client, "/docs", headers) == "/openapi.json"


@pytest.mark.parametrize("prefix", ["//evil.example", "/a'+alert(1)+'", "evil", "/a?b", "/<script>", "/a b", "/é"])
async def test_a_prefix_that_is_no_plain_path_is_ignored(served: Served, prefix: str) -> None:
    async with served(PROXY, trusted_proxies=(PROXY,)) as client:
        headers = {b"X-Forwarded-Prefix": prefix.encode()}
        assert (await client.get("/domains/", headers=headers)).headers["location"] == "/domains"


@pytest.mark.parametrize("path", ["/domains/", "/health/ready/", "/domains/toys/"])
async def test_redirects_name_no_host(served: Served, path: str) -> None:
    async with served() as client:
        answer = await client.get(path, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})

    assert answer.status_code == 307
    assert answer.headers["location"] == path.rstrip("/")


# The name


async def test_only_the_allowed_hosts_are_answered(served: Served) -> None:
    async with served(allowed_hosts=("shop.example", "*.shop.example", "::1")) as client:
        for host in (
            "shop.example",
            "SHOP.example:8000",
            "a.shop.example",
            "b.a.shop.example",
            "shop.example.",
            "[::1]:80",
        ):
            assert (await client.get("/domains", headers={"Host": host})).status_code == 200, host
        for host in ("", "evil.example", "evil-shop.example", "shop.example.evil.example", "example", "::2"):
            answer = await client.get("/domains", headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (400, "unknown_host"), host
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
        for path in ("/health/live", "/health/ready", "/v2/health/ready", "/metrics"):
            assert (await client.get(path, headers={"Host": "10.1.2.3:8000"})).status_code == 200, "as probes ask"
        counted = 'vip5_requests_total{domain="",route="unmatched",status="400"} 6.0'
        assert counted in (await client.get("/metrics")).text


async def test_a_trusted_proxy_says_which_host_was_asked(served: Served) -> None:
    headers = {"Host": "internal", "X-Forwarded-Host": "shop.example"}
    async with served(PROXY, trusted_proxies=(PROXY,), allowed_hosts=("shop.example",)) as client:
        assert (await client.get("/domains", headers=headers)).status_code == 200
    async with served(CLIENT, trusted_proxies=(PROXY,), allowed_hosts=("shop.example",)) as client:
        assert (await client.get("/domains", headers=headers)).status_code == 400


async def test_two_hosts_are_none(served: Served) -> None:
    async with served() as client:
        answer = await client.get("/domains", headers=[("Host", "a"), ("Host", "b")])

    assert answer.json()["code"] == "unknown_host"


def test_any_host_is_allowed_without_a_list() -> None:
    AllowedHosts(None).check(["whatever"])
    AllowedHosts(None).check([])


# HEAD


async def test_every_get_route_answers_head_like_get_without_the_body(served: Served) -> None:
    async with served() as client:
        for path in (
            "/health/live",
            "/health/ready",
            "/v2/health/live",
            "/metrics",
            "/domains",
            "/domains/toys/items",
            "/docs",
            "/openapi.json",
            "/nowhere",
            "/domains/",
            "/domains/nowhere",
        ):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert head.headers.get("content-type") == got.headers.get("content-type"), path
        assert (await client.head("/recommend/sequential")).status_code == 405


# Settings


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("VIP5_TRUSTED_PROXIES", "10.0.0.1", "JSON list"),
        ("VIP5_TRUSTED_PROXIES", '"10.0.0.1"', "JSON list"),
        ("VIP5_TRUSTED_PROXIES", '["proxy"]', "'proxy' is not an address"),
        ("VIP5_TRUSTED_PROXIES", '["10.0.0.0/40"]', "is not an address"),
        ("VIP5_ALLOWED_HOSTS", "shop.example", "JSON list"),
        ("VIP5_ALLOWED_HOSTS", '["https://shop.example"]', "is not a host name"),
        ("VIP5_ALLOWED_HOSTS", "[1]", "string"),
        ("VIP5_ROOT_PATH", "recommender", "is not a plain path"),
        ("VIP5_ROOT_PATH", "/a//b", "is not a plain path"),
        ("VIP5_ROOT_PATH", "/recommend", "choose another first part"),
        ("VIP5_HOST", "", "an address is missing"),
        ("VIP5_KEEP_ALIVE_S", "0", "greater than 0"),
        ("VIP5_UNIX_SOCKET_MODE", "999", "pattern"),
    ],
)
def test_a_bad_setting_is_explained(monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", "demo/bundle")
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name) as error:
        load_settings()

    assert reason in str(error.value)


def test_lists_are_read_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", "demo/bundle")
    monkeypatch.setenv("VIP5_TRUSTED_PROXIES", '["10.0.0.0/8", "::1", "unix"]')
    monkeypatch.setenv("VIP5_ALLOWED_HOSTS", '["shop.example", "*.shop.example"]')
    monkeypatch.setenv("VIP5_ROOT_PATH", "/recommender/")

    settings = load_settings()

    assert settings.trusted_proxies == ("10.0.0.0/8", "::1", "unix")
    assert settings.allowed_hosts == ("shop.example", "*.shop.example")
    assert settings.root_path == "/recommender"
