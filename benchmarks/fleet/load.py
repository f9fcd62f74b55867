"""Requests at random times over raw connections, which cost their sender a tenth of an HTTP library's time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import uvloop

NUM_CONNECTIONS = 32
"""That are open from the start; more are opened when all are in use."""


@dataclass(frozen=True)
class Sent:
    """What a run measured."""

    latencies_s: list[float]
    """From the time at which each request was sent."""
    late_s: list[float]
    """How long after it was due each was sent. Timers alone have a resolution of a millisecond."""
    client_s: float
    """Processor time of the client for a request."""


def request_of(path: str, body: bytes) -> bytes:
    """What a connection sends."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: fleet\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send_at_random(url: str, requests: Sequence[bytes], rate: float, seconds: float, seed: int = 7) -> Sent:
    """Send `rate` requests a second (Poisson), whether earlier ones are answered or not.

    Raises RuntimeError for an answer other than 200.
    """
    return uvloop.run(_Sender(urlsplit(url).port or 80, requests).run(rate, seconds, random.Random(seed)))


class _Sender:
    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[_Connection] = []
        self._all: list[_Connection] = []
        self._latencies_s: list[float] = []
        self._late_s: list[float] = []
        self._num_open = 0
        self._is_last = False

    async def run(self, rate: float, seconds: float, draw: random.Random) -> Sent:
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            for _ in range(NUM_CONNECTIONS):
                await self._connect()
            began_s = time.process_time()
            await self._send_all(rate, seconds, draw)
            used_s = time.process_time() - began_s
        finally:
            for each in self._all:
                each.close()
            await asyncio.sleep(0)  # until they are closed
        return Sent(self._latencies_s, self._late_s, used_s / max(1, len(self._latencies_s)))

    async def _send_all(self, rate: float, seconds: float, draw: random.Random) -> None:
        due_s = time.perf_counter()
        until_s = due_s + seconds
        while (due_s := due_s + draw.expovariate(rate)) < until_s and not self._ended.done():
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            self._num_open += 1
            await self._send(due_s, draw.choice(self._requests))
        self._is_last = True
        self._check_end()
        await self._ended

    async def _connect(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self), "127.0.0.1", self._port
        )
        self._free.append(connection)
        self._all.append(connection)

    async def _send(self, due_s: float, request: bytes) -> None:
        if not self._free:
            await self._connect()
        sent_s = time.perf_counter()
        self._late_s.append(sent_s - due_s)
        self._free.pop().send(sent_s, request)

    def note(self, connection: _Connection, sent_s: float) -> None:
        self._latencies_s.append(time.perf_counter() - sent_s)
        self._free.append(connection)
        self._num_open -= 1
        self._check_end()

    def drop(self, connection: _Connection) -> None:
        """A connection that the service closed, because it was not used for long."""
        if connection in self._free:
            self._free.remove(connection)

    def fail(self, answer: bytes) -> None:
        if not self._ended.done():
            self._ended.set_exception(RuntimeError(f"not a recommendation: {answer[:500]!r}"))

    def _check_end(self) -> None:
        if self._is_last and not self._num_open and not self._ended.done():
            self._ended.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection, which has one request at a time."""

    _received = b""
    _sent_s = 0.0

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so

    def send(self, sent_s: float, request: bytes) -> None:
        self._sent_s = sent_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        self._received = b""
        sent_s, self._sent_s = self._sent_s, 0.0
        if head.startswith(b"HTTP/1.1 200"):
            self._sender.note(self, sent_s)
        else:
            self._sender.fail(head + body)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or self._sent_s:
            self._sender.fail(b"the connection was closed: " + repr(exc).encode())
        else:
            self._sender.drop(self)

    def close(self) -> None:
        self._transport.close()
