"""What an ingress sees of a request, and how an app's answer travels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.ray.forwarded import Forwarded, domains_of, messages_of
from service.ray.metrics_by_replica import joined


@pytest.mark.parametrize(
    ("method", "path", "body", "domains"),
    [
        ("POST", "/recommend/sequential", {"domain": "toys", "history": []}, ("toys",)),
        ("POST", "/explain", {"domain": "toys"}, ("toys",)),
        ("POST", "/recommend/direct:batch", {"requests": [{"domain": d} for d in "abab"]}, ("a", "b")),
        ("POST", "/recommend/sequential", {"domain": 3}, ()),
        ("POST", "/recommend/sequential", [1], ()),
        ("GET", "/domains/toys", None, ("toys",)),
        ("GET", "/domains/toys/users/u%2F1/history", None, ("toys",)),
        ("PATCH", "/admin/domains/toys/catalog", {"domain": "other"}, ("toys",)),
        ("GET", "/v2/models/toys/ready", None, ("toys",)),
        ("GET", "/domains", None, ()),
        ("GET", "/health/ready", None, ()),
    ],
)
def test_the_domain_of_a_request_is_in_its_path_or_body(
    method: str, path: str, body: object, domains: tuple[str, ...]
) -> None:
    assert domains_of(method, path, b"" if body is None else json.dumps(body).encode()) == domains


def test_a_body_that_cannot_be_read_names_no_domain() -> None:
    for body in (b"{", b"\xff", b"[" * 5000):
        assert domains_of("POST", "/explain", body) == ()


def request(body: bytes = b"{}") -> Forwarded:
    scope = {"type": "http", "method": "POST", "path": "/explain", "headers": [], "query_string": b"", "app": object()}
    return Forwarded.of(scope, body)


async def answers(app: Any, asked: Forwarded) -> list[Sequence[Message]]:  # noqa: ANN401
    return [messages async for messages in messages_of(app, asked)]


async def test_a_whole_answer_travels_at_once_and_a_stream_as_it_is_made() -> None:
    made = asyncio.Event()

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"{}"
        await send({"type": "http.response.start"})
        await send({"type": "http.response.body"})

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await whole(scope, receive, send)
        await made.wait()
        await send({"type": "http.response.body"})

    assert [len(each) for each in await answers(whole, request())] == [2]
    running = messages_of(stream, request())
    assert len(await anext(running)) == 2
    made.set()
    assert [len(each) async for each in running] == [1]


async def test_an_app_sees_that_nobody_reads_on() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start"})
        await send({"type": "http.response.body"})
        try:
            seen.append((await receive())["type"])
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    running = messages_of(app, request())
    await anext(running)
    await running.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert len(seen) == 1


async def test_what_an_app_raises_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await answers(app, request())


def test_metrics_of_replicas_are_one_text() -> None:
    one = '# HELP a What.\n# TYPE a counter\na{x="1"} 1.0\na_plain 2\n# HELP b Else.\n# TYPE b gauge\nb 3\n'
    text = joined([("r1", one), ("r2", one)])
    assert text.splitlines() == [
        "# HELP a What.",
        "# TYPE a counter",
        'a{replica="r1",x="1"} 1.0',
        'a_plain{replica="r1"} 2',
        'a{replica="r2",x="1"} 1.0',
        'a_plain{replica="r2"} 2',
        "# HELP b Else.",
        "# TYPE b gauge",
        'b{replica="r1"} 3',
        'b{replica="r2"} 3',
    ]
