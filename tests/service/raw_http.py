"""Requests as bytes on a socket, to the server that `vip5 serve` runs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from service.http.uvicorn_server import server_of
from service.settings.settings import Settings
from tests.service.conftest import running

HOST = b"Host: test\r\n"
ASK = json.dumps({"domain": "toys", "history": ["item-1"], "k": 2}).encode()
POST = b"POST /recommend/sequential HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
GET = b"GET /health/live HTTP/1.1\r\n" + HOST


@dataclass(frozen=True)
class Answer:
    """What came back on one connection until it was closed."""

    raw: bytes

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.raw)]

    @property
    def bodies(self) -> list[bytes]:
        """Those with a Content-Length."""
        bodies, rest = [], self.raw
        while found := re.search(rb"\r\ncontent-length: (\d+)\r\n.*?\r\n\r\n", rest, re.IGNORECASE | re.DOTALL):
            end = found.end() + int(found[1])
            bodies.append(rest[found.end() : end])
            rest = rest[end:]
        return bodies

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.raw.rpartition(b"\r\n\r\n")[2])
        return problem


@asynccontextmanager
async def listening(app: FastAPI, settings: Settings) -> AsyncIterator[int]:
    """The app, or its workers, behind the very server that `vip5 serve` runs; gives the port."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)  # only for a socket that is free
    sock = listener.sockets[0]
    port: int = sock.getsockname()[1]
    listener.close()
    await listener.wait_closed()
    async with running(app) as served:
        server = server_of(app, settings, served=served)
        server.config.host, server.config.port = "127.0.0.1", port
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0)
        yield port
        server.should_exit = server.force_exit = True
        await serving


async def say(port: int, *parts: bytes) -> Answer:
    """Send parts and read until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return Answer(await reader.read())
    except ConnectionError:  # it was closed while there was more to send
        return Answer(b"")
    finally:
        writer.close()


async def still_answers(port: int) -> bool:
    length = f"Content-Length: {len(ASK)}\r\nConnection: close\r\n\r\n".encode()
    return (await say(port, POST + length + ASK)).statuses == [200]
