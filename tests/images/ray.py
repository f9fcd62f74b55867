"""The image for Ray's nodes: one node started as KubeRay's head, the application deployed to it, and a request."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from tests.images.running import PATIENCE_S, running
from tests.redis_servers import HOST, free_port
from tests.unit.deploy.containers import ROOT
from tests.unit.deploy.kuberay import AUTH_TOKEN, LOGIN_SHELL, RayPod, deploy, head_of, serve_config
from tests.unit.deploy.manifests import overlay

TARGET = "ray"
OF_REDIS = ("redis-password",)
"""Parameters that need the rest of a cluster."""


def try_ray(files: Path, folder: Path) -> dict[str, float]:
    """Seconds until the node is healthy, and until the application runs."""
    manifest = overlay("ray")
    pod = head_of(manifest)
    alone = RayPod(
        pod.container, {k: v for k, v in pod.parameters.items() if k not in OF_REDIS}, pod.variables, is_head=True
    )
    probe_port, dashboard_port, serve_port = free_port(), free_port(), free_port()
    here = {
        "port": free_port(),
        "node-ip-address": HOST,
        "num-cpus": 3,  # for the replica, which is on the workers otherwise
        "dashboard-host": HOST,
        "dashboard-port": dashboard_port,
        "dashboard-agent-listen-port": probe_port,
        "metrics-export-port": free_port(),
        "ray-client-server-port": free_port(),
        "object-store-memory": 80_000_000,
    }
    command = alone.command({name: str(value) for name, value in here.items()}, LOGIN_SHELL)
    asked = pod.container["startupProbe"]["httpGet"]
    variables = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": AUTH_TOKEN}
    with running(files, TARGET, folder, variables, command) as container:
        found = {"ray_node_s": container.wait_ready(f"http://{HOST}:{probe_port}", asked["path"])}
        deploy(f"http://{HOST}:{dashboard_port}", serve_config(manifest, HOST, serve_port), PATIENCE_S)
        found["ray_ready_s"] = time.monotonic() - container.started_at
        body = json.loads((ROOT / "demo/bundle-requests.jsonl").read_text().splitlines()[0])
        answer = httpx.post(f"http://{HOST}:{serve_port}/recommend/{body.pop('task')}", json=body, timeout=PATIENCE_S)
        assert len(answer.json()["items"]) == 10, answer.text
        status = container.execute("cat", "/proc/self/status").stdout
        assert "CapEff:\t0000000000000000" in status
        container.stop()
    return {name: round(seconds, 1) for name, seconds in found.items()}
