"""Containers as processes, with the kubelet's part: it starts a container again when it ends, and asks its probes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.redis_servers import HOST

PATIENCE_S = 600
ANSWER_S = 30
MOST_STARTS = 12


@dataclass
class Container:
    """A container that runs as a process, and is started again whenever that ends."""

    manifest: Mapping[str, Any]
    command: Sequence[str]
    variables: Mapping[str, str]
    ports: Mapping[int, int]
    """Ports of this machine by those of the pod."""
    folder: Path
    num_starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        kubelet = threading.Thread(target=self._start_whenever_it_ended)
        kubelet.start()
        try:
            yield
        finally:
            self.end()
            kubelet.join()

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            if self.process is not None and self.process.poll() is None:
                kill_group(self.process)

    def _start_whenever_it_ended(self) -> None:
        while (process := self._start()) is not None:
            process.wait()
            kill_group(process)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock, self.log.open("ab") as log:
            if self._is_over or self.num_starts == MOST_STARTS:
                return None
            self.num_starts += 1
            self.process = subprocess.Popen(
                self.command, env=self.variables, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
            return self.process

    @property
    def log(self) -> Path:
        return self.folder / f"{self.manifest['name']}.log"

    def port(self, named: str | int) -> int:
        """The port of this machine for one of the pod, which is given by its name or its number."""
        numbers = {each["name"]: each["containerPort"] for each in self.manifest["ports"]}
        number = numbers[named] if isinstance(named, str) else named
        assert number in self.ports, f"nothing in {self.manifest['name']} listens to {number}"
        return self.ports[number]

    def probe(self, name: str) -> str:
        """The address that a probe asks."""
        asked = self.manifest[name]["httpGet"]
        return f"http://{HOST}:{self.port(asked['port'])}{asked['path']}"

    def wait(self, probe: str) -> None:
        """Wait until a probe succeeds."""
        until(lambda: succeeds(self.probe(probe)) or self.num_starts == MOST_STARTS)
        assert self.num_starts < MOST_STARTS, self.log.read_text(errors="replace")[-3000:]


def until(holds: Callable[[], object]) -> None:
    """Wait for what comes by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


def succeeds(url: str) -> bool:
    """Whether a probe would."""
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=ANSWER_S).is_success
    return False


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_all_of(folder: Path) -> None:
    """Kill every process whose variables name a folder: those of a container also if they changed their group."""
    for variables in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if os.fsencode(folder) in variables.read_bytes():
                os.kill(int(variables.parent.name), signal.SIGKILL)
