"""Pods as processes: commands and variables are those of the manifests, but for addresses and folders."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.processes import ROOT, run_vip5
from tests.redis_servers import HOST, RedisServer, free_port
from tests.unit.deploy.manifests import overlay

REDIS = ("StatefulSet", "redis")
LINKS = {
    "VIP5_SERVICE_HOST": "10.0.0.1",
    "VIP5_SERVICE_PORT": "80",
    "VIP5_SERVICE_PORT_HTTP": "80",
    "VIP5_PORT": "tcp://10.0.0.1:80",
    "VIP5_PORT_80_TCP": "tcp://10.0.0.1:80",
    "VIP5_PORT_80_TCP_PROTO": "tcp",
    "VIP5_PORT_80_TCP_PORT": "80",
    "VIP5_PORT_80_TCP_ADDR": "10.0.0.1",
    "VIP5_ADMIN_SERVICE_HOST": "10.0.0.2",
    "VIP5_ADMIN_SERVICE_PORT": "8001",
    "VIP5_ADMIN_PORT_8001_TCP_ADDR": "10.0.0.2",
    "KUBERNETES_SERVICE_HOST": "10.0.0.3",
}
"""What Kubernetes sets for the Services `vip5` and `vip5-admin` in pods without enableServiceLinks: false."""


def links_of(service: str, address: str, ports: Mapping[str, int]) -> dict[str, str]:
    """What Kubernetes sets for a Service in pods without enableServiceLinks: false; `ports` by their names."""
    name, (first, *_) = service.upper().replace("-", "_"), ports.values()
    links = {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(first),
        f"{name}_PORT": f"tcp://{address}:{first}",
    }
    for port, number in ports.items():
        link = f"{name}_PORT_{number}_TCP"
        links |= {f"{name}_SERVICE_PORT_{port.upper()}": str(number), link: f"tcp://{address}:{number}"}
        links |= {f"{link}_PROTO": "tcp", f"{link}_PORT": str(number), f"{link}_ADDR": address}
    return links


@contextmanager
def redis_pod(
    name: str, folder: Path, primary_port: int | None = None, overlay_name: str = "cpu"
) -> Iterator[RedisServer]:
    """A pod of Redis by its very command, but for addresses and folders."""
    container, variables = overlay(overlay_name).container(*REDIS), overlay(overlay_name).environment(*REDIS)
    folder.mkdir()
    server = RedisServer(folder, free_port(), ("--requirepass", variables["REDISCLI_AUTH"]))
    script, *rest = container["args"]
    script = script.replace("/usr/local/etc/redis/redis.conf", str(ROOT / "deploy/kubernetes/base/redis.conf"))
    script = script.replace('"$PRIMARY.redis-pods" 6379', f"{HOST} {primary_port or server.port}")
    script += f" --port {server.port} --bind {HOST} --dir {shlex.quote(str(folder))}"
    environment = os.environ | variables | {"POD_NAME": name}
    with (
        (folder / f"{server.port}.log").open("ab") as log,
        subprocess.Popen([*container["command"], script, *rest], env=environment, stdout=log, stderr=log) as process,
    ):
        server.process = process
        try:
            server.wait()
            yield server
        finally:
            process.kill()


def keys_of_clients(folder: Path) -> tuple[Path, str]:
    """A file of keys, as the secret `vip5-keys` has one, with one key of a client `shop`, and that key."""
    key, _, line = run_vip5("keys", "new", "--id", "shop").stdout.partition("line: ")
    path = folder / "keys.jsonl"
    path.write_text(line)
    return path, key.removeprefix("key:").strip()
