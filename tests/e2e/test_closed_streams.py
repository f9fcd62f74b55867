"""A service that is started without standard input, output or error: their numbers must not become those of others."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import COMMAND, PATIENCE_S, environment
from tests.tiny import tiny_bundle

ASK = {"domain": "toys", "history": ["item-1"], "k": 3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("closed"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_service_without_standard_streams_answers_and_ends_with_status_0(
    bundle: Path, tmp_path: Path, closed: str
) -> None:
    socket = tmp_path / "vip5.sock"
    serve = [*COMMAND, "serve", "--bundle", str(bundle), "--unix-socket", str(socket), "--num-threads", "1"]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *serve]
    transport = httpx.HTTPTransport(uds=str(socket))
    with (
        subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process,
        httpx.Client(base_url="http://vip5", timeout=PATIENCE_S, transport=transport) as client,
    ):
        try:
            while not socket.exists() or not _is_ready(client):
                assert process.poll() is None
            standard = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)]
            answer = client.post("/recommend/sequential", json=ASK)
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE_S)
        finally:
            process.kill()

    assert answer.status_code == 200
    assert not any("anon_inode" in str(each) or "socket" in str(each) for each in standard)
    assert status == 0


def test_an_error_without_standard_error_ends_with_its_status(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "serve", "--bundle", str(tmp_path / "none")]

    assert subprocess.run(command, env=environment(), check=False, timeout=PATIENCE_S).returncode == 2


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:  # bound, and not listening yet
        return False
