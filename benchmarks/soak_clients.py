"""Replicas and clients of `benchmarks.soak`. Each kind of client asks once, and raises for a wrong answer."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.processes import COMMAND, ROOT, environment

BUNDLE = ROOT / "demo" / "bundle"
DOMAIN = "toys"
PAUSE_S = 0.25
TIMEOUT_S = 30.0
ORIGIN = "https://shop.example"


@dataclass
class Replica:
    """A `vip5 serve` whose log reader can stall."""

    name: str
    folder: Path
    env: Mapping[str, str]
    journal: str
    process: subprocess.Popen[str] | None = None
    url: str = ""
    log_flows: threading.Event = field(default_factory=threading.Event)
    events: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self.log_flows.set()
        arguments = [*COMMAND, "serve", "--bundle", str(BUNDLE), "--port", "0", "--num-threads", "1"]
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            arguments, env=environment(self.env), stdout=subprocess.PIPE, text=True
        )
        listening = threading.Event()
        threading.Thread(target=self._read, args=(listening,), daemon=True).start()
        if not listening.wait(TIMEOUT_S * 2):
            raise TimeoutError(f"{self.name} does not listen")

    def stop(self) -> int:
        assert self.process is not None
        self.log_flows.set()
        self.process.terminate()
        return self.process.wait(TIMEOUT_S * 2)

    def rss_mb(self) -> float:
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def num_descriptors(self) -> int:
        assert self.process is not None
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def port(self) -> int:
        return int(httpx.URL(self.url).port or 0)

    def _read(self, listening: threading.Event) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            entry = json.loads(line)
            self.events[f"{entry['level']} {entry['event']}"] += 1
            if entry["event"] == "listening":
                self.url = f"http://127.0.0.1:{httpx.URL(entry['url']).port}"
                listening.set()
            self.log_flows.wait()


def body(number: int) -> dict[str, Any]:
    history = [f"toy-{(number * 7 + place) % 200 + 1:04}" for place in range(5)]
    return {"domain": DOMAIN, "history": history, "k": 5, "exclude_history": False}


def check(*, holds: bool, found: object) -> None:
    if not holds:
        raise AssertionError(str(found)[:300])


async def raw(replica: Replica, sent: bytes, *, half_close: bool = False) -> bytes:
    """All that the service answers to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    try:
        writer.write(sent)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(TIMEOUT_S):
            return await reader.read(-1)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def request_bytes(number: int, *headers: str) -> bytes:
    content = json.dumps(body(number)).encode()
    lines = ["POST /recommend/sequential HTTP/1.1", "Host: shop", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


class Clients:
    """One connection pool per replica for the ordinary clients."""

    def __init__(self, pools: Mapping[str, httpx.AsyncClient]) -> None:
        self._pools = pools

    async def keep_alive(self, replica: Replica, number: int) -> None:
        answer = await self._pools[replica.name].post("/recommend/sequential", json=body(number))
        check(holds=answer.status_code == 200 and len(answer.json()["items"]) == 5, found=answer.text)

    async def upgrading(self, replica: Replica, number: int) -> None:
        headers = (
            "Connection: Upgrade, HTTP2-Settings, close",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        )
        answer = await raw(replica, request_bytes(number, *headers))
        check(holds=answer.startswith(b"HTTP/1.1 200"), found=answer)

    async def half_closing(self, replica: Replica, number: int) -> None:
        answer = await raw(replica, request_bytes(number), half_close=True)
        check(holds=b"HTTP/1.1 200" in answer, found=answer)  # after 100 Continue, if it took long

    async def pipelining_then_garbage(self, replica: Replica, number: int) -> None:
        answer = await raw(
            replica, request_bytes(number) + request_bytes(number + 1) + b"\x16\x03\x01 nonsense\r\n\r\n"
        )
        good, bad = answer.count(b"HTTP/1.1 200"), answer.count(b"HTTP/1.1 400")
        check(holds=(good, bad) == (2, 1), found=answer)

    async def streaming(self, replica: Replica, number: int) -> None:
        asked = {"domain": DOMAIN, "item_id": f"toy-{number % 200 + 1:04}", "stream": True, "max_new_tokens": 8}
        text = ""
        async with self._pools[replica.name].stream("POST", "/explain", json=asked) as answer:
            async for part in answer.aiter_text():
                text += part
        check(holds=answer.status_code == 200 and "finish_reason" in text, found=text)

    async def heading(self, replica: Replica, number: int) -> None:
        for path in ("/health/live", "/health/ready", "/metrics"):
            answer = await self._pools[replica.name].head(path)
            check(holds=answer.status_code == 200 and not answer.content, found=(path, number, answer.status_code))

    async def preflighting(self, replica: Replica, number: int) -> None:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        answer = await self._pools[replica.name].options("/recommend/sequential", headers=headers)
        allowed = answer.headers.get("access-control-allow-origin")
        check(holds=answer.status_code == 200 and allowed == ORIGIN, found=(number, answer.status_code, allowed))

    async def over_ipv6(self, replica: Replica, number: int) -> None:
        url = f"http://[::1]:{replica.port}/recommend/sequential"
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = await client.post(url, json=body(number))
        check(holds=answer.status_code == 200, found=answer.text)

    async def never_reading(self, replica: Replica, number: int) -> None:
        """Sends many requests and reads nothing; what counts is that others do not notice."""
        with socket.create_connection(("127.0.0.1", replica.port), TIMEOUT_S) as connection:
            connection.settimeout(0)
            with suppress(BlockingIOError, OSError):
                for each in range(20):
                    connection.send(request_bytes(number + each))
            await asyncio.sleep(PAUSE_S)

    def kinds(self) -> dict[str, Callable[[Replica, int], Awaitable[None]]]:
        return {
            "keep-alive": self.keep_alive,
            "Upgrade: h2c": self.upgrading,
            "half-closed": self.half_closing,
            "pipelined, then garbage": self.pipelining_then_garbage,
            "stream of events": self.streaming,
            "HEAD": self.heading,
            "CORS preflight": self.preflighting,
            "IPv6": self.over_ipv6,
            "never reading": self.never_reading,
        }
