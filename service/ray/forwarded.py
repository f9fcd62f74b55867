"""A request as the ingress forwards it, and the answer to it: the messages of ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Scope

_KEPT = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server")
_FOLDERS = ("/domains/", "/admin/domains/", "/v2/models/")


class _Named(msgspec.Struct):
    domain: str = ""


class _Body(_Named):
    requests: list[_Named] = []


_BODIES = msgspec.json.Decoder(_Body)


@dataclass(frozen=True)
class Forwarded:
    """A request whose body has come."""

    scope: Mapping[str, Any]
    body: bytes
    domains: tuple[str, ...]
    """The domains that it is about, as far as one can see without checking it."""

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> Forwarded:
        kept = {name: scope[name] for name in _KEPT if name in scope}
        return cls({**kept, "root_path": ""}, body, domains_of(scope["method"], scope["path"], body))


def domains_of(method: str, path: str, body: bytes) -> tuple[str, ...]:
    """The domains that a request names in its path or body; none of what cannot be read, which the service refuses."""
    for folder in _FOLDERS:
        if path.startswith(folder):
            return (path.removeprefix(folder).partition("/")[0],)
    if method != "POST" or not body:
        return ()
    try:
        found = _BODIES.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ()
    names = [found.domain, *(each.domain for each in found.requests)]
    return tuple(dict.fromkeys(name for name in names if name))


async def messages_of(app: ASGIApp, request: Forwarded) -> AsyncIterator[Sequence[Message]]:
    """Let an app answer. Messages come as they are made, and the head together with what follows it at once.

    The app sees the client leave when the iterator is closed or its task is cancelled.
    """
    made: asyncio.Queue[Message | None] = asyncio.Queue()
    has_left = asyncio.Event()
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        made.put_nowait(message)

    async def run() -> None:
        try:
            await app({**request.scope, "state": {}}, receive, send)
        finally:
            made.put_nowait(None)

    running = asyncio.create_task(run())
    try:
        async for messages in _together(made):
            yield messages
        await running
    finally:
        has_left.set()
        if not running.done():
            running.cancel()
            await asyncio.wait([running])


async def _together(made: asyncio.Queue[Message | None]) -> AsyncIterator[list[Message]]:
    while True:
        messages: list[Message] = []
        message = await made.get()
        while message is not None:
            messages.append(message)
            is_head = message["type"] == "http.response.start"
            if made.empty() and not is_head:
                break
            message = await made.get()
        if messages:
            yield messages
        if message is None:
            return
