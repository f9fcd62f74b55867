"""A service without free file descriptors: probes answer, requests are refused politely, and it says so."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.children import children_of
from tests.e2e.processes import PATIENCE_S, ROOT, Server, serving
from tests.tiny import tiny_bundle

LIMIT = 128
ASK = {"domain": "toys", "history": ["item-1"], "k": 3}
CLOSING_IDLE_AT_ONCE = "from service.http import descriptors; descriptors.MIN_IDLE_S = 0.0\n"
UNFINISHED = (
    b"POST /recommend/sequential HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)
SMALL_LIMIT = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT // 2}, {LIMIT}));"
    " from service.cli import main; main()"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, num_workers: int) -> Iterator[Server]:
    """Its soft limit is half of its hard one, to which it raises it."""
    patched = tmp_path_factory.mktemp("patched")
    (patched / "sitecustomize.py").write_text(CLOSING_IDLE_AT_ONCE, encoding="utf-8")  # in all processes
    with serving(
        tiny_bundle(tmp_path_factory.mktemp("descriptors")),
        {"VIP5_RECEIVE_S": "60", "PYTHONPATH": f"{ROOT}:{patched}"},
        (sys.executable, "-c", SMALL_LIMIT),
    ) as server:
        yield server


def get(server: Server, path: str) -> httpx.Response:
    """On a connection of its own."""
    return httpx.get(server.url + path, timeout=PATIENCE_S)


def ask(server: Server) -> httpx.Response:
    return httpx.post(server.url + "/recommend/sequential", json=ASK, timeout=PATIENCE_S)


def shortages(server: Server, effect: str) -> float:
    name = f'vip5_descriptor_shortages_total{{effect="{effect}"}}'
    return float(next(line for line in get(server, "/metrics").text.splitlines() if line.startswith(name)).split()[1])


def answering_process(server: Server) -> int:
    """The process that accepts connections: the only worker, or the service itself."""
    return next(iter(children_of(server)), server.process.pid)


def num_open(server: Server) -> int:
    return len(list(Path(f"/proc/{answering_process(server)}/fd").iterdir()))


@contextmanager
def connections(server: Server, number: int, content: bytes = b"") -> Iterator[None]:
    """So many connections that send `content`, or nothing, and wait."""
    url = httpx.URL(server.url)
    with ExitStack() as stack:
        for _ in range(number):
            client = stack.enter_context(socket.create_connection((url.host, url.port or 80)))
            client.sendall(content)
        yield


def test_the_limit_is_raised_as_far_as_it_may(server: Server) -> None:
    assert resource.prlimit(answering_process(server), resource.RLIMIT_NOFILE) == (LIMIT, LIMIT)


def test_idle_connections_give_way_to_new_ones(server: Server) -> None:
    before = shortages(server, "idle_closed")
    with connections(server, 2 * LIMIT):
        answer, live = ask(server), get(server, "/health/live")
        degraded = get(server, "/health/ready").json()["degraded"]
        most = num_open(server)
    line = server.wait_event("descriptors_short")

    assert (answer.status_code, live.status_code) == (200, 200)
    assert any("file descriptors are short" in problem for problem in degraded)
    assert shortages(server, "idle_closed") - before >= LIMIT
    assert most < LIMIT
    assert line["limit"] == LIMIT
    assert line["level"] == "WARNING"


def test_while_all_connections_are_busy_probes_answer_and_others_are_told_to_retry(server: Server) -> None:
    before = shortages(server, "refused")
    with ExitStack() as busy:
        num_busy = 0
        while (refused := ask(server)).status_code == 200:
            busy.enter_context(connections(server, 8, UNFINISHED))
            num_busy += 8
        live, metrics, ready = (get(server, path) for path in ("/health/live", "/metrics", "/health/ready"))

    assert [each.status_code for each in (live, metrics, ready)] == [200, 200, 200]
    assert any("file descriptors are short" in problem for problem in ready.json()["degraded"])
    assert num_busy > LIMIT // 2
    assert refused.status_code == 503
    assert refused.json()["code"] == "too_many_connections"
    assert refused.json()["request_id"] == refused.headers["X-Request-ID"]
    assert int(refused.headers["Retry-After"]) > 0
    assert shortages(server, "refused") > before
    assert ask(server).status_code == 200
