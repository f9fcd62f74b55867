"""`vip5` as a real process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from service.cli import main; main()")
PATIENCE_S = 120


@dataclass
class Processes:
    """How services run in this process's tests. Without workers, one process does it all."""

    num_workers: int = 0
    patience_s: float = PATIENCE_S
    """Longest wait for a line of a log."""


PROCESSES = Processes()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without any setting of the service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIP5_")}
    workers = {"VIP5_WORKERS": str(PROCESSES.num_workers)} if PROCESSES.num_workers else {}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"} | workers | dict(extra or {})


def run_vip5(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@dataclass
class Server:
    """A running `vip5 serve`, whose log lines are read as they come."""

    process: subprocess.Popen[str]
    lines: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    url: str = ""
    admin_url: str = ""

    def wait_event(self, event: str) -> dict[str, Any]:
        """The next log line of this event; those before it are dropped."""
        while True:
            line = self.lines.get(timeout=PROCESSES.patience_s)
            if line["event"] == event:
                return line
            assert line["event"] != "stdout closed", f"the process ended before {event}"

    def remaining_lines(self) -> list[dict[str, Any]]:
        """The log lines that were not read yet, up to the process's end, which is waited for."""
        lines: list[dict[str, Any]] = []
        while not lines or lines[-1]["event"] != "stdout closed":
            lines.append(self.lines.get(timeout=PROCESSES.patience_s))
        return lines[:-1]

    def wait_ready(self) -> None:
        with self.client() as client:
            while client.get("/health/ready").status_code != 200:
                assert self.process.poll() is None

    def client(self) -> httpx.Client:
        """A client of its address, which may be a Unix socket."""
        path = self.url.removeprefix("unix:")
        if path == self.url:
            return httpx.Client(base_url=self.url, timeout=PATIENCE_S)
        return httpx.Client(base_url="http://vip5", timeout=PATIENCE_S, transport=httpx.HTTPTransport(uds=path))

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put({"event": "stdout closed"})


@contextmanager
def serving(bundle: Path, env: Mapping[str, str] | None = None, command: Sequence[str] = COMMAND) -> Iterator[Server]:
    """`vip5 serve` on a free port, ready; killed at the end if it still runs. `command` is what runs `vip5`."""
    arguments = [*command, "serve", "--bundle", str(bundle), "--port", "0", "--num-threads", "1"]
    with subprocess.Popen(arguments, env=environment(env), stdout=subprocess.PIPE, text=True) as process:
        server = Server(process)
        reader = threading.Thread(target=server.read)
        reader.start()
        try:
            listening = server.wait_event("listening")
            server.url, server.admin_url = listening["url"], listening.get("admin_url", "")
            server.wait_ready()
            yield server
        finally:
            process.kill()
            process.wait()
            reader.join()
