"""What the pods run, run as processes: commands, variables and probes are those of the manifests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pods import LINKS, REDIS, keys_of_clients, redis_pod
from tests.e2e.processes import PATIENCE_S, ROOT, Server, serving
from tests.redis_servers import HOST, RedisServer, require_redis
from tests.unit.deploy.manifests import overlay


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require_redis()
    with redis_pod("redis-0", tmp_path_factory.mktemp("redis") / "0") as server:
        yield server


@pytest.fixture(scope="module")
def service(primary: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The pod of the service, with Kubernetes' own variables, and addresses and folders of this machine."""
    variables = overlay("cpu").environment()
    keys, _ = keys_of_clients(tmp_path_factory.mktemp("keys"))
    here = {
        "VIP5_BUNDLE": str(ROOT / "demo/bundle"),
        "VIP5_BUNDLES_ROOT": str(ROOT / "demo"),
        "VIP5_REDIS_URL": f"redis://{HOST}:{primary.port}/0",
        "VIP5_API_KEYS_FILE": str(keys),
        "VIP5_ADMIN_HOST": HOST,
        "VIP5_ADMIN_PORT": "0",
    }
    assert here.keys() <= variables.keys(), "each stands for a variable of the pod"
    with serving(ROOT / "demo/bundle", LINKS | variables | here) as server:
        yield server


def test_every_probe_gets_its_answer(service: Server) -> None:
    container = overlay("cpu").container()
    with service.client() as client:
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[name]["httpGet"]
            assert asked["port"] == "http"
            assert client.get(asked["path"]).status_code == 200


def test_the_monitor_and_the_service_for_administrators_reach_their_port(service: Server) -> None:
    (endpoint,) = overlay("cpu").find("PodMonitor")["spec"]["podMetricsEndpoints"]
    bearer = {"Authorization": f"Bearer {overlay('cpu').environment()['VIP5_ADMIN_TOKEN']}"}

    with service.client() as client:
        assert "vip5_redis_up 1.0" in client.get(f"{service.admin_url}{endpoint['path']}").text
        told = client.get(f"{service.admin_url}/admin/domains", headers=bearer).json()
    assert told["journal"]["kind"] == "redis"


def test_the_second_pod_of_redis_copies_the_first(primary: RedisServer, tmp_path: Path) -> None:
    with primary.client as client:
        client.set("kept", "yes")
        with redis_pod("redis-1", tmp_path / "1", primary.port) as replica, replica.client as copy:
            assert client.execute_command("WAIT", "1", str(PATIENCE_S * 1000)) == 1
            assert copy.get("kept") == b"yes"
            assert copy.info("replication")["role"] == "slave"
        assert client.info("replication")["role"] == "master"


def test_the_probe_of_redis_succeeds_with_its_password_alone(primary: RedisServer) -> None:
    container = overlay("cpu").container(*REDIS)
    for probe in ("startupProbe", "readinessProbe"):
        (*shell, line) = container[probe]["exec"]["command"]
        line = line.replace("redis-cli", f"redis-cli -h {HOST} -p {primary.port}")
        for password, status in ((overlay("cpu").environment(*REDIS)["REDISCLI_AUTH"], 0), ("wrong-one", 1)):
            done = subprocess.run(
                [*shell, line], env=os.environ | {"REDISCLI_AUTH": password}, capture_output=True, check=False
            )
            assert done.returncode == status
