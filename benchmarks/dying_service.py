"""A service that waits at a named point until it has been sent a signal, and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.death_outcomes import Outcome
from tests.e2e.children import children_of, is_running
from tests.e2e.live import live_environment
from tests.e2e.processes import ROOT, Server, environment
from tests.redis_servers import free_port

COMMAND = (sys.executable, "-m", "tests.e2e.faulty_serve")
LOOK_S = 0.01
PATIENCE_S = 300.0
"""On a loaded machine a start alone may take minutes."""


class Case:
    """A service with a point at which it waits."""

    def __init__(self, bundles: Path, folder: Path, phase: str, workers: int) -> None:
        self.phase = phase
        self.folder = folder
        self.port = free_port()
        own = {"FAULT_FOLDER": str(folder), "VIP5_JOURNAL": str(folder / "journal"), "VIP5_WORKERS": str(workers)}
        self._env = environment(live_environment(bundles, **own, VIP5_WORKER_ACK_S="5", VIP5_DRAIN_S="20"))
        self._arguments = [*COMMAND, "serve", "--bundle", str(bundles / "first"), "--num-threads", "1"]
        self.server: Server
        self.pids: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        process = subprocess.Popen(  # noqa: S603  # our own command
            [*self._arguments, "--port", str(self.port)],
            env=self._env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server = Server(process, url=self.url)
        threading.Thread(target=self.server.read, daemon=True).start()

    def wait_at(self, point: str) -> None:
        (self.folder / "point").write_text(point)

    def until_reached(self) -> None:
        wait_until((self.folder / "reached").exists, "the point is not reached")

    def let_go(self) -> None:
        (self.folder / "held").unlink(missing_ok=True)
        (self.folder / "go").write_text("")

    def forget_point(self) -> None:
        for name in ("point", "reached", "go", "held"):
            (self.folder / name).unlink(missing_ok=True)

    def note_pids(self) -> list[int]:
        with suppress(OSError):
            self.pids |= set(children_of(self.server))
        return sorted(pid for pid in self.pids if is_running(pid))

    def strike(self, signals: str, worker: int | None = None) -> None:
        """Send the signals of a case."""
        match signals:
            case "worker killed":
                if (workers := self.note_pids()) or worker:
                    os.kill(worker or workers[0], signal.SIGKILL)
            case "engine killed":
                self.server.process.kill()
            case "SIGTERM":
                self.server.process.terminate()
            case "SIGTERM twice":
                self.server.process.terminate()
                time.sleep(LOOK_S)  # two signals at once would be one
                self.server.process.terminate()

    def end(self, outcome: Outcome) -> None:
        """Wait for the end of all processes, and note what is left."""
        begun_at = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            outcome.exit_status = self.server.process.wait(PATIENCE_S)
        limit_s = 1.0 if outcome.signals == "engine killed" else 0.5
        at = time.monotonic()
        while time.monotonic() - at < limit_s and (self.note_pids() or not is_free(self.port)):
            time.sleep(LOOK_S)
        outcome.ends_s = round(time.monotonic() - begun_at, 2)
        outcome.num_orphans = len(self.note_pids())
        outcome.is_port_free = is_free(self.port)
        self.kill()

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()
        for pid in self.note_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_free(port: int) -> bool:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(("127.0.0.1", port))
            bound.listen()
        except OSError:
            return False
    return True


def wait_until(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(LOOK_S)


def owners_of(port: int, pids: Sequence[int]) -> dict[int, int]:
    """Established connections at the port by process."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        parts = line.split()
        if parts[3] == "01" and int(parts[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{parts[9]}]")
    found = {}
    for pid in pids:
        links = []
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.append(os.readlink(each))  # noqa: PTH115
        found[pid] = sum(link in inodes for link in links)
    return found
