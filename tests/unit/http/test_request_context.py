"""A request is counted before the last of its answer is sent, once, and also if there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.cross_origin import CrossOrigin
from service.http.request_context import DISCONNECTED, RequestContext
from service.observability.metrics import Metrics
from service.observability.tracing.traces import NoTraces


def streamed() -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    return StreamingResponse(parts())


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("broken by a test")


async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    """As for a client that has left: nothing is answered."""


async def receive_nothing() -> Message:
    await asyncio.Event().wait()  # the client stays
    raise AssertionError


class Client:
    """Counts what is recorded when each part of an answer comes."""

    def __init__(self, app: ASGIApp) -> None:
        self.metrics, self.counts = Metrics(), [0.0]
        self._context = RequestContext(app, self.metrics, NoTraces(), CrossOrigin())

    async def ask(self) -> None:
        await self._context({"type": "http", "headers": [], "method": "GET", "path": "/"}, receive_nothing, self._send)
        self._note()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self._note()

    def _note(self) -> None:
        counted = {key: value for key, value in self.metrics.samples().items() if key[0] == "vip5_requests_total"}
        self.counts.append(sum(counted.values()))


@pytest.mark.parametrize(
    ("app", "counts"),
    [
        pytest.param(PlainTextResponse("all"), [0, 1, 1], id="whole"),
        pytest.param(streamed(), [0, 0, 0, 1, 1], id="streamed"),
        pytest.param(fail, [0, 1, 1], id="failing"),
        pytest.param(leave, [0, 1], id="left"),
    ],
)
async def test_who_has_the_answer_is_counted(app: ASGIApp, counts: list[int]) -> None:
    client = Client(app)
    await client.ask()
    assert client.counts == counts


async def test_a_request_without_an_answer_has_the_status_of_those_who_left() -> None:
    client = Client(leave)
    await client.ask()
    statuses = {dict(labels)["status"] for name, labels in client.metrics.samples() if name == "vip5_requests_total"}
    assert statuses == {str(DISCONNECTED)}
