"""A real Redis for each module that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.processes import PROCESSES
from tests.redis_servers import RedisServer, redis_server

# Not test_changed_files, where a worker's report comes up to a second later, nor test_descriptors, whose limit is one
# process's, nor test_monitoring, whose alerts were tried with one process only.
OVER_HTTP = {
    "test_addresses",
    "test_api_examples",
    "test_closed_streams",
    "test_ending",
    "test_live",
    "test_live_redis",
    "test_log",
    "test_real_toys",
    "test_redis_features",
    "test_serve",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a running service run without and with workers."""
    is_alone = metafunc.definition.get_closest_marker("alone") is not None
    if metafunc.module.__name__.rpartition(".")[2] in OVER_HTTP and not is_alone:
        metafunc.fixturenames.insert(0, "num_workers")
        metafunc.parametrize("num_workers", [0, 2], ids=["alone", "workers"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def num_workers(request: pytest.FixtureRequest) -> Iterator[int]:
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
