"""Connections that are made to do harm: slow ones, endless ones, ones whose requests can be read in two ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.service.raw_http import GET, HOST, POST, listening, say, still_answers


@pytest.fixture
async def port(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    async with listening(app, settings) as port:
        yield port


@pytest.fixture
async def hasty(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    """A service that has little patience."""
    async with listening(app, settings.model_copy(update={"receive_s": 0.25})) as port:
        yield port


@pytest.mark.parametrize("sent", [b"G", GET, GET + b"X-Slow: 1", POST + b"Content-Le"])
async def test_headers_that_do_not_end_in_time_are_given_up(hasty: int, sent: bytes) -> None:
    answer = await say(hasty, sent)

    assert answer.statuses == [408]
    assert answer.problem["code"] == "request_timeout"


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_a_connection_on_which_nothing_comes_is_closed(hasty: int, sent: bytes) -> None:
    assert (await say(hasty, sent)).raw == b""


async def test_a_blank_line_after_an_answer_does_not_keep_the_connection(hasty: int) -> None:
    """Any byte ends uvicorn's own wait for the next request, and a blank line begins none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(GET + b"\r\n")
    async with asyncio.timeout(60):
        assert b"200 OK" in await reader.readuntil(b"}")
        writer.write(b"\r\n")
        assert await reader.read() == b""
    writer.close()


async def test_an_old_connection_is_closed_after_its_answer(app: FastAPI, settings: Settings) -> None:
    async with listening(app, settings.model_copy(update={"connection_max_age_s": 1e-6})) as port:
        answer = await say(port, GET + b"\r\n")

    assert answer.statuses == [200]
    assert b"connection: close" in answer.raw


async def test_headers_that_trickle_get_no_more_time_than_those_that_stop(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)

    async def trickle() -> None:
        writer.write(GET)
        while not writer.is_closing():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.005)  # a slow client is what this is

    trickling = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(60):
            assert (await reader.read()).startswith(b"HTTP/1.1 4")
    except ConnectionResetError:
        pass  # closed with bytes of ours unread: closed it is
    finally:
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        writer.close()
    assert await still_answers(hasty)


async def test_a_body_that_does_not_end_is_answered_and_then_given_up(app: FastAPI, hasty: int) -> None:
    state_of(app).receive_s = 0.01

    answer = await say(hasty, POST + b"Content-Length: 100\r\n\r\n{")

    assert answer.statuses == [408]
    state_of(app).receive_s = 10
    assert await still_answers(hasty)


async def test_a_body_that_nobody_reads_is_cut_off(hasty: int) -> None:
    """The answer is out at once, for the path is unknown; the rest of the body must not keep the connection."""
    answer = await say(hasty, b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n{")

    assert answer.statuses == [404]


async def test_an_answer_that_takes_longer_than_a_request_may_is_not_cut_off(hasty: int) -> None:
    body = json.dumps({"domain": "toys", "item_id": "item-5", "max_new_tokens": 200, "temperature": 5, "seed": 1})
    head = POST.replace(b"/recommend/sequential", b"/explain") + f"Content-Length: {len(body)}\r\n".encode()

    answer = await say(hasty, head + b"Connection: close\r\n\r\n" + body.encode())

    assert answer.statuses == [200]


@pytest.mark.parametrize(
    "parts",
    [
        (GET, *[b"X: y\r\n"] * 200, b"\r\n"),
        (GET + b"X: " + b"y" * 70_000 + b"\r\n\r\n",),
        (GET + b"X: ", *[b"y" * 50_000] * 4),
        (GET + b"y" * 70_000,),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",),
        (b"GET /?" + b"x" * 70_000,),
        (GET + b"Cookie: " + b"a=b; " * 20_000 + b"\r\n\r\n",),
    ],
    ids=["many", "long", "endless value", "endless name", "long path", "endless path", "cookie"],
)
async def test_headers_beyond_what_anybody_needs_are_refused(port: int, parts: tuple[bytes, ...]) -> None:
    answer = await say(port, *parts)

    assert answer.statuses in ([431], [])  # nothing, where the refusal was lost to what was still being sent
    if answer.raw:
        assert answer.problem["code"] == "head_too_large"
    assert await still_answers(port)


async def test_as_many_headers_as_clients_send_are_read(port: int) -> None:
    headers = b"".join(b"X-%d: y\r\n" % number for number in range(90)) + b"Cookie: " + b"a=b; " * 4_000 + b"\r\n"

    assert (await say(port, GET + headers + b"Connection: close\r\n\r\n")).statuses == [200]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


AMBIGUOUS = (
    POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: 0, 5\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: +5\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: 0x5\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
    POST + b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"\r\n5;\nGPOST\r\n0\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"\r\n-1\r\n\r\n" + SMUGGLED,
    POST + CHUNKED + b"\r\n1ffffffffffffffff\r\n\r\n" + SMUGGLED,
    GET + b" Content-Length: 5\r\n\r\n" + SMUGGLED,
    GET + b"X: a\rb\r\n\r\n" + SMUGGLED,
    GET + b"X: a\x00b\r\n\r\n" + SMUGGLED,
    GET + b"X: a\n\r\n" + SMUGGLED,
    GET + b": empty\r\n\r\n" + SMUGGLED,
    b"GET /health/live HTTP/1.1\nHost: test\n\n" + SMUGGLED,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def test_what_can_be_read_in_two_ways_is_not_read_at_all(port: int) -> None:
    """A proxy may see one request where the service sees two: the second must not be answered."""
    for request in AMBIGUOUS:
        answer = await say(port, request)
        assert 404 not in answer.statuses, request  # what was smuggled was taken for a request
        assert 200 not in answer.statuses, request
        assert answer.statuses[-1:] in ([400], [408], []), request
        assert await still_answers(port)


@pytest.mark.parametrize("more", [b"", b"Hosts: test\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"])
@pytest.mark.parametrize("line", [b"GET /health/live", b"GET http://test/health/live", b"POST /explain", b"OPTIONS *"])
async def test_http_1_1_without_a_host_is_refused(port: int, line: bytes, more: bytes) -> None:
    answer = await say(port, line + b" HTTP/1.1\r\n" + more + b"Content-Length: 0\r\n\r\n" + SMUGGLED)

    assert answer.statuses == [400]
    assert answer.problem["code"] == "malformed_request"
    assert "has no Host header" in answer.problem["detail"]


async def test_http_1_0_needs_no_host(port: int) -> None:
    assert (await say(port, b"GET /health/live HTTP/1.0\r\n\r\n")).statuses == [200]


async def test_a_refusal_is_a_problem_document_and_closes(port: int) -> None:
    answer = await say(port, b"no HTTP\r\n\r\n")

    assert answer.statuses == [400]
    assert b"\r\nconnection: close\r\n" in answer.raw.lower()
    assert answer.problem["code"] == "malformed_request"
    assert answer.problem["status"] == 400


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_no_other_protocol_is_spoken(port: int, protocol: bytes) -> None:
    upgrade = b"Upgrade: " + protocol + b"\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"

    assert (await say(port, GET + upgrade + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")).statuses == [200]


async def test_many_slow_connections_do_not_keep_others_out(app: FastAPI, settings: Settings) -> None:
    async with listening(app, settings.model_copy(update={"receive_s": 1.0})) as port:
        slow = [asyncio.create_task(say(port, GET)) for _ in range(200)]

        assert await still_answers(port)
        assert {answer.statuses[0] for answer in await asyncio.gather(*slow)} == {408}
