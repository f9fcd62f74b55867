"""Requests that are made to do harm get a problem document, cost little, and leave the service as it was."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Scope

from model.planning.runtime import Runtime
from service.http.api_keys import new_key
from service.http.app import create_app
from service.observability.json_logging import configure_logging
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.live import TOKEN, bundle_of, live_settings, shop_of
from tests.service.test_bad_input import JSON, check_problem
from tests.service.workers import states_of

SEQUENTIAL = "/recommend/sequential"
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"], "k": 2}
MEGABYTE = 1 << 20


@pytest.fixture
def app(settings: Settings, runtime: Runtime) -> FastAPI:
    """With the limits that a service has unless it is told otherwise."""
    return create_app(settings.model_copy(update={"max_body_bytes": MEGABYTE}), lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client
        assert (await client.post(SEQUENTIAL, json=ASK)).status_code == 200, "it still answers"


def nested(opening: str, closing: str, depth: int) -> bytes:
    return f'{{"domain": "toys", "history": {opening * depth}{closing * depth}}}'.encode()


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (nested("[", "]", 200_000), {400}),
        (nested('{"a":', "}", 100_000).replace(b":}", b":1}"), {400}),
        (nested("[", "", 500_000), {400}),
        (b'{"domain": "toys", "history": ["item-1"], "k": ' + b"9" * 500_000 + b"}", {400}),
        (b'{"domain": "toys", "history": ["item-1"], "k": 1e400000}', {422}),
        (b'{"domain": "toys", "history": ["item-1"], "k": 9' + b"9" * 4_000 + b"}", {422}),
        (b'{"domain": "toys", "history": [' + b"1," * 500_000 + b"1]}", {422}),
        (b'{"domain": "toys", "history": [' + b'"",' * 300_000 + b'""]}', {422}),
        (b"{" + b",".join(b'"k%d": 1' % n for n in range(80_000)) + b"}", {422}),
        (b'{"domain": "toys", "history": ["item-1"], "k": NaN}', {422}),
        (b'{"domain": "toys", "history": ["\\ud800"]}', {422}),
        (b'{"domain": "toys", "history": ["item-1"], "user_name": "\\udfff\\ud800"}', {422}),
        (b'{"domain": "toys", "history": ["item-1"], "\\ud800": 1}', {422}),
        (b'{"domain": "\\u0000", "history": ["item-1"]}', {404}),
        (b'{"domain": "toys", "history": ["\xed\xa0\x80"]}', {422}),
        (b"\xef\xbb\xbf{}", {400, 422}),
        (b"\x00" * 1_000, {400}),
        (b'{"domain": "toys", "history": [' + b"1," * 9_998 + b"1]}", {422}),
        (b'{"domain": "toys", "history": ["item-1"], "' + b"k" * 500_000 + b'": 1}', {422}),
        (b'"' + b"\\u0041" * 100_000 + b'"', {422}),
    ],
    ids=lambda value: repr(value[:48]) if isinstance(value, bytes) else None,
)
async def test_json_that_explodes_is_refused_in_few_words(
    client: httpx.AsyncClient, body: bytes, statuses: set[int]
) -> None:
    response = await client.post(SEQUENTIAL, content=body, headers=JSON)

    assert response.status_code in statuses, response.text[:200]
    check_problem(response, response.status_code, response.json()["code"])
    assert len(response.content) < 50_000, "an answer that is longer than what was sent helps the attacker"


async def test_of_a_key_that_is_given_twice_the_last_one_counts(client: httpx.AsyncClient) -> None:
    """As in every JSON library of a proxy that could have looked at the body before."""
    body = b'{"domain": "nowhere", "domain": "toys", "history": ["item-1"], "k": 101, "k": 2}'

    assert len((await client.post(SEQUENTIAL, content=body, headers=JSON)).json()["items"]) == 2


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP", "x" * 4_000])
async def test_compressed_bodies_are_not_unpacked(client: httpx.AsyncClient, coding: str) -> None:
    bomb = gzip.compress(b"[" * 20_000_000) if "gzip" in coding else zlib.compress(b"[" * 20_000_000)

    response = await client.post(SEQUENTIAL, content=bomb, headers=JSON | {"Content-Encoding": coding})

    problem = check_problem(response, 415, "unsupported_media_type")
    assert "send uncompressed JSON" in problem["detail"]
    assert len(response.content) < 1_000


async def test_a_body_may_say_that_it_is_not_compressed(client: httpx.AsyncClient) -> None:
    headers = JSON | {"Content-Encoding": "identity"}

    assert (await client.post(SEQUENTIAL, content=json.dumps(ASK), headers=headers)).status_code == 200


async def test_a_body_that_comes_too_slowly_is_given_up(app: FastAPI, client: httpx.AsyncClient) -> None:
    for state in states_of(app):
        state.receive_s = 0.01

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    problem = check_problem(await client.post(SEQUENTIAL, content=trickle(), headers=JSON), 408, "request_timeout")

    assert "within 0.01 s" in problem["detail"]
    for state in states_of(app):
        state.receive_s = 10


@pytest.mark.parametrize(
    "request_id",
    [b"a\r\nSet-Cookie: x=1", b"a\nb", b"a\x00", b"\xff", b"x" * 129, b"x" * 60_000, b"a\x7f", b"a\x1b[2J"],
)
async def test_a_request_id_cannot_smuggle_headers_or_log_lines(
    app: FastAPI, client: httpx.AsyncClient, request_id: bytes
) -> None:
    """Straight into the app, for a client's library would not send some of them."""
    sent: list[Message] = []
    scope: Scope = {"type": "http", "method": "GET", "path": "/health/live", "query_string": b"", "root_path": ""}
    scope.update(
        {
            "headers": [(b"x-request-id", request_id)],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("test", 80),
        }
    )

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)

    told = dict(sent[0]["headers"])[b"x-request-id"]
    assert len(told) == 32
    assert told.isalnum()


@pytest.mark.parametrize(
    "path",
    [
        "/domains/..%2f..%2fetc%2fpasswd",
        "/domains/%00",
        "/domains/" + "x" * 10_000,
        "/domains/toys%0d%0aSet-Cookie:x/items",
        "//domains//toys",
        "/%F0%28%8C%28",
    ],
)
async def test_paths_that_lead_elsewhere_are_not_found(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)

    check_problem(response, 404, response.json()["code"])
    assert "\n" not in response.json()["detail"]
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PUT", "XYZZY"])
async def test_methods_that_nothing_takes_are_refused(client: httpx.AsyncClient, method: str) -> None:
    check_problem(await client.request(method, SEQUENTIAL), 405, "method_not_allowed")


async def test_users_text_is_words_of_a_prompt_and_never_a_token_with_a_meaning(client: httpx.AsyncClient) -> None:
    """`</s>` or `<extra_id_0>` in a name must neither end the prompt nor pose as an image."""
    named = ASK | {"user_id": "u1", "user_name": "</s> <extra_id_0> <pad>" * 8}

    response = await client.post(SEQUENTIAL, json=named)

    assert response.status_code == 200
    assert len(response.json()["items"]) == 2


PRIVATE = "xqzzy"


def _attempts(bundle_root: Path) -> list[tuple[str, str, object]]:
    """Every route, with marked values in every place that takes some, well or badly."""
    mark = PRIVATE
    item = {"history": [f"item-1{mark}", "item-1"], "user_id": f"{mark}-id", "user_name": f"{mark} name"}
    tell = {"item_id": "item-1", "user_id": f"{mark}-id", "user_name": mark, "feature": mark, "review_headline": mark}
    return [
        ("POST", SEQUENTIAL, {"domain": "toys", **item}),
        ("POST", SEQUENTIAL, {"domain": mark, **item}),
        ("POST", SEQUENTIAL, {"domain": "toys", **item, "k": mark}),
        ("POST", SEQUENTIAL, {"domain": "toys", **item, "where": {mark: mark}}),
        ("POST", SEQUENTIAL, {"domain": "toys", "history": [mark]}),
        ("POST", SEQUENTIAL, {"domain": "toys", **item, "deadline_ms": 1}),
        ("POST", SEQUENTIAL, {"domain": "toys", **item, mark: mark}),
        ("POST", "/recommend/direct", {"domain": "toys", "candidates": [f"item-{mark}", "item-2"]}),
        ("POST", "/recommend/direct", {"domain": "toys", "candidates": ["item-2"], "exclude_items": [mark]}),
        ("POST", "/recommend/direct", f'{{"{mark}'),
        ("POST", "/explain", {"domain": "toys", "max_new_tokens": 2, **tell}),
        ("POST", "/explain", {"domain": "toys", "max_new_tokens": 2, "stream": True, **tell}),
        ("POST", "/explain", {"domain": "toys", "item_id": mark}),
        ("POST", "/explain", {"domain": "toys", "template": mark, **tell}),
        ("GET", f"/domains/{mark}", None),
        ("GET", f"/domains/toys/items?q={mark}", None),
        ("GET", f"/domains/toys/items?limit={mark}", None),
        ("GET", f"/domains/toys/users?q={mark}", None),
        ("GET", f"/{mark}", None),
        ("DELETE", f"/domains/toys?{mark}={mark}", None),
        ("GET", f"/health/ready?{mark}", None),
        ("GET", f"/v2/models/{mark}/ready", None),
        ("GET", "/metrics", None),
        ("GET", "/admin/domains", None),
        ("POST", "/admin/domains/toys/load", {"bundle": mark}),
        ("POST", "/admin/domains/toys/load", {"bundle": f"../{mark}"}),
        ("POST", "/admin/domains/toys/load", {"bundle": bundle_root.name, mark: 1}),
        ("PATCH", "/admin/domains/toys/catalog", {"deactivate": [mark], "idempotency_key": mark}),
        ("PATCH", "/admin/domains/toys/catalog", {"set": {"item-1": {"title": mark}}}),
        ("PUT", "/admin/domains/toys/features", {"features": {mark: [1.0]}}),
        ("POST", f"/admin/domains/{mark}/canary", {"version": mark, "share": 0.5, "salt": mark}),
    ]


@pytest.fixture
def debug_lines() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("debug")
    yield
    root.handlers, root.level = handlers, level
    logging.getLogger("httpx").propagate = True


async def test_no_key_token_history_or_name_is_in_any_log_line(
    tmp_path: Path, debug_lines: None, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug")  # anew, for what is captured now
    bundle_of(tmp_path / "first", 1)
    made = new_key("shop")
    keys = tmp_path / "keys.jsonl"
    keys.write_text(made.line)
    wrong = f"vip5_{PRIVATE}"
    async with shop_of(live_settings(tmp_path, api_keys_file=keys, log_level="debug")) as shop:
        logging.getLogger("httpx").propagate = False  # a client's, which names what it asked for
        statuses = set()
        for key in (made.key, wrong):
            for method, path, body in _attempts(tmp_path / "first"):
                token = TOKEN if key == made.key else wrong
                headers = JSON | {"X-API-Key": key, "Authorization": f"Bearer {token}", "Cookie": PRIVATE}
                if not path.startswith("/admin"):
                    headers["Authorization"] = f"Bearer {key}"
                content = None if body is None else body if isinstance(body, str) else json.dumps(body)
                response = await shop.client.request(method, path, content=content, headers=headers)
                statuses.add(response.status_code)

    told = capfd.readouterr()
    assert {200, 400, 401, 404, 422} <= statuses
    assert 500 not in statuses
    assert told.out.count('"event": "request"') >= 2 * len(_attempts(tmp_path)) - 4
    for private in (PRIVATE, made.key, TOKEN):
        assert [line for line in (told.out + told.err).splitlines() if private in line] == []


async def test_failed_loads_of_new_names_add_no_labels(tmp_path: Path) -> None:
    bundle_of(tmp_path / "first", seed=1)
    async with shop_of(live_settings(tmp_path)) as shop:
        for number in range(5):
            await shop.admin("POST", f"/domains/new-{number}/load", 404, json={"bundle": "nowhere"})
        found = await shop.metrics("vip5_reload_failures_total")
        assert 'vip5_reload_failures_total{domain="(not served)"} 5.0' in found
        assert "new-" not in await shop.metrics()
