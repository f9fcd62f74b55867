"""Pods of the Ray overlay as processes, as KubeRay makes them, but for addresses, ports and folders."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.kubelet import PATIENCE_S, Container, kill_all_of
from tests.e2e.pods import keys_of_clients, links_of, redis_pod
from tests.e2e.processes import ROOT
from tests.redis_servers import HOST, RedisServer, free_port
from tests.unit.deploy.kuberay import RayPod, deploy, head_of, serve_config, served_port, waiting_of, worker_of
from tests.unit.deploy.manifests import Manifest

LINKS = {
    **links_of("kubernetes", "10.0.0.1", {"https": 443}),
    **links_of("redis", "10.0.0.2", {"redis": 6379}),
    **links_of("vip5-head-svc", "10.0.0.3", {"gcs": 6379, "dashboard": 8265, "serve": 8000, "metrics": 8080}),
    **links_of("vip5-serve-svc", "10.0.0.4", {"serve": 8000}),
}
"""Of the overlay's Services and those that KubeRay makes. Pods with enableServiceLinks: false have the first only."""
PORTS_OF_HEAD = {"port": 6379, "dashboard-port": 8265, "ray-client-server-port": 10001}
"""Those that `ray start` takes without the option that is named."""
PORTS_OF_NODE = ("metrics-export-port", "dashboard-agent-listen-port")
"""Options that KubeRay always gives."""
BUSY_MACHINE = {
    "OMP_NUM_THREADS": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "300",
}
"""Fewer processes, and more time for each than Ray's."""


@dataclass(frozen=True)
class Machine:
    """What containers have of this machine in place of what a cluster of Kubernetes gives them."""

    folder: Path
    redis: RedisServer
    keys: Path
    served: Mapping[int, int]
    """The port of Ray's proxies by that of the manifest."""

    def head(self, pod: RayPod) -> Container:
        options = {name: str(free_port()) for name in (*PORTS_OF_HEAD, *PORTS_OF_NODE)}
        address = {"RAY_ADDRESS": f"{HOST}:{options['port']}", "RAY_PORT": options["port"]}
        return self._container(pod, {**options, "dashboard-host": HOST}, {**address, **self.redis_of_head})

    def worker(self, pod: RayPod, address: str) -> Container:
        options = {name: str(free_port()) for name in PORTS_OF_NODE}
        here = {"RAY_ADDRESS": address, "RAY_PORT": address.partition(":")[2], "FQ_RAY_IP": HOST, "RAY_IP": HOST}
        return self._container(pod, {**options, "address": address}, here)

    @property
    def redis_of_head(self) -> dict[str, str]:
        return {"RAY_REDIS_ADDRESS": f"{HOST}:{self.redis.port}"}

    def run(
        self, command: Sequence[str], variables: Mapping[str, str], here: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        environment = self._environment(variables, here)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def _container(self, pod: RayPod, options: dict[str, str], here: Mapping[str, str]) -> Container:
        moved = [name for name in (*PORTS_OF_HEAD, *PORTS_OF_NODE) if name in options]
        ports = {int(pod.parameters.get(name) or PORTS_OF_HEAD[name]): int(options[name]) for name in moved}
        of_workers = {"min-worker-port": "0", "max-worker-port": "0", "object-store-memory": "80000000"}
        service = {
            "VIP5_BUNDLE": str(ROOT / "demo/bundle"),
            "VIP5_BUNDLES_ROOT": str(ROOT / "demo"),
            "VIP5_REDIS_URL": f"redis://{HOST}:{self.redis.port}/0",
            "VIP5_API_KEYS_FILE": str(self.keys),
        }
        environment = self._environment(pod.variables, {**here, **service})
        return Container(
            pod.container, pod.command({**options, **of_workers}), environment, {**ports, **self.served}, self.folder
        )

    def _environment(self, variables: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
        assert here.keys() <= variables.keys(), "each stands for a variable of the pod"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIP5_", "RAY_"))}
        machine = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "RAY_TMPDIR": str(self.folder / "ray"),
            "DASHBOARD_METRIC_PORT": str(free_port()),
        }
        return kept | LINKS | dict(variables) | dict(here) | BUSY_MACHINE | machine


@dataclass(frozen=True)
class RayCluster:
    """The application on a head and a worker."""

    machine: Machine
    head: Container
    worker: Container
    key: str
    """A client's, of the service."""

    def dashboard(self, path: str = "") -> str:
        return f"http://{HOST}:{self.head.port('dashboard')}{path}"

    def client(self) -> httpx.Client:
        """Of the service, at either proxy: on one machine they share a port."""
        bearer = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://{HOST}:{self.head.port('serve')}", headers=bearer, timeout=PATIENCE_S)


@contextmanager
def shared_port() -> Iterator[int]:
    """A free port that nobody else gets but those who share it, as Ray's proxies do."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, 0))
        yield int(holder.getsockname()[1])


@contextmanager
def ray_cluster(manifest: Manifest, folder: Path) -> Iterator[RayCluster]:
    """The pods in the order in which Kubernetes and KubeRay start them. The folder's path is short: it has sockets."""
    with ExitStack() as ending:
        redis = ending.enter_context(redis_pod("redis-0", folder / "redis", overlay_name="ray"))
        ending.callback(kill_all_of, folder / "ray")
        keys, key = keys_of_clients(folder)
        serve_port = ending.enter_context(shared_port())
        machine = Machine(folder, redis, keys, {served_port(manifest): serve_port})

        head = machine.head(head_of(manifest))
        ending.enter_context(head.running())
        head.wait("startupProbe")
        address = f"{HOST}:{head.port('gcs')}"

        done = machine.run(*waiting_of(manifest, address), {"FQ_RAY_IP": HOST, "RAY_IP": HOST})
        assert done.returncode == 0, done.stdout + done.stderr
        worker = machine.worker(worker_of(manifest), address)
        ending.enter_context(worker.running())
        worker.wait("startupProbe")

        cluster = RayCluster(machine, head, worker, key)
        deploy(cluster.dashboard(), serve_config(manifest, HOST, serve_port), PATIENCE_S)
        yield cluster
