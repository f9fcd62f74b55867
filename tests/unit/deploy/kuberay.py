"""The pods that KubeRay makes of a RayService: the commands and the variables that it adds.

Source: ray-operator/controllers/ray/common/pod.go of KubeRay 1.5 (`BuildPod`, `DefaultWorkerPodTemplate`,
`SetContainerTokenAuthEnvVars`, `setContainerEnvVars`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from tests.unit.deploy.manifests import Manifest

LOGIN_SHELL = ("/bin/bash", "-lc", "--")
"""Of KubeRay before 1.4, and of later ones with ENABLE_LOGIN_SHELL."""
SHELL = ("/bin/bash", "-c", "--")
HEAD_SERVICE = "vip5-head-svc.default.svc.cluster.local"
GCS_PORT = "6379"
AUTH_TOKEN = "a-token-of-the-operator"
"""In a Secret that the operator makes; pods get it as a variable."""
AUTH = {"x-ray-authorization": f"Bearer {AUTH_TOKEN}"}
"""What the operator's requests have."""
_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class RayPod:
    """A container of Ray."""

    container: Mapping[str, Any]
    parameters: Mapping[str, str]
    """Options of `ray start` by name; `true` for those without a value."""
    variables: Mapping[str, str]
    is_head: bool

    def command(self, replaced: Mapping[str, str], shell: tuple[str, ...] = SHELL) -> list[str]:
        """What the container runs, with options of `ray start` replaced or added."""
        options = {**self.parameters, **replaced}
        flags = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in sorted(options.items())]
        return [*shell, " ".join(["ulimit -n 65536; ray start", *(["--head"] if self.is_head else []), *flags])]


def head_of(manifest: Manifest) -> RayPod:
    cluster = _cluster(manifest)
    secret = cluster["gcsFaultToleranceOptions"]["redisPassword"]
    added = {"dashboard-host": "0.0.0.0", "redis-password": "$REDIS_PASSWORD"}
    if cluster["enableInTreeAutoscaling"]:
        added["no-monitor"] = "true"
    variables = {
        "RAY_external_storage_namespace": "0f1e2d3c-of-the-cluster",
        "RAY_REDIS_ADDRESS": cluster["gcsFaultToleranceOptions"]["redisAddress"],
        "REDIS_PASSWORD": manifest.value(secret["valueFrom"], {}),
        "RAY_USAGE_STATS_EXTRA_TAGS": "kuberay_version=v1.5.1;kuberay_crd=RayService",
        "RAY_ADDRESS": f"127.0.0.1:{GCS_PORT}",
    }
    return _pod(manifest, cluster["headGroupSpec"], added, variables, "headgroup")


def worker_of(manifest: Manifest) -> RayPod:
    (group,) = _cluster(manifest)["workerGroupSpecs"]
    address = f"{HEAD_SERVICE}:{GCS_PORT}"
    variables = {
        "FQ_RAY_IP": HEAD_SERVICE,
        "RAY_IP": HEAD_SERVICE.partition(".")[0],
        "RAY_ADDRESS": address,
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    }
    return _pod(manifest, group, {"address": address}, variables, group["groupName"])


def waiting_of(manifest: Manifest, address: str) -> tuple[list[str], dict[str, str]]:
    """Command and variables of a worker's first container, `wait-gcs-ready`, which waits for the head at an address.

    It has `env` of the worker's container, but not `envFrom`.
    """
    (group,) = _cluster(manifest)["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    script = f"""
        while true; do
            if ray health-check --address {address} > /dev/null 2>&1; then
                echo "GCS is ready."
                break
            fi
            echo "Waiting for GCS to be ready."
            sleep 5
        done
    """
    addresses = {"FQ_RAY_IP": HEAD_SERVICE, "RAY_IP": HEAD_SERVICE.partition(".")[0]}
    own = manifest.variables_of({**container, "envFrom": ()})
    return [*SHELL, script], {**own, **addresses, **_of_token(_cluster(manifest))}


def cleaning_of(manifest: Manifest) -> tuple[list[str], dict[str, str]]:
    """Command and variables of the job that removes the head's state in Redis when its cluster is no more.

    Source: `buildRedisCleanupJob` in ray-operator/controllers/ray/raycluster_controller.go.
    """
    lines = (
        "from ray._private.gcs_utils import cleanup_redis_storage",
        "from urllib.parse import urlparse",
        "import os",
        "import sys",
        "parsed = urlparse('redis://' + os.getenv('RAY_REDIS_ADDRESS', '').split(',')[0])",
        "server = dict(host=parsed.hostname, port=parsed.port, use_ssl=parsed.scheme=='rediss')",
        "password = os.getenv('REDIS_PASSWORD', parsed.password or '')",
        "namespace = os.getenv('RAY_external_storage_namespace')",
        "sys.exit(0 if cleanup_redis_storage(**server, password=password, storage_namespace=namespace) else 1)",
    )
    return [*SHELL, f'python -c "{"; ".join(lines)}"'], dict(head_of(manifest).variables)


def served_port(manifest: Manifest) -> int:
    """The port of Ray's proxies."""
    config = yaml.safe_load(manifest.find("RayService")["spec"]["serveConfigV2"])
    return int(config["http_options"]["port"])


def serve_config(manifest: Manifest, host: str, port: int) -> dict[str, Any]:
    """The application as the operator deploys it, but with one replica of each, and proxies at an address."""
    config: dict[str, Any] = yaml.safe_load(manifest.find("RayService")["spec"]["serveConfigV2"])
    config["http_options"] |= {"host": host, "port": port}
    (application,) = config["applications"]
    for name in ("scaling", "ingress_scaling"):
        application["args"][name]["min_replicas"] = 1
    return config


def deploy(dashboard: str, config: Mapping[str, Any], patience_s: float) -> None:
    """Deploy the application at a head's dashboard as the operator does, and wait until it runs.

    As long as the head does not answer, or does not know the application, it is told again.
    """
    address = f"{dashboard}/api/serve/applications/"
    deadline = time.monotonic() + patience_s
    status: dict[str, Any] = {"status": "unknown"}
    with httpx.Client(timeout=patience_s, headers=AUTH) as client:
        while status["status"] != "RUNNING":
            assert time.monotonic() < deadline, status
            assert status["status"] != "DEPLOY_FAILED", status["message"]
            with suppress(httpx.TransportError):
                status = _status(client, address) or _tell(client, address, config)
            time.sleep(0.1)


def _status(client: httpx.Client, address: str) -> dict[str, Any] | None:
    found = client.get(address)
    applications: dict[str, Any] = found.json()["applications"] if found.is_success else {}
    return applications.get("vip5")


def _tell(client: httpx.Client, address: str, config: Mapping[str, Any]) -> dict[str, Any]:
    told = client.put(address, json=config)
    assert not told.is_client_error, told.text
    return {"status": "told", "answer": told.text}


def _cluster(manifest: Manifest) -> Mapping[str, Any]:
    found: Mapping[str, Any] = manifest.find("RayService")["spec"]["rayClusterConfig"]
    return found


def _of_token(cluster: Mapping[str, Any]) -> dict[str, str]:
    if cluster.get("authOptions", {}).get("mode") != "token":
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": AUTH_TOKEN}


def _pod(
    manifest: Manifest, group: Mapping[str, Any], added: Mapping[str, str], variables: Mapping[str, str], name: str
) -> RayPod:
    (container,) = group["template"]["spec"]["containers"]
    assert "command" not in container, "KubeRay puts its own after it"
    limits = container["resources"]["limits"]
    missing = {
        **added,
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
        "num-cpus": str(limits.get("cpu", container["resources"]["requests"]["cpu"])),
        "memory": str(_bytes(limits["memory"])),
    }
    parameters = {**missing, **group["rayStartParams"], "block": "true"}
    pod = RayPod(container, parameters, {}, is_head=name == "headgroup")
    of_kuberay = {
        "RAY_CLUSTER_NAME": "vip5",
        "RAY_CLUSTER_NAMESPACE": "default",
        "RAY_CLOUD_INSTANCE_ID": f"vip5-{name}",
        "RAY_NODE_TYPE_NAME": name,
        "KUBERAY_GEN_RAY_START_CMD": pod.command({})[-1].partition("; ")[2],
        "RAY_PORT": GCS_PORT,
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        **_of_token(_cluster(manifest)),
    }
    own = manifest.variables_of(container)
    return RayPod(container, parameters, {**of_kuberay, **variables, **own}, pod.is_head)


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]
