"""What the pods of the Ray overlay run, run as processes: commands, variables and probes as KubeRay makes them."""

from __future__ import annotations

import functools
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.kubelet import PATIENCE_S, until
from tests.e2e.processes import ROOT
from tests.e2e.ray_libraries import require_ray_serve
from tests.e2e.ray_pods import RayCluster, ray_cluster
from tests.redis_servers import HOST, require_redis
from tests.unit.deploy.kuberay import AUTH, cleaning_of
from tests.unit.deploy.manifests import overlay

require_ray_serve()


@pytest.fixture(scope="module")
def cluster(only_cluster: None) -> Iterator[RayCluster]:
    require_redis()
    with (
        tempfile.TemporaryDirectory(prefix="vip5-", ignore_cleanup_errors=True) as folder,
        ray_cluster(overlay("ray"), Path(folder)) as running,
    ):
        yield running


def told(cluster: RayCluster, path: str) -> Any:  # noqa: ANN401  # JSON
    answer = httpx.get(cluster.dashboard(path), headers=AUTH, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_request_is_answered_with_a_clients_key(cluster: RayCluster) -> None:
    body: dict[str, Any] = json.loads((ROOT / "demo/bundle-requests.jsonl").read_text().splitlines()[0])
    path = f"/recommend/{body.pop('task')}"
    assert path == "/recommend/sequential"
    with cluster.client() as client:
        until(lambda: client.post(path, json=body).is_success)
        assert len(client.post(path, json=body).json()["items"]) == 10
        assert client.post(path, json=body, headers={"Authorization": "Bearer none"}).status_code == 401


def test_a_worker_joins_the_head_and_has_the_replicas(cluster: RayCluster) -> None:
    def nodes() -> dict[str, bool]:
        found = told(cluster, "/api/v0/nodes")["data"]["result"]["result"]
        return {node["node_id"]: node["is_head_node"] for node in found if node["state"] == "ALIVE"}

    until(lambda: sorted(nodes().values()) == [False, True])
    (worker,) = [node for node, is_head in nodes().items() if not is_head]

    def places() -> list[str]:
        deployments = told(cluster, "/api/serve/applications/")["applications"]["vip5"]["deployments"].values()
        replicas = [each for deployment in deployments for each in deployment["replicas"]]
        return [each["node_id"] for each in replicas if each["state"] == "RUNNING"]

    until(lambda: places() == [worker, worker])


def test_each_node_has_a_proxy(cluster: RayCluster) -> None:
    def proxies() -> list[str]:
        return [each["status"] for each in told(cluster, "/api/serve/applications/")["proxies"].values()]

    until(lambda: proxies() == ["HEALTHY", "HEALTHY"])


def test_every_probe_gets_its_answer(cluster: RayCluster) -> None:
    for container in (cluster.head, cluster.worker):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            container.wait(name)


def test_containers_listen_to_the_ports_that_they_name(cluster: RayCluster) -> None:
    for container in (cluster.head, cluster.worker):
        for each in container.manifest["ports"]:
            socket.create_connection((HOST, container.port(each["name"])), PATIENCE_S).close()


def test_monitors_reach_their_ports(cluster: RayCluster) -> None:
    monitors = {name: overlay("ray").find("PodMonitor", name)["spec"] for name in ("vip5", "vip5-ray")}
    (of_service,) = monitors["vip5"]["podMetricsEndpoints"]
    with cluster.client() as client:
        assert "vip5_redis_up" in client.get(of_service["path"]).text
    (of_ray,) = monitors["vip5-ray"]["podMetricsEndpoints"]
    for container in (cluster.head, cluster.worker):
        url = f"http://{HOST}:{container.port(of_ray['port'])}/metrics"
        until(functools.partial(has, url, "ray_node_cpu_count"))


def has(url: str, metric: str) -> bool:
    return metric in httpx.get(url, timeout=PATIENCE_S).text


def test_ray_refuses_who_lacks_the_operators_token(cluster: RayCluster) -> None:
    assert httpx.get(cluster.dashboard("/api/serve/applications/"), timeout=PATIENCE_S).status_code == 401


def test_the_operators_job_removes_what_the_head_left_in_redis(cluster: RayCluster) -> None:
    """The last one: it ends the cluster."""
    command, variables = cleaning_of(overlay("ray"))
    kept = f"RAY{variables['RAY_external_storage_namespace']}@*"
    cluster.worker.end()
    cluster.head.end()
    with cluster.machine.redis.client as client:
        assert client.keys(kept)
        done = cluster.machine.run(command, variables, cluster.machine.redis_of_head)
        assert done.returncode == 0, done.stderr
        assert not client.keys(kept)
        assert client.keys("*"), "the service's own stay"
