"""Passes HTTP requests that the engine process answers on to it: administration, metrics, status and probes."""

from __future__ import annotations

import asyncio
import itertools

from starlette.types import ASGIApp, Receive, Scope, Send

from feature_cache.background import awaited
from service.channel.channel import Channel
from service.channel.messages import Answer, AnswerPart, Call, Received
from service.channel.messages import Receive as ReceiveMessage

PASSED_ON = ("/admin", "/metrics", "/status", "/health", "/v2/health", "/v2/models")
"""Paths, and what is below them."""
_FOLDERS = tuple(f"{each}/" for each in PASSED_ON)
PLAIN = (
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "client",
    "server",
)
"""What of a scope is plain data."""


class WorkerCalls:
    """ASGI middleware outside of all others, so that the engine process logs and counts these requests."""

    def __init__(self, channel: Channel, root_path: str) -> None:
        self._channel = channel
        self._root_path = root_path
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Queue[Answer | AnswerPart | ReceiveMessage]] = {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """The app, with such requests passed on."""

        async def routed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and self._is_passed_on(scope["path"]):
                await self._pass_on(scope, receive, send)
            else:
                await app(scope, receive, send)

        return routed

    def handle(self, message: Answer | AnswerPart | ReceiveMessage) -> None:
        """What the engine process says of a call."""
        if (call := self._calls.get(message.call)) is not None:
            call.put_nowait(message)

    def _is_passed_on(self, path: str) -> bool:
        path = path.removeprefix(self._root_path)
        return path.startswith(_FOLDERS) or path in PASSED_ON

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = next(self._numbers)
        heard = self._calls[number] = asyncio.Queue()
        plain = {name: scope[name] for name in PLAIN if scope.get(name) is not None}
        self._channel.send(Call(number, plain, list(scope["headers"])))
        receiving: set[asyncio.Task[None]] = set()
        has_begun = False
        try:
            while True:
                message = await heard.get()
                if isinstance(message, ReceiveMessage):
                    receiving.add(awaited(self._receive(number, receive)))
                elif isinstance(message, Answer):
                    has_begun = True
                    await send(
                        {"type": "http.response.start", "status": message.status, "headers": list(message.headers)}
                    )
                elif not has_begun:
                    raise RuntimeError("the engine process failed to answer; its log has the cause")
                else:
                    await send({"type": "http.response.body", "body": message.body, "more_body": message.has_more})
                    if not message.has_more:
                        return
        finally:
            del self._calls[number]
            for task in receiving:
                task.cancel()
            self._channel.send(Received(number, b"", has_more=False, is_disconnected=True))

    async def _receive(self, number: int, receive: Receive) -> None:
        message = await receive()
        is_disconnected = message["type"] == "http.disconnect"
        body, has_more = message.get("body", b""), message.get("more_body", False)
        self._channel.send(Received(number, body, has_more, is_disconnected))
