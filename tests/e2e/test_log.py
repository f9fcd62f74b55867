"""A log that nobody reads costs log lines, and neither an answer nor a probe nor the process's end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import PATIENCE_S, environment
from tests.tiny import tiny_bundle

ASK = {"domain": "toys", "history": ["item-1"], "k": 3}
SMALL_QUEUE = (
    "from service.observability import log_writer; log_writer.MAX_QUEUED_BYTES = 8192;"
    " from service.cli import main; main()"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("log"))


@dataclass
class Stalling:
    """`vip5 serve`, whose standard output and error are one small pipe that is read by the test only."""

    process: subprocess.Popen[bytes]
    log: BufferedReader
    client: httpx.Client

    def until(self, event: str) -> dict[str, Any]:
        """Read the log up to a line of this event."""
        while True:
            line: dict[str, Any] = json.loads(self.log.readline())
            if line["event"] == event:
                return line

    def ask(self, request_id: str = "shop") -> None:
        headers = {"X-Request-ID": request_id}
        response = self.client.post("/recommend/sequential", json=ASK, headers=headers)
        assert response.status_code == 200, response.text

    def num_dropped(self) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("vip5_log_lines_dropped_total")).split()[1])

    def ask_until_lines_are_dropped(self) -> None:
        before = self.num_dropped()
        while self.num_dropped() == before:
            self.ask()


@contextmanager
def stalling(bundle: Path) -> Iterator[Stalling]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-c", SMALL_QUEUE, "serve", "--bundle", str(bundle), "--port", "0", "--num-threads", "1"]
    with (
        os.fdopen(reading, "rb") as log,
        subprocess.Popen(command, env=environment(), stdout=writing, stderr=writing) as process,
    ):
        os.close(writing)
        try:
            with httpx.Client(timeout=PATIENCE_S) as client:
                stalling = Stalling(process, log, client)
                client.base_url = stalling.until("listening")["url"]
                while client.get("/health/ready").status_code != 200:
                    assert process.poll() is None
                yield stalling
        finally:
            process.kill()


def test_a_reader_that_stalls_stops_nothing_and_is_told_what_it_missed(bundle: Path) -> None:
    with stalling(bundle) as serving:
        serving.ask_until_lines_are_dropped()
        live = serving.client.get("/health/live")
        degraded = serving.client.get("/health/ready").json()["degraded"]
        num_dropped = serving.num_dropped()
        report = serving.until("log_lines_dropped")
        num_dropped_since = serving.num_dropped()
        serving.ask("after")
        while serving.until("request")["request_id"] != "after":
            pass
        healthy = serving.client.get("/health/ready").json()["degraded"]

        serving.ask_until_lines_are_dropped()
        serving.process.send_signal(signal.SIGTERM)
        status = serving.process.wait(PATIENCE_S)

    assert live.status_code == 200
    assert any("lines were dropped" in problem for problem in degraded)
    assert report["level"] == "WARNING"
    assert 0 < num_dropped <= report["num_lines"] <= num_dropped_since
    assert not any("lines were dropped" in problem for problem in healthy)
    assert status == 0


def test_an_error_at_the_end_is_not_waited_for_either(bundle: Path, tmp_path: Path) -> None:
    """Its line goes to standard error, which is the same pipe here."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"#" * 4096)
    command = [sys.executable, "-c", SMALL_QUEUE, "serve", "--bundle", str(tmp_path / "none")]
    process = subprocess.Popen(command, env=environment(), stdout=writing, stderr=writing)
    try:
        assert process.wait(PATIENCE_S) == 2
    finally:
        process.kill()
        os.close(reading)
        os.close(writing)
