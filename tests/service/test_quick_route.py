"""The quick way to a recommendation and FastAPI's give the same status, headers and body, whatever is sent."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from model.planning.runtime import Runtime
from service.http import quick_route
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.incoming import EXTENSION, Incoming
from service.http.quick_route import QuickRoute
from service.settings.settings import Settings
from tests.service.conftest import client_of

PATHS = ("/recommend/sequential", "/recommend/direct")
NUM_BODIES = 2000
JSON = (b"content-type", b"application/json")
HEADERS = [(b"host", b"shop"), (b"x-request-id", b"same"), JSON]
VALID = b'{"domain": "toys", "history": ["item-1", "item-2"], "k": 3}'

ITEMS = ["item-1", "item-2", "item-3", "item-77", "nothing", "", 1, None, "x" * 300, "ä\u2028", "\ud800"]
VALUES: dict[str, Sequence[Any]] = {
    "domain": ["toys"] * 12 + ["words", "none", "", 3, None, "x" * 65],
    "user_id": ["u1", "somebody", "", None, 7, "\ud800"],
    "user_name": ["Ada", "", None, "x" * 257, ["Ada"]],
    "template": ["A-1", "A-3", "A-7", "B-1", "B-5", "Z-9", "", None, 3],
    "k": [1, 3, 10, 0, 101, "3", 2.0, True, None, 10**30],
    "num_beams": [1, 4, 20, 0, 257, None, "20"],
    "exclude_items": [["item-3"], [], ["nothing"], "item-1", None, [1]],
    "where": [{}, {"category": "a"}, {"nope": [1]}, {"category": []}, {"category": {"a": 1}}, [], None],
    "length_penalty": [0, 1.5, -1, 6, None, "1", float("nan"), float("inf")],
    "exactness": ["beam", "certified", "exact", None, 1],
    "deadline_ms": [60_000, 0, 600_001, None, "1000", 1.5],
    "timings": [True, False, None, "yes", 1],
    "exclude_history": [True, False, None, 0],
    "include_items": [["item-1", "item-3"], [], None, ["nothing"]],
    "candidates": [["item-1", "item-3"], [], None, ["nothing"], "item-1"],
    "attribution": [1, 3, None, 0, 101, True, "2"],
    "mask_images": [["item-1"], [], ["nothing"], None, "item-1"],
    "role": ["stable", "canary", None, "shadow", 1],
    "unknown": [1, None],
}
EDGES = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{",
    VALID + b"}",
    VALID + b" \n",
    b"\xef\xbb\xbf" + VALID,
    b"\xff" + VALID,
    VALID.decode().encode("utf-16"),
    VALID.decode().encode("utf-32-le"),
    VALID.replace(b"toys", b"to\xffys"),
    VALID.replace(b"item-1", b"\\ud800"),
    VALID.replace(b"3}", b'3, "k": 4}'),
    VALID.replace(b"3}", b"3e0}"),
    VALID.replace(b"3}", b"NaN}"),
    VALID.replace(b"3}", b"1" + b"0" * 5000 + b"}"),
    VALID.replace(b"3}", b'3, "where": ' + b"[" * 900 + b"]" * 900 + b"}"),
    VALID.replace(b"3}", b'3, "where": ' + b"[" * 1900),
    b"{" + b", ".join(b'"f%d": 1' % number for number in range(70)) + b"}",
    VALID + b" " * 5_000,
]

ODD_HEADERS: list[list[tuple[bytes, bytes]]] = [
    [(b"content-type", b"application/json; charset=utf-8")],
    [(b"content-type", b"application/vnd.shop+json")],
    [(b"content-type", b"text/plain")],
    [JSON, (b"content-type", b"text/plain")],
    [(b"content-type", b"text/plain"), JSON],
    [],
    [JSON, (b"content-encoding", b"gzip")],
    [JSON, (b"content-encoding", b"identity")],
    [JSON, (b"content-length", b"99999999")],
    [JSON, (b"content-length", b"many")],
    [JSON, (b"origin", b"https://elsewhere")],
    [JSON, (b"expect", b"100-continue")],
    [JSON, (b"host", b"shop"), (b"host", b"other")],
    [JSON, (b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-prefix", b"/a")],
    [JSON, (b"authorization", b"Bearer nothing"), (b"x-api-key", b"none")],
]


@dataclass
class Sent:
    """A request: its body as the chunks in which it comes."""

    path: str
    chunks: list[bytes]
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: list(HEADERS))
    method: str = "POST"
    is_known_to_server: bool = False
    """Whether the server tells that all of the body has come, as ours does."""


@dataclass
class Apps:
    """The app, and one without the quick way, on the same engine."""

    quick: FastAPI
    plain: FastAPI
    num_quick: int = 0

    async def both(self, sent: Sent) -> tuple[object, object]:
        return await answer_of(self.quick, sent), await answer_of(self.plain, sent)


@pytest.fixture
async def apps(settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Apps]:
    async with apps_of(settings, runtime, monkeypatch) as apps:
        yield apps


@asynccontextmanager
async def apps_of(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, headers: Sequence[tuple[bytes, bytes]] = ()
) -> AsyncIterator[Apps]:
    """`headers` are those that a request needs."""
    valid = Sent(PATHS[0], [VALID], [*HEADERS, *headers])
    quick = create_app(settings, lambda _: runtime)
    async with client_of(quick):  # builds its middleware when first called
        apps = Apps(quick, create_app(settings, lambda _: runtime))
        content_of = QuickRoute._content_of

        async def counted(*arguments: Any) -> bytes:  # noqa: ANN401
            apps.num_quick += 1
            return await content_of(*arguments)

        monkeypatch.setattr(QuickRoute, "_content_of", counted)
        await answer_of(quick, valid)
        assert apps.num_quick == 1
        monkeypatch.setattr(quick_route, "BODIES", {})
        async with client_of(apps.plain):
            await answer_of(apps.plain, valid)
            assert apps.num_quick == 1
            yield apps


async def answer_of(app: FastAPI, sent: Sent) -> tuple[object, object, object]:
    """Status, headers and body; the durations of stages are left out."""
    chunks, answer = list(sent.chunks), []

    async def receive() -> dict[str, Any]:
        if not chunks:
            await asyncio.Event().wait()
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:  # noqa: ANN401
        answer.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": sent.method,
        "path": sent.path,
        "raw_path": sent.path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": sent.headers,
        "client": ("127.0.0.1", 1),
        "server": ("shop", 80),
    }
    if sent.is_known_to_server:
        incoming = Incoming(is_complete=True)
        incoming.begin(SimpleNamespace(body=bytearray(sent.chunks[0]), disconnected=False))  # type: ignore[arg-type]
        scope["extensions"] = {EXTENSION: incoming}
    await app(scope, receive, send)
    body = b"".join(each.get("body", b"") for each in answer)
    content = json.loads(body) if body else None
    headers = dict(answer[0]["headers"])
    if content and content.get("timings_ms"):
        content["timings_ms"] = sorted(content["timings_ms"])
        headers.pop(b"content-length")
        return answer[0]["status"], sorted(headers.items()), content
    return answer[0]["status"], sorted(headers.items()), body


def drawn(draw: random.Random) -> Sent:
    """A body of which most fields are valid."""
    path = draw.choice(PATHS)
    body: dict[str, Any] = {"domain": draw.choice(VALUES["domain"])}
    if path == PATHS[0] or draw.random() < 0.1:
        weights = [20, 20, 20, 10, 4, 1, 1, 1, 1, 1, 1]
        body["history"] = draw.choices(ITEMS, weights, k=draw.choice([1, 2, 3, 5, 0, 31]))
    for name in draw.sample(sorted(VALUES), k=draw.choice([0, 1, 1, 2, 2, 3])):
        body[name] = draw.choice(VALUES[name])
    if draw.random() < 0.02:
        del body["domain"]
    return Sent(path, [json.dumps(body).encode()], is_known_to_server=draw.random() < 0.5)


async def test_both_ways_give_the_same_answer_to_thousands_of_bodies(apps: Apps) -> None:
    draw = random.Random(5)
    statuses: dict[object, int] = {}
    for _ in range(NUM_BODIES):
        sent = drawn(draw)
        quick, plain = await apps.both(sent)
        assert quick == plain, sent.chunks
        status = plain[0]  # type: ignore[index]
        statuses[status] = statuses.get(status, 0) + 1
    assert apps.num_quick > NUM_BODIES // 5
    assert statuses.keys() >= {200, 404, 422}
    assert min(statuses[200], statuses[422]) > NUM_BODIES // 10


async def test_both_ways_give_the_same_answer_to_odd_bodies(apps: Apps) -> None:
    for path in PATHS:
        for body in EDGES:
            for is_known in (False, True):
                quick, plain = await apps.both(Sent(path, [body], is_known_to_server=is_known))
                assert quick == plain, body[:100]


async def test_both_ways_give_the_same_answer_to_odd_headers(apps: Apps) -> None:
    for headers in ODD_HEADERS:
        for is_known in (False, True):
            sent = Sent(PATHS[0], [VALID], [(b"x-request-id", b"same"), *headers], is_known_to_server=is_known)
            quick, plain = await apps.both(sent)
            assert quick == plain, headers


async def test_both_ways_give_the_same_answer_to_bodies_in_pieces_and_other_methods(apps: Apps) -> None:
    for sent in (
        Sent(PATHS[0], [VALID[:9], VALID[9:]]),
        Sent(PATHS[0], [b"", VALID]),
        Sent(PATHS[0], [VALID, b""]),
        Sent(PATHS[0], [VALID[:9]]),
        Sent(PATHS[0] + "/", [VALID]),
        Sent("/recommend", [VALID]),
        *(Sent(PATHS[0], [VALID], method=method) for method in ("GET", "HEAD", "PUT", "OPTIONS")),
    ):
        quick, plain = await apps.both(sent)
        assert quick == plain, sent


async def test_both_ways_give_the_same_answer_to_all_kinds_of_keys(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    any_key, other, silent, poor = (
        new_key("any"),
        new_key("other", domains=("words",)),
        new_key("silent", routes=("explain",)),
        new_key("poor", quota="200/day"),
    )
    file = tmp_path / "keys.jsonl"
    file.write_text("".join(each.line + "\n" for each in (any_key, other, silent, poor)))
    settings = settings.model_copy(update={"api_keys_file": file})
    headers = [(b"x-api-key", any_key.key.encode())]
    statuses = []
    async with apps_of(settings, runtime, monkeypatch, headers) as apps:
        for name, value in (
            (b"x-api-key", any_key.key),
            (b"authorization", f"Bearer {any_key.key}"),
            (b"x-api-key", other.key),
            (b"x-api-key", silent.key),
            (b"x-api-key", poor.key),
            (b"x-api-key", poor.key),
            (b"x-api-key", poor.key),
            (b"x-api-key", "vip5_none"),
            (b"x-none", "none"),
        ):
            quick, plain = await apps.both(Sent(PATHS[0], [VALID], [*HEADERS, (name, value.encode())]))
            assert quick == plain, (name, value)
            statuses.append(plain[0])  # type: ignore[index]
    assert statuses[:4] == [200, 200, 403, 403]
    assert statuses[4:7][0] == 200
    assert statuses[6:] == [429, 401, 401]
    assert apps.num_quick > 4


BEHIND_PROXIES: dict[str, Any] = {
    "trusted_proxies": ("127.0.0.1", "10.0.0.0/8"),
    "root_path": "/shop",
    "allowed_hosts": ("shop", "*.example.org"),
}
FORWARDED: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"x-forwarded-for", b"1.2.3.4")],
    [(b"x-forwarded-for", b"1.2.3.4, 10.0.0.7"), (b"x-forwarded-proto", b"https")],
    [(b"x-forwarded-for", b"2001:db8::1")],
    [(b"x-forwarded-for", b"2001:db8::2"), (b"x-forwarded-prefix", b"/a")],
    [(b"x-forwarded-host", b"www.example.org")],
    [(b"x-forwarded-host", b"evil")],
]


async def test_both_ways_give_the_same_answer_behind_proxies(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={**BEHIND_PROXIES, "rate_limit": "100000/second"})
    draw, statuses = random.Random(6), set()
    async with apps_of(settings, runtime, monkeypatch) as apps:
        for _ in range(NUM_BODIES // 4):
            sent = drawn(draw)
            sent.path = draw.choice(["", "/shop"]) + sent.path
            sent.headers += draw.choice(FORWARDED)
            quick, plain = await apps.both(sent)
            assert quick == plain, (sent.headers, sent.chunks)
            statuses.add(plain[0])  # type: ignore[index]
        assert apps.num_quick > NUM_BODIES // 40
    assert statuses >= {200, 400, 404, 422}


@pytest.mark.parametrize("options", [{}, BEHIND_PROXIES])
async def test_both_ways_count_each_request_once(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Also those that the quick way leaves to the other, and those that are refused."""
    settings = settings.model_copy(update={**options, "rate_limit": "12/day"})
    draw, statuses = random.Random(7), []
    bodies = [VALID, VALID, VALID[:-1], b"[]", VALID.replace(b"toys", b"none")]
    async with apps_of(settings, runtime, monkeypatch) as apps:
        for _ in range(60):
            sent = Sent(PATHS[0], [draw.choice(bodies)], is_known_to_server=draw.random() < 0.7)
            sent.headers += draw.choice(FORWARDED[:5])
            quick, plain = await apps.both(sent)
            assert _without_seconds(quick) == _without_seconds(plain), (sent.headers, sent.chunks)
            statuses.append(plain[0])  # type: ignore[index]
    assert statuses[:11].count(429) == 0, "one of the limit was spent before"
    assert statuses.count(429) == 60 - 11 if not options else statuses.count(429) > 5
    assert {200, 404, 422} <= set(statuses)


async def test_both_ways_count_by_key(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = new_key("one"), new_key("other", quota="200/day")
    file = tmp_path / "keys.jsonl"
    file.write_text(f"{one.line}\n{other.line}\n")
    settings = settings.model_copy(update={"api_keys_file": file, "rate_limit": "4/day"})
    statuses = []
    async with apps_of(settings, runtime, monkeypatch, [(b"x-api-key", one.key.encode())]) as apps:
        for key in [one, other] * 5:
            sent = Sent(PATHS[0], [VALID], [*HEADERS, (b"x-api-key", key.key.encode())], is_known_to_server=True)
            quick, plain = await apps.both(sent)
            assert _without_seconds(quick) == _without_seconds(plain)
            statuses.append(plain[0])  # type: ignore[index]
    assert statuses[0::2] == [200, 200, 200, 429, 429]
    assert statuses[1] == 200
    assert statuses[-1] == 429


def _without_seconds(answer: object) -> str:
    """Without the time until a retry, which passes between the two ways."""
    return re.sub(r"\d{2,}", "#", repr(answer))


async def test_both_ways_refuse_alike_while_the_service_drains(apps: Apps) -> None:
    for app in (apps.quick, apps.plain):
        state_of(app).readiness.drain()
    quick, plain = await apps.both(Sent(PATHS[0], [VALID]))
    assert quick == plain
    assert plain[0] == 503  # type: ignore[index]


async def test_a_body_that_does_not_come_is_a_time_out_on_both_ways(apps: Apps) -> None:
    for app in (apps.quick, apps.plain):
        state_of(app).receive_s = 0.01
    quick, plain = await apps.both(Sent(PATHS[0], []))
    assert quick == plain
    assert plain[0] == 408  # type: ignore[index]
