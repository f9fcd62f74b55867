"""A redis-server for one benchmark, on a free port, with the settings of deployments."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.exceptions import RedisError

START_S = 30.0
SETTINGS = ("--save", "", "--appendonly", "no", "--hash-max-listpack-value", "8192")


class OwnRedis:
    """A redis-server process that can be killed and restarted."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        """With `durable`, the data outlives a kill."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._command = ["redis-server", "--port", str(self.port), "--dir", str(folder), *SETTINGS]
        if durable:
            self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)  # noqa: S603 - the command above
        deadline = time.monotonic() + START_S
        with redis.Redis(port=self.port) as client:
            while time.monotonic() < deadline:
                with suppress(RedisError, OSError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise TimeoutError("redis-server does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@contextmanager
def hurtable_redis(folder: Path) -> Iterator[OwnRedis]:
    """A running redis-server, killed at the end."""
    server = OwnRedis(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def own_redis(folder: Path) -> Iterator[int]:
    """The port of a running redis-server."""
    with hurtable_redis(folder) as server:
        yield server.port
