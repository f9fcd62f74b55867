"""The clients in examples/clients work with the demonstration, and wait as long as Retry-After says."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.processes import PATIENCE_S, ROOT, Server, serving
from tests.server_threads import serving_in_a_thread

CLIENTS = ROOT / "examples" / "clients"
RETRY_AFTER_S = 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    env = {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(folder / "histories.jsonl")}
    with serving(ROOT / "demo" / "bundle", env) as server:
        yield server


@pytest.fixture(params=["python", "typescript"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What runs a client."""
    return [sys.executable, str(CLIENTS / "client.py")] if request.param == "python" else typescript(tmp_path)


def typescript(folder: Path) -> list[str]:
    """Node.js with the client, whose types it leaves out itself, or else TypeScript's compiler does."""
    node, source = shutil.which("node"), CLIENTS / "client.ts"
    if node is None:
        pytest.skip("node is not installed")
    for option in ([], ["--experimental-strip-types"]):
        shown = [node, *option, "--print", "process.features.typescript"]
        tried = subprocess.run(shown, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if tried.stdout.strip() in {"strip", "transform"}:
            return [node, *option, str(source)]
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("this node runs no TypeScript, which needs 22.6 or newer, and tsc is not installed")
    options = ["--strict", "--module", "esnext", "--target", "es2022", "--outDir", str(folder), "--noCheck"]
    subprocess.run([tsc, *options, str(source)], timeout=PATIENCE_S, check=True)
    return [node, str((folder / "client.js").rename(folder / "client.mjs"))]


class Busy(BaseHTTPRequestHandler):
    """Refuses the first request, and passes others on to the service."""

    target = ""
    came_at: list[float]

    def do_POST(self) -> None:
        self.came_at.append(time.monotonic())
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.came_at) == 1:
            self._answer(429, b'{"code": "queue_full"}', {"Retry-After": str(RETRY_AFTER_S)})
            return
        connection = http.client.HTTPConnection(self.target, timeout=PATIENCE_S)
        connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        self._answer(answer.status, content, {"Content-Type": answer.headers["Content-Type"]})
        connection.close()

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def busy_before(server: Server) -> Iterator[tuple[str, list[float]]]:
    """The address of a proxy that is busy once, and when requests came to it."""
    came_at: list[float] = []
    handler = type("Handler", (Busy,), {"target": urlsplit(server.url).netloc, "came_at": came_at})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with serving_in_a_thread(proxy):
        yield f"http://127.0.0.1:{proxy.server_port}", came_at


def lines_of(command: list[str], url: str) -> list[dict[str, Any]]:
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_client_asks_for_one_and_many_and_reads_a_text_as_it_comes(server: Server, command: list[str]) -> None:
    with busy_before(server) as (url, came_at):
        waited, one, many, from_events, text = lines_of(command, url)

    assert waited == {"retry_after_s": RETRY_AFTER_S}
    assert came_at[1] - came_at[0] >= RETRY_AFTER_S
    assert len(came_at) == 6
    assert one == {"items": ["toy-0001", "toy-0140"]}
    first, second, third = many["many"]
    assert first == one["items"]
    assert len(second) == 2
    assert third == "invalid_input"
    assert from_events == {"from_events": one["items"]}
    assert len(text["text"].split()) > 3


def test_a_client_goes_on_without_a_store_of_histories(command: list[str]) -> None:
    with serving(ROOT / "demo" / "bundle") as server:
        assert {"from_events": "histories_disabled"} in lines_of(command, server.url)


def test_a_problem_ends_a_client_with_its_reason(command: list[str], tmp_path: Path) -> None:
    refusing = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    with serving_in_a_thread(refusing):
        url = f"http://127.0.0.1:{refusing.server_port}"
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode != 0
    assert "forbidden: no (request 17)" in done.stderr


class Refusing(Busy):
    """Refuses all requests for good."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(403, b'{"status": 403, "code": "forbidden", "detail": "no", "request_id": "17"}', {})
