"""Real Redis processes on free ports, for tests: one server, a cluster of three, servers behind Sentinel."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError

HOST = "127.0.0.1"
PATIENCE_S = 30.0
NUM_TRIES = 5
LISTPACKS = ("--hash-max-listpack-value", "8192")


def require_redis(*programs: str) -> None:
    """Skip where Redis is not installed."""
    missing = [name for name in programs or ("redis-server",) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: install redis-server from the system's packages")


def free_port() -> int:
    """A port that nobody listens on, below the ports that outgoing connections get; so is port + 10000."""
    while True:
        with socket.create_server((HOST, 0)) as listener:
            port = int(listener.getsockname()[1])
        if port < 55_000:
            return port


@dataclass
class RedisServer:
    """A redis-server process that can be hurt and brought back."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def client(self) -> redis.Redis:
        password = self.options[self.options.index("--requirepass") + 1] if "--requirepass" in self.options else None
        return redis.Redis(host=HOST, port=self.port, password=password, socket_timeout=PATIENCE_S)

    def start(self) -> None:
        """Start and wait until it answers; raises OSError if it ends instead, such as for a port that was taken."""
        place = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--save", ""]
        command = ["redis-server", *place, *LISTPACKS, *self.options]
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with self.client as client:
            while time.monotonic() < deadline:
                assert self.process is not None
                if self.process.poll() is not None:
                    log = (self.folder / f"{self.port}.log").read_text(errors="replace")
                    raise OSError(f"redis-server ended: {log[-500:]}")
                with suppress(RedisError, OSError):
                    client.ping()
                    return
        raise TimeoutError(f"redis-server on {self.port} does not answer")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """One server; killed at the end."""
    require_redis()
    server = _started(folder, options)
    try:
        yield server
    finally:
        server.kill()


def _started(folder: Path, options: Sequence[str]) -> RedisServer:
    """Another process may take a port between finding and using it, so a few are tried."""
    for attempt in range(NUM_TRIES):
        server = RedisServer(folder, free_port(), tuple(options))
        try:
            server.start()
        except OSError:
            server.kill()
            if attempt == NUM_TRIES - 1:
                raise
        else:
            return server
    raise AssertionError


@contextmanager
def redis_cluster(folder: Path, num_nodes: int = 3) -> Iterator[list[RedisServer]]:
    """A cluster without replicas whose slots are divided evenly."""
    require_redis()
    with ExitStack() as stack:
        nodes = []
        for number in range(num_nodes):
            home = folder / f"node{number}"
            home.mkdir()
            options = "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-require-full-coverage no"
            nodes.append(stack.enter_context(redis_server(home, *options.split())))
        bounds = [16384 * number // num_nodes for number in range(num_nodes + 1)]
        for number, node in enumerate(nodes):
            with node.client as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                client.execute_command("CLUSTER", "MEET", HOST, nodes[0].port)
        _wait_for(lambda: all(_knows_all_slots(node, num_nodes) for node in nodes))
        yield nodes


def _knows_all_slots(node: RedisServer, num_nodes: int) -> bool:
    with node.client as client:
        slots = client.execute_command("CLUSTER", "SLOTS")
        state = client.execute_command("CLUSTER", "INFO")
    return len(slots) == num_nodes and b"cluster_state:ok" in state


@dataclass
class SentinelGroup:
    """A master with a replica, and three Sentinels that watch them."""

    servers: list[RedisServer]
    sentinel_ports: list[int]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self.sentinel_ports)}/features"

    def master_port(self) -> int:
        """As the first Sentinel has it."""
        with redis.Redis(host=HOST, port=self.sentinel_ports[0], decode_responses=True) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "features")[1])


@contextmanager
def sentinel_group(folder: Path) -> Iterator[SentinelGroup]:
    """Fails over about half a second after the master is gone."""
    require_redis("redis-server", "redis-sentinel")
    with ExitStack() as stack:
        homes = [folder / name for name in ("master", "replica", "s0", "s1", "s2")]
        for home in homes:
            home.mkdir()
        master = stack.enter_context(redis_server(homes[0], "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(redis_server(homes[1], "--replicaof", HOST, str(master.port)))
        _wait_for(lambda: replica.client.info("replication")["master_link_status"] == "up")
        ports = [_start_sentinel(stack, home, master.port) for home in homes[2:]]
        group = SentinelGroup([master, replica], ports)
        _wait_for(lambda: all(_sees_all(port) for port in ports))
        yield group


def _start_sentinel(stack: ExitStack, home: Path, master_port: int) -> int:
    port = free_port()
    config = home / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind {HOST}\ndir {home}\nsentinel monitor features {HOST} {master_port} 2\n"
        "sentinel down-after-milliseconds features 500\nsentinel failover-timeout features 2000\n"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["redis-sentinel", str(config)], stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return port


def _sees_all(port: int) -> bool:
    with redis.Redis(host=HOST, port=port, decode_responses=True) as client:
        fields = client.execute_command("SENTINEL", "MASTER", "features")
    return fields["num-slaves"] in (1, "1") and fields["num-other-sentinels"] in (2, "2")


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(RedisError, OSError):
            if is_so():
                return
        time.sleep(0.01)
    raise TimeoutError("the servers did not come to the state that the test needs")
