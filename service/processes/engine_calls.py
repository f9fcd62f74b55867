"""HTTP requests that workers pass on to the engine process: administration, metrics, status and probes.

The app sees them as if they had come over a connection of its own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from feature_cache.background import Background
from service.batching.lanes import Lanes
from service.channel.channel import Channel
from service.channel.messages import Answer, AnswerPart, Call, Receive, Received
from service.histories.store import HistoryStore


@dataclass(frozen=True)
class HubParts:
    """What workers use of the engine process."""

    app: ASGIApp
    """Answers calls that workers pass on."""
    lanes: Lanes
    background: Background
    histories: HistoryStore | None
    """Those that this process keeps for workers."""


class EngineCalls:
    """The calls of one worker in progress."""

    def __init__(self, app: ASGIApp, channel: Channel, background: Background) -> None:
        self._app = app
        self._channel = channel
        self._background = background
        self._calls: dict[int, _Call] = {}

    def begin(self, message: Call) -> None:
        call = self._calls[message.call] = _Call(message, self._channel)
        task = self._background.once("call", lambda: self._run(call))
        call.task = task

    def receive(self, message: Received) -> None:
        if (call := self._calls.get(message.call)) is not None:
            call.put(message)

    def end_all(self) -> None:
        """The worker is gone, and so are its clients."""
        for call in self._calls.values():
            call.put(Received(call.number, b"", has_more=False, is_disconnected=True))

    async def _run(self, call: _Call) -> None:
        try:
            await self._app(call.scope, call.receive, call.send)
        finally:
            self._calls.pop(call.number, None)
            if not call.is_complete:
                self._channel.send(AnswerPart(call.number, b"", has_more=False))


class _Call:
    """One request, as ASGI has it."""

    def __init__(self, message: Call, channel: Channel) -> None:
        self.number = message.call
        self.task: asyncio.Task[None] | None = None
        self.is_complete = False
        self._channel = channel
        self._parts: asyncio.Queue[Received] = asyncio.Queue()
        self._is_disconnected = False
        scope: dict[str, Any] = dict(message.scope)
        for name in ("client", "server"):
            scope[name] = tuple(scope[name]) if scope.get(name) else None
        self.scope = {**scope, "type": "http", "headers": list(message.headers), "state": {}}

    def put(self, part: Received) -> None:
        self._parts.put_nowait(part)

    async def receive(self) -> Message:
        if not self._is_disconnected:
            if self._parts.empty():
                self._channel.send(Receive(self.number))
            part = await self._parts.get()
            if not part.is_disconnected:
                return {"type": "http.request", "body": part.body, "more_body": part.has_more}
            self._is_disconnected = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self._channel.send(Answer(self.number, message["status"], headers))
        elif message["type"] == "http.response.body":
            has_more = bool(message.get("more_body", False))
            self._channel.send(AnswerPart(self.number, bytes(message.get("body", b"")), has_more))
            self.is_complete = not has_more
