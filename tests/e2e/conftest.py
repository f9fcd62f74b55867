"""A real Redis for each module that asks for one."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import PROCESSES
from tests.redis_servers import RedisServer, redis_server

OVER_HTTP = {
    "test_addresses",
    "test_api_examples",
    "test_changed_files",
    "test_closed_streams",
    "test_descriptors",
    "test_ending",
    "test_histories",
    "test_live",
    "test_live_redis",
    "test_log",
    "test_monitoring",
    "test_real_toys",
    "test_redis_features",
    "test_serve",
}
MOST_WORKERS = {"test_descriptors": 1}
"""Of tests that must choose the process to which they connect."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a running service run without and with workers."""
    is_alone = metafunc.definition.get_closest_marker("alone") is not None
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in OVER_HTTP and not is_alone:
        numbers = [0, MOST_WORKERS.get(module, 2)]
        metafunc.parametrize("num_workers", numbers, ids=["alone", "workers"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)  # pytest sets up no other fixture that a test does not name
def num_workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """Fixtures of a module that start a service name this one, so that they do so for each number."""
    PROCESSES.num_workers = getattr(request, "param", 0)
    yield PROCESSES.num_workers
    PROCESSES.num_workers = 0


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Empty."""
    with shared_server.client as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return shared_server


@pytest.fixture(scope="module")
def only_cluster() -> Iterator[None]:
    """One cluster of Ray at a time, whichever process tests it: two starve each other on a small machine."""
    with (Path(tempfile.gettempdir()) / f"vip5-ray-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for Ray, which takes a cluster that has ended for the current one. Short, as sockets' paths must be."""
    with tempfile.TemporaryDirectory(prefix="vip5-", ignore_cleanup_errors=True) as folder:
        current = Path(folder) / "ray" / "ray_current_cluster"
        current.parent.mkdir()
        current.write_text("127.0.0.1:1", encoding="utf-8")
        yield Path(folder)
