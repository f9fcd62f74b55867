"""A cluster of Ray on this machine, the service on it, and clients."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.schema import ServeDeploySchema

from service.ray.options import ApplicationOptions
from tests.redis_servers import free_port

APP = "vip5"
HOST = "127.0.0.1"
STORE_BYTES = 80_000_000
PATIENCE_S = 300


@contextmanager
def cluster(root: Path, cpus: Sequence[int] = (1, 1)) -> Iterator[int]:
    """Nodes with so many logical CPUs each, until the end; the port of Ray Serve's proxy on the first."""
    with variables(root), ExitStack() as ending:
        nodes: Any = Cluster()
        ending.callback(nodes.shutdown)
        for number in cpus:
            nodes.add_node(num_cpus=number, object_store_memory=STORE_BYTES, include_dashboard=False)
        ending.callback(ray.shutdown)
        ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        ending.callback(serve.shutdown)
        port = free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port})
        yield port


@contextmanager
def variables(root: Path) -> Iterator[None]:
    """This process's variables with those of nodes, whose files are in a folder of their own."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="vip5-", ignore_cleanup_errors=True) as folder:
        os.environ |= {
            "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [before.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": folder,
            "RAY_worker_niceness": "0",
            "RAY_BACKEND_LOG_LEVEL": "fatal",
            "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
            "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@dataclass
class RayService:
    """The application, as those who deploy it and those who ask it see it."""

    port: int
    options: ApplicationOptions

    def deploy(self, **changes: Any) -> None:  # noqa: ANN401
        """Deploy the application with changed options as `serve deploy` would, and wait until it runs.

        Domains are in the `user_config` of both deployments. What ran before may run for a moment longer.
        """
        self.options = ApplicationOptions.model_validate(self.options.model_dump() | changes)
        options = self.options.model_dump()
        known = {"domains": options.pop("domains")}
        deployments = [{"name": name, "user_config": known} for name in ("replica", "ingress")]
        application = {
            "name": APP,
            "route_prefix": "/",
            "import_path": "service.ray.application:build",
            "args": options,
            "deployments": deployments,
        }
        schema = ServeDeploySchema.model_validate({"applications": [application]})
        _controller().deploy_apps(schema, _blocking=False)
        until(self._is_running)

    def _is_running(self) -> bool:
        status = serve.status().applications.get(APP)
        assert status is None or status.status != "DEPLOY_FAILED", status
        return status is not None and status.status == "RUNNING"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{HOST}:{self.port}", timeout=PATIENCE_S)

    def replicas(self, deployment: str = "replica") -> list[str]:
        """Names of those that run."""
        details = _controller().get_serve_details()
        replicas = details["applications"][APP]["deployments"][deployment]["replicas"]
        return [each["replica_id"] for each in replicas if each["state"] == "RUNNING"]

    def kill(self, replica: str) -> None:
        """End its process at once."""
        (actor,) = [each for each in ray.util.list_named_actors(all_namespaces=True) if each["name"].endswith(replica)]
        ray.kill(ray.get_actor(actor["name"], actor["namespace"]))

    def held(self) -> dict[str, set[str]]:
        """The domains that each replica holds, by its own metrics."""
        with self.client() as client:
            text = client.get("/metrics").text
        held: dict[str, set[str]] = {replica: set() for replica in self.replicas()}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "vip5_bundle_info":
                    held.setdefault(sample.labels["replica"], set()).add(sample.labels["domain"])
        return held


def _controller() -> Any:  # noqa: ANN401  # Ray's own
    return serve.context._get_global_client()


def until(holds: Callable[[], object]) -> None:
    """Wait for what comes by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)


@dataclass
class Load:
    """Clients that ask without a pause, and try again as the answer says."""

    service: RayService
    bodies: Sequence[dict[str, Any]]
    num_clients: int
    outcomes: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    _is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.num_clients)]
        for each in clients:
            each.start()
        try:
            yield
        finally:
            self._is_over.set()
            for each in clients:
                each.join()

    def wait_more(self, number: int) -> None:
        """Wait for so many further answers."""
        goal = self.outcomes.total() + number
        until(lambda: self.outcomes.total() >= goal)

    def _ask(self, number: int) -> None:
        with self.service.client() as client:
            while not self._is_over.is_set():
                begun = time.monotonic()
                outcome = self._outcome(client, self.bodies[number % len(self.bodies)])
                number += 1
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def _outcome(self, client: httpx.Client, body: dict[str, Any]) -> str:
        for _ in range(5):
            try:
                answer = client.post("/recommend/sequential", json=body)
            except httpx.HTTPError as error:
                return repr(error)
            if answer.status_code == 200:
                return "answered"
            outcome = f"{answer.status_code} {answer.text[:200]}"
            if "Retry-After" not in answer.headers:
                return outcome
            with self._lock:
                self.retried[outcome] += 1
            time.sleep(float(answer.headers["Retry-After"]))
        return outcome
