"""Runs an image's files with runc as docker-compose.yml confines its container: read-only, own user, no capability."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.unit.deploy.containers import environment_of, of_stage

PATIENCE_S = 300


@dataclass
class Container:
    """A running container."""

    name: str
    folder: Path
    process: subprocess.Popen[str]
    started_at: float
    lines: list[dict[str, Any]] = field(default_factory=list)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in it."""
        full = ["runc", "--root", str(self.folder / "state"), "exec", self.name, *command]
        return subprocess.run(full, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def wait_ready(self, url: str, path: str = "/health/ready") -> float:
        """Seconds from the start until a path answers 200."""
        while True:
            assert self.process.poll() is None, f"the container ended with status {self.process.returncode}"
            try:
                if httpx.get(f"{url}{path}").status_code == httpx.codes.OK:
                    return time.monotonic() - self.started_at
            except httpx.TransportError:
                pass
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM to the service, and its exit status."""
        subprocess.run(
            ["runc", "--root", str(self.folder / "state"), "kill", self.name, str(int(signal.SIGTERM))], check=True
        )
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    files: Path, target: str, folder: Path, variables: dict[str, str], command: list[str] | None = None
) -> Iterator[Container]:
    """The image's entry point, or another command, with further variables, in the network of this machine."""
    last = {each.name: each.value for each in of_stage(target)}
    folder.mkdir(parents=True, exist_ok=True)
    command = command or [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    uid, gid = map(int, last["USER"].split(":"))
    environment = {name: value.strip('"') for name, value in environment_of(target).items()} | variables
    configuration = _configuration(files, command, environment, (uid, gid), last["WORKDIR"])
    (folder / "config.json").write_text(json.dumps(configuration))
    name = f"vip5-{os.getpid()}"
    full = ["runc", "--root", str(folder / "state"), "run", "--bundle", str(folder), name]
    with subprocess.Popen(full, stdout=subprocess.PIPE, text=True) as process:
        container = Container(name, folder, process, time.monotonic())
        reader = threading.Thread(target=_read, args=(container,))
        reader.start()
        try:
            yield container
        finally:
            if process.poll() is None:
                subprocess.run(["runc", "--root", str(folder / "state"), "kill", name, "KILL"], check=False)
            process.wait()
            reader.join()


def _read(container: Container) -> None:
    assert container.process.stdout is not None
    for line in container.process.stdout:
        if line.startswith("{"):
            container.lines.append(json.loads(line))


def _configuration(
    files: Path, command: list[str], environment: dict[str, str], user: tuple[int, int], folder: str
) -> dict[str, Any]:
    """runc's, https://github.com/opencontainers/runtime-spec/blob/main/config.md."""
    none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    tmpfs = {"type": "tmpfs", "source": "tmpfs"}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user[0], "gid": user[1]},
            "args": command,
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": folder,
            "capabilities": none,
            "noNewPrivileges": True,
        },
        "root": {"path": str(files), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", **tmpfs, "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", **tmpfs, "options": ["nosuid", "nodev", "noexec", "mode=1777"]},
            {"destination": "/tmp", **tmpfs, "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }
