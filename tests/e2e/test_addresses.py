"""`vip5 serve` at addresses of every kind, and clients that are not like httpx, in the event loop that it runs in."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import PATIENCE_S, Server, environment, run_vip5, serving
from tests.service.test_listening import needs_ipv6
from tests.tiny import tiny_bundle

ASK = {"domain": "toys", "history": ["item-1", "item-2"], "user_id": "u1"}
LONG = {"domain": "toys", "item_id": "item-5", "max_new_tokens": 512, "temperature": 5.0, "seed": 1}
PROBE = (sys.executable, "-m", "service.observability.probe")
JAVA = """
import java.net.URI;
import java.net.http.*;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (boolean expects : new boolean[] {false, true}) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).expectContinue(expects)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(arguments[1])).build();
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode());
        }
    }
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("addresses"))


@pytest.fixture(scope="module")
def server(bundle: Path, num_workers: int) -> Iterator[Server]:
    with serving(bundle, {"VIP5_ADMIN_PORT": "0", "VIP5_ROOT_PATH": "/recommender"}) as server:
        yield server


def probed(**variables: str) -> int:
    env = environment(variables)
    return subprocess.run(PROBE, env=env, capture_output=True, timeout=PATIENCE_S, check=False).returncode


def address_of(server: Server) -> tuple[str, int]:
    url = httpx.URL(server.url)
    assert url.port is not None
    return url.host, url.port


def say(server: Server, sent: bytes) -> bytes:
    """What comes back on a connection that is half-closed at once."""
    with socket.create_connection(address_of(server), timeout=PATIENCE_S) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def post(path: str, body: Mapping[str, object], *headers: str) -> bytes:
    content = json.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "Host: test", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", content]).encode()


def test_a_unix_socket_is_served_probed_guarded_and_removed(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "vip5.sock"
    variables = {"VIP5_UNIX_SOCKET": str(path), "VIP5_RATE_LIMIT": "2/hour", "VIP5_TRUSTED_PROXIES": '["unix"]'}
    with serving(bundle, variables) as server:
        assert server.url == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        assert probed(VIP5_UNIX_SOCKET=str(path)) == 0
        second = run_vip5("serve", "--bundle", bundle, "--unix-socket", path)
        assert (second.returncode, "another process listens" in second.stderr) == (1, True)
        with server.client() as client:
            for address in ("203.0.113.1", "203.0.113.1", "203.0.113.2"):
                headers = {"X-Forwarded-For": address}
                assert client.post("/recommend/sequential", json=ASK, headers=headers).status_code == 200
        server.process.kill()
        server.process.wait(PATIENCE_S)
    assert path.is_socket()
    with serving(bundle, variables) as server:
        assert probed(VIP5_UNIX_SOCKET=str(path)) == 0
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
    assert not path.exists()


@needs_ipv6
def test_all_addresses_of_both_protocols_are_served_and_probed(bundle: Path) -> None:
    with serving(bundle, {"VIP5_HOST": "::", "VIP5_ADMIN_PORT": "0"}) as server:
        port = httpx.URL(server.url).port
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health/ready").status_code == 200
        assert probed(VIP5_HOST="::", VIP5_PORT=str(port)) == 0
        assert server.admin_url.startswith("http://127.0.0.1:"), "not wherever clients are served"


def test_a_client_that_ends_its_side_gets_all_its_answers(server: Server) -> None:
    answers = say(
        server, post("/recommend/sequential", ASK) + post("/explain", LONG) + b"GET /health/live HTTP/1.0\r\n\r\n"
    )

    assert re.findall(rb"HTTP/1\.1 (\d+)", answers.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")) == [b"200"] * 3


def test_requests_before_garbage_are_answered(server: Server) -> None:
    answers = say(server, post("/recommend/sequential", ASK) * 2 + b"\x00 no HTTP\r\n\r\n")

    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"200", b"400"]


def test_an_upgrade_is_ignored(server: Server) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    answers = say(server, post("/recommend/sequential", ASK, *upgrade) * 2)

    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"200"]


def test_it_is_found_under_its_root_path(server: Server) -> None:
    with server.client() as client:
        for prefix in ("", "/recommender"):
            assert client.head(f"{prefix}/health/live").status_code == 200
            assert client.get(f"{prefix}/domains/").headers["location"] == "/recommender/domains"


@pytest.mark.skipif(shutil.which("javac") is None, reason="no Java is installed")
def test_java_is_answered(server: Server, tmp_path: Path) -> None:
    """Its HttpClient asks for h2c with its first request on each connection."""
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    command = ["java", str(source), f"{server.url}/recommend/sequential", json.dumps(ASK)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert asked.stdout.split() == ["200", "200"], asked.stderr


def test_work_for_a_client_that_is_gone_is_cancelled(bundle: Path, tmp_path: Path) -> None:
    delay = tmp_path / "delay"
    delay.write_text("0")
    command = (sys.executable, "-m", "tests.e2e.slow_serve")
    with serving(bundle, {"SLOW_ENGINE": str(delay)}, command) as server:
        delay.write_text("600")
        with socket.create_connection(address_of(server), timeout=PATIENCE_S) as sock:
            sock.sendall(post("/recommend/sequential", ASK, "X-Request-ID: gone"))
        while (line := server.wait_event("request"))["request_id"] != "gone":
            pass

    assert line["status"] == 499
