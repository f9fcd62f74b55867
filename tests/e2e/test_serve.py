"""`vip5 serve` answers over a real socket, says what is wrong with its start, and ends as an orchestrator expects."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from tests.e2e.children import children_of
from tests.e2e.processes import PATIENCE_S, Server, run_vip5, serving
from tests.tiny import tiny_bundle

ASK = {"domain": "toys", "history": ["item-1", "item-2"], "user_id": "u1"}
TELL = {"domain": "toys", "item_id": "item-5", "user_id": "u1"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("serve"))


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    blocks = "".join(response.iter_text()).strip().split("\n\n")
    pairs = [block.split("\n") for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def end(server: Server, number: signal.Signals = signal.SIGTERM) -> int:
    server.process.send_signal(number)
    return server.process.wait(PATIENCE_S)


def test_it_answers_and_ends_with_0(bundle: Path, num_workers: int) -> None:
    with serving(bundle) as server:
        assert len(children_of(server)) == num_workers
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            assert len(client.post("/recommend/sequential", json=ASK).json()["items"]) == 10
            assert len(client.post("/recommend/direct", json={"domain": "toys", "k": 3}).json()["items"]) == 3
            assert client.post("/explain", json=TELL).json()["text"]
            assert client.get("/domains").json()["domains"][0]["num_items"] == 120
            assert "vip5_requests_total" in client.get("/metrics").text
        assert end(server) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_end(bundle: Path, number: signal.Signals) -> None:
    with serving(bundle) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        body = TELL | {"stream": True, "max_new_tokens": 512, "temperature": 5.0, "seed": 1}
        with client.stream("POST", "/explain", json=body) as response:
            # The headers are here, so the request is running; its text is not read before the server drains.
            assert response.status_code == 200
            server.process.send_signal(number)
            server.wait_event("draining")
            *tokens, (last, done) = events_of(response)
        assert server.process.wait(PATIENCE_S) == 0

    assert last == "done"
    assert "".join(data["text"] for _, data in tokens) == done["text"]


def test_while_it_drains_it_takes_no_new_connection(bundle: Path) -> None:
    with serving(bundle) as server, _half_a_request(server):
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        with pytest.raises(httpx.TransportError):
            _probe_until_refused(server)


def test_a_request_that_never_ends_does_not_hold_it_up_for_ever(bundle: Path) -> None:
    with serving(bundle, {"VIP5_DRAIN_S": "0.2"}) as server, _half_a_request(server):
        assert end(server) == 0


def test_a_second_signal_ends_it_at_once(bundle: Path) -> None:
    with serving(bundle, {"VIP5_DRAIN_S": "3600"}) as server, _half_a_request(server):
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        assert end(server) == 0


def _probe_until_refused(server: Server) -> None:
    """Probes say that it is not ready until the listener is closed."""
    with httpx.Client(base_url=server.url) as client:
        while True:
            assert client.get("/health/ready", headers={"Connection": "close"}).status_code == 503


def _half_a_request(server: Server) -> socket.socket:
    """A connection whose request is being read: its handler has answered with 100, its body never comes."""
    url = httpx.URL(server.url)
    assert url.port is not None
    connection = socket.create_connection((url.host, url.port), timeout=PATIENCE_S)
    connection.sendall(
        b"POST /recommend/sequential HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def check_failure(outcome: CompletedProcess[str], status: int, *words: str) -> None:
    assert outcome.returncode == status, outcome.stderr
    assert "Traceback" not in outcome.stderr
    for word in words:
        assert word in outcome.stderr


def test_without_a_bundle_it_is_wrong_usage() -> None:
    check_failure(run_vip5("serve"), 2, "setting bundle is missing", "VIP5_BUNDLE")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VIP5_PROT", "1", "unknown setting VIP5_PROT"),
        ("VIP5_PORT", "99999", "VIP5_PORT"),
        ("VIP5_MAX_WAITING", "none", "VIP5_MAX_WAITING"),
        ("VIP5_DRAIN_S", "nan", "VIP5_DRAIN_S"),
        ("VIP5_DEVICE", "tpu", "VIP5_DEVICE"),
    ],
)
def test_a_bad_setting_stops_the_start_with_its_name(bundle: Path, name: str, value: str, words: str) -> None:
    check_failure(run_vip5("serve", "--bundle", bundle, env={name: value}), 2, words)


def test_a_bundle_that_is_tampered_with_stops_the_start(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    catalog = root / "domains" / "toys" / "catalog.parquet"
    catalog.write_bytes(catalog.read_bytes()[:-1] + b"x")

    outcome = run_vip5("serve", "--bundle", root, "--port", "0")

    check_failure(outcome, 1, "catalog.parquet")
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_stops_the_start(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run_vip5("serve", "--bundle", bundle, "--port", str(port))

    check_failure(outcome, 1, f"cannot listen on 127.0.0.1:{port}")
    assert len(outcome.stderr.strip().splitlines()) == 1
