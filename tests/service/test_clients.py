"""What real clients send that a simple one does not: upgrades, half-closed connections, requests in a row."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from fastapi import FastAPI

from model.planning.runtime import Runtime
from service.http import connections
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.service.conftest import settings_of
from tests.service.live import HeldEngine
from tests.service.raw_http import ASK, GET, HOST, POST, Answer, listening, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = b"Content-Length: %d\r\n" % len(ASK)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, ASK[:10], len(ASK) - 10, ASK[10:])
CLOSE = b"Connection: close\r\n"
UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "lower case": b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    "TLS": b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n",
    "unknown": b"Upgrade: something/2\r\nConnection: Upgrade\r\n",
    "not in Connection": b"Upgrade: h2c\r\n",
    "Connection alone": b"Connection: Upgrade\r\n",
}
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
GARBAGE = b"\x00\x01 no HTTP\r\n\r\n"


@pytest_asyncio.fixture(loop_scope="module")
async def port(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    async with listening(app, settings) as port:
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_port(shared_app: FastAPI, bundle: Path) -> AsyncIterator[int]:
    async with listening(shared_app, settings_of(bundle)) as port:
        yield port


@pytest_asyncio.fixture(loop_scope="module")
async def held(settings: Settings, runtime: Runtime) -> AsyncIterator[tuple[int, FastAPI, HeldEngine]]:
    """A service whose engine waits at a gate."""
    engine = HeldEngine(runtime)
    app = create_app(settings, lambda _: replace(runtime, engine=engine))
    async with listening(app, settings) as port:
        engine.gate.clear()
        yield port, app, engine
        engine.gate.set()


async def until_counted(app: FastAPI, route: str, status: int) -> None:
    """Wait until the metrics count one such answer."""
    line = re.compile(rf'^vip5_requests_total{{domain="\w*",route="{route}",status="{status}"}} 1\.0$', re.MULTILINE)
    async with asyncio.timeout(60):
        while not line.search(state_of(app).metrics.render().content.decode()):  # noqa: ASYNC110  # as Prometheus polls
            await asyncio.sleep(0.001)


# Upgrades


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("framed", [(LENGTH, ASK), (CHUNKED, CHUNKS)], ids=["length", "chunked"])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "in two"])
async def test_an_upgrade_is_ignored_and_the_body_read(
    shared_port: int, upgrade: bytes, framed: tuple[bytes, bytes], *, is_split: bool
) -> None:
    framing, body = framed
    head = POST + upgrade + framing + b"\r\n"
    parts = (head, body) if is_split else (head + body,)

    answer = await say(shared_port, *parts, GET + CLOSE + b"\r\n")

    assert answer.statuses == [200, 200]
    assert len(json.loads(answer.bodies[0])["items"]) == 2


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_an_upgrade_without_a_body_does_not_end_the_connection(
    shared_port: int, method: bytes, upgrade: bytes
) -> None:
    first = GET.replace(b"GET", method) + upgrade + b"\r\n"

    answer = await say(shared_port, first, first + POST + upgrade + LENGTH + b"\r\n" + ASK, GET + CLOSE + b"\r\n")

    assert answer.statuses == [200, 200, 200, 200]


async def test_an_upgrade_that_expects_continue_gets_it(shared_port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_port)
    async with asyncio.timeout(60):
        writer.write(POST + UPGRADES["h2c"] + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n")
        assert await reader.readexactly(len(INTERIM)) == INTERIM
        writer.write(ASK + GET + CLOSE + b"\r\n")
        assert Answer(await reader.read()).statuses == [200, 200]
    writer.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_upgrades_are_ignored_however_the_bytes_are_cut(shared_port: int, size: int) -> None:
    sent = POST + UPGRADES["h2c"] + CHUNKED + b"\r\n" + CHUNKS + GET + UPGRADES["websocket"] + CLOSE + b"\r\n"

    answer = await say(shared_port, *(sent[start : start + size] for start in range(0, len(sent), size)))

    assert answer.statuses[0] == 200


@pytest.mark.parametrize("target", [b"example.org:443", b"/health/live"])
async def test_a_tunnel_is_refused(shared_port: int, target: bytes) -> None:
    """What follows CONNECT belongs to the tunnel and must not be taken for a request."""
    answer = await say(shared_port, b"CONNECT " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n" + GET + b"\r\n")

    assert answer.statuses == [400]


@pytest.mark.parametrize(
    ("target", "status"),
    [(b"http://shop", 200), (b"http://shop?q=1", 200), (b"http://shop/health/live", 200), (b"http://shop/none", 404)],
)
async def test_a_url_of_a_whole_resource_is_read(shared_port: int, target: bytes, status: int) -> None:
    answer = await say(shared_port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
    assert answer.statuses == [status]


@pytest.mark.parametrize("target", [b"http://[::1/health/live", b"http://:99999/", b"http://a:b:c/"])
async def test_a_target_that_is_no_url_is_refused(shared_port: int, target: bytes) -> None:
    answer = await say(shared_port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.statuses == [400]
    assert answer.problem["code"] == "malformed_request"


@pytest.mark.parametrize("size", [1, 100])
async def test_http2_without_asking_is_refused_in_its_own_terms(
    shared_port: int, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
    answer = await say(shared_port, *(preface[at : at + size] for at in range(0, len(preface), size)))
    settings, go_away = answer.raw[:9], answer.raw[9:]
    assert settings == bytes.fromhex("000000 04 00 00000000")
    assert (go_away[3], int.from_bytes(go_away[13:17])) == (7, 13), "GOAWAY, HTTP_1_1_REQUIRED"
    assert int.from_bytes(go_away[:3]) == len(go_away) - 9
    assert b"HTTP/1.1" in go_away


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http2", "--http1.1", "--http1.0"])
@pytest.mark.parametrize("more", [[], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]])
async def test_curl_is_answered(shared_port: int, tmp_path: Path, option: str, more: list[str]) -> None:
    if option == "--http1.0" and more:
        pytest.skip("HTTP/1.0 has neither")
    body = tmp_path / "ask.json"
    body.write_bytes(ASK)
    command = ["curl", "-sS", option, *more, "-H", "Content-Type: application/json", "--data-binary", f"@{body}"]

    answers = await _run(
        *command, "-w", "\n%{http_code}\n", *[f"http://127.0.0.1:{shared_port}/recommend/sequential"] * 2
    )

    assert answers.splitlines()[1::2] == ["200", "200"]


# Connections that the client ends for its side


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"\r\n",
        POST + LENGTH + b"\r\n" + ASK,
        GET + b"\r\n" + GET + b"\r\n",
        GET.replace(b"1.1", b"1.0") + b"\r\n",
        GET + b"\r\n" + GET + b"X-Cut: o",
    ],
    ids=["one", "body", "two", "HTTP/1.0", "one and a half"],
)
async def test_a_client_that_ends_its_side_gets_its_answers(shared_port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_port)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = Answer(await reader.read())
    writer.close()

    assert answer.statuses == [200] * sent.count(b"\r\n\r\n")


async def test_a_client_that_ends_its_side_waits_as_long_as_it_takes(
    held: tuple[int, FastAPI, HeldEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PROBE_S", 0.001)
    port, _, engine = held
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + LENGTH + b"\r\n" + ASK)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert await reader.readexactly(2 * len(INTERIM)) == INTERIM * 2  # which clients ignore
        engine.gate.set()
        assert Answer(await reader.read()).statuses[-1] == 200
    writer.close()


async def test_work_for_a_client_that_is_gone_is_cancelled(
    held: tuple[int, FastAPI, HeldEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PROBE_S", 0.001)
    port, app, engine = held
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + LENGTH + b"\r\n" + ASK)
    assert await asyncio.to_thread(engine.entered.acquire, timeout=30)
    writer.close()

    await until_counted(app, "/recommend/sequential", 499)


async def test_a_body_that_the_client_did_not_end_is_no_request(app: FastAPI, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + LENGTH + b"\r\n" + ASK[:5])
    await writer.drain()
    writer.close()

    await until_counted(app, "/recommend/sequential", 499)


# Requests in a row


@pytest.mark.parametrize("number", [1, 3])
async def test_requests_before_garbage_are_answered(
    shared_port: int, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    ask = POST + LENGTH + b"\r\n" + ASK
    with caplog.at_level(logging.WARNING):
        answer = await say(shared_port, ask * number + GARBAGE + GET + b"\r\n")

    assert answer.statuses == [200] * number + [400]
    assert answer.problem["code"] == "malformed_request"
    assert not caplog.records


async def test_garbage_while_an_answer_is_made_does_not_stop_it(held: tuple[int, FastAPI, HeldEngine]) -> None:
    port, _, engine = held
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST + LENGTH + b"\r\n" + ASK)
    assert await asyncio.to_thread(engine.entered.acquire, timeout=30)
    writer.write(GARBAGE)
    await writer.drain()
    engine.gate.set()
    async with asyncio.timeout(60):
        assert Answer(await reader.read()).statuses == [200, 400]
    writer.close()


async def test_a_body_in_pieces_that_are_none_is_one_bad_request(app: FastAPI, port: int) -> None:
    answer = await say(port, GET + b"\r\n" + POST + CHUNKED + b'\r\n5\r\n{"dom\r\nno size\r\n' + GET + b"\r\n")

    assert answer.statuses == [200, 400]
    assert answer.problem["code"] == "malformed_request"
    await until_counted(app, "/health/live", 200)


# Refusals


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GARBAGE, 400),
        (GET + b"X-Request-ID: mine\r\nAccept: */*\r\nno header\r\n\r\n", 400),
        (GET + b"X-Request-ID: mine\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (GET + b"X-Request-ID: mine\r\nX:", 408),
        (POST + b"X-Request-ID: mine\r\n" + CHUNKED + b"\r\nno size\r\n", 400),
    ],
    ids=["garbage", "header", "large", "slow", "body"],
)
async def test_refusals_have_an_id_and_are_logged_and_counted(
    app: FastAPI, settings: Settings, sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hasty = settings.model_copy(update={"receive_s": 0.25})
    with caplog.at_level(logging.INFO, "service.observability.json_logging"):
        async with listening(app, hasty) as port:
            answer = await say(port, sent)

    assert answer.statuses == [status]
    assert b"content-type: application/problem+json" in answer.raw.lower()
    assert f"x-request-id: {answer.problem['request_id']}\r\n".encode() in answer.raw.lower()
    if b"X-Request-ID" in sent:
        assert answer.problem["request_id"] == "mine"
    (line,) = [each for each in caplog.records if each.message == "request"]
    assert (line.request_id, line.status, line.error) == (  # type: ignore[attr-defined]
        answer.problem["request_id"],
        status,
        answer.problem["code"],
    )
    counted = f'vip5_requests_total{{domain="",route="unmatched",status="{status}"}} 1.0'
    assert counted in state_of(app).metrics.render().content.decode()


async def test_a_client_on_this_machine_does_not_choose_its_address(settings: Settings, runtime: Runtime) -> None:
    """uvicorn's default is to believe 127.0.0.1, which is every client of a proxy on the same machine."""
    limited = settings.model_copy(update={"rate_limit": "1/hour"})
    async with listening(create_app(limited, lambda _: runtime), limited) as port:
        asks = [POST + b"X-Forwarded-For: 203.0.113.%d\r\n" % n + LENGTH + b"\r\n" + ASK for n in range(2)]
        answer = await say(port, *asks, GET + CLOSE + b"\r\n")

    assert answer.statuses == [200, 429, 200]


async def test_idle_connections_are_kept_as_long_as_is_set(app: FastAPI, settings: Settings) -> None:
    assert settings.keep_alive_s == 75.0
    async with listening(app, settings.model_copy(update={"keep_alive_s": 0.01})) as port:
        assert (await say(port, GET + b"\r\n")).statuses == [200]  # closed by the service, or it would not end
