"""What the containers run, run as processes: their commands and environments are those of the container files."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from tests.e2e.processes import COMMAND, PATIENCE_S, ROOT, Server, environment, run_vip5, serving
from tests.e2e.test_monitoring_rules import promtool
from tests.redis_servers import HOST, RedisServer, free_port, require_redis
from tests.unit.deploy.containers import compose, dockerfile, environment_of, services

PASSWORD = "of-tests"
TOKEN = "of-tests-too-of-tests-too"


CONFINED = """
set -e
mount --make-rprivate /
mount --bind "$0" "$0"
for place in / "$0"; do mount -o remount,ro,bind "$place"; done
mount -t tmpfs tmpfs /tmp
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
"""As docker-compose.yml confines a container: nothing can be written but /tmp, and there is no capability."""


@dataclass(frozen=True)
class Stack:
    """The service and the Redis of docker-compose.yml, on free ports."""

    server: Server
    is_confined: bool


def composed_variables(name: str, redis_port: int) -> dict[str, str]:
    """The variables of a container, with addresses of this machine in place of those of its network."""
    service = compose(REDIS_PASSWORD=PASSWORD, VIP5_ADMIN_TOKEN=TOKEN)["services"][name]
    inside = environment_of("cpu") | {key: str(value) for key, value in service["environment"].items()}
    bundles = {"VIP5_BUNDLES_ROOT": str(ROOT / "demo"), "VIP5_BUNDLE": str(ROOT / "demo/bundle")}
    assert inside["VIP5_BUNDLE"].startswith("/srv/bundles/")
    here = {"VIP5_HOST": HOST, "VIP5_ADMIN_HOST": HOST, "VIP5_REDIS_URL": f"redis://{HOST}:{redis_port}/0"}
    return inside | bundles | here | ({"VIP5_ADMIN_PORT": "0"} if "VIP5_ADMIN_PORT" in inside else {})


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis by the container's very command and file, but for its port, address and folder."""
    require_redis()
    folder = tmp_path_factory.mktemp("redis")
    service = services()["redis"]
    server = RedisServer(folder, free_port(), ("--requirepass", PASSWORD))
    (shell, option, line) = service["command"]
    moved = f"--port {server.port} --bind {HOST} --dir {shlex.quote(str(folder))}"
    line = line.replace("/usr/local/etc/redis/redis.conf", str(ROOT / "deploy/compose/redis.conf")) + f" {moved}"
    with (
        (folder / f"{server.port}.log").open("ab") as log,
        subprocess.Popen(
            [shell, option, line], env=os.environ | {"REDIS_PASSWORD": PASSWORD}, stdout=log, stderr=log
        ) as process,
    ):
        server.process = process
        try:
            server.wait()
            yield server
        finally:
            process.kill()


def confinement() -> tuple[str, ...]:
    """What goes before a command to confine it; empty where no mounts of its own can be made."""
    confined = ("unshare", "--mount", "sh", "-c", CONFINED, str(ROOT))
    command = [*confined, "sh", "-c", f"touch {ROOT}/x /x"]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except OSError:
        return ()
    return confined if tried.stderr.count("Read-only file system") == 2 else ()


@pytest.fixture(scope="module")
def stack(own_redis: RedisServer) -> Iterator[Stack]:
    variables = composed_variables("vip5", own_redis.port) | {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    confined = confinement()
    with serving(ROOT / "demo/bundle", variables, (*confined, *COMMAND)) as server:
        yield Stack(server, is_confined=bool(confined))


def test_the_service_runs_on_a_read_only_file_system_without_a_capability(stack: Stack) -> None:
    if not stack.is_confined:
        pytest.skip("no mounts of its own can be made here: run as root, on Linux")
    status = Path(f"/proc/{stack.server.process.pid}/status").read_text()

    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status


def probe(port: int) -> subprocess.CompletedProcess[str]:
    """The container's health check, on the service's port."""
    (check,) = [each.value for each in dockerfile() if each.name == "HEALTHCHECK"]
    command = json.loads(check.partition("CMD ")[2])
    assert command == services()["vip5"]["healthcheck"]["test"][1:]
    env = environment({"VIP5_PORT": str(port)})
    return subprocess.run(
        [sys.executable, *command[1:]], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_redis_keeps_what_it_is_given_and_refuses_what_does_not_fit(own_redis: RedisServer) -> None:
    with own_redis.client as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory") == {"maxmemory": str(1 << 30)}
        assert client.config_get("hash-max-listpack-value") == {"hash-max-listpack-value": "8192"}
    with redis.Redis(host=HOST, port=own_redis.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_the_entrypoint_is_the_command_that_the_project_installs() -> None:
    (entrypoint,) = [json.loads(each.value) for each in dockerfile() if each.name == "ENTRYPOINT"]
    (command,) = [json.loads(each.value) for each in dockerfile() if each.name == "CMD"]

    assert entrypoint == ["vip5"]
    assert command == ["serve"], "which is how tests run it"
    assert 'vip5 = "service.cli:main"' in (ROOT / "pyproject.toml").read_text()
    assert COMMAND[-1].startswith("from service.cli import main")


def test_the_service_answers_with_the_variables_of_its_container(stack: Stack) -> None:
    first = json.loads((ROOT / "demo/bundle-requests.jsonl").read_text().splitlines()[0])
    assert first.pop("task") == "sequential"

    with httpx.Client(timeout=PATIENCE_S) as client:
        answer = client.post(f"{stack.server.url}/recommend/sequential", json=first)
        assert len(answer.json()["items"]) == 10
        assert client.get(f"{stack.server.url}/metrics").status_code == 404, "it is on the other port"
        assert client.get(f"{stack.server.url}/admin/domains").status_code == 404
        metrics = client.get(f"{stack.server.admin_url}/metrics")
        assert "vip5_redis_up 1.0" in metrics.text
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        told = client.get(f"{stack.server.admin_url}/admin/domains", headers=bearer).json()
        assert told["journal"] == {"kind": "redis", "problems": [], "is_broken": False, "num_unread": 0}


def test_the_health_check_says_whether_requests_are_taken(stack: Stack) -> None:
    url = httpx.URL(stack.server.url)
    assert url.port is not None

    ready = probe(url.port)
    assert ready.returncode == 0, ready.stderr
    nobody = probe(free_port())
    assert nobody.returncode == 1
    assert "refused" in nobody.stderr


def test_the_job_puts_the_embeddings_of_the_bundle_into_redis(own_redis: RedisServer) -> None:
    name = "features-garments"
    command = [part.replace("/srv/bundles", str(ROOT / "demo")) for part in services()[name]["command"]]
    variables = composed_variables(name, own_redis.port)
    passed = {key: value for key, value in variables.items() if key.startswith("VIP5_REDIS")}

    loaded = run_vip5(*command, env=passed)

    assert loaded.returncode == 0, loaded.stderr
    assert f"embeddings of {name.removeprefix('features-')}" in loaded.stdout


def test_the_load_generator_gets_answers(stack: Stack) -> None:
    service = services()["load"]
    mounts = dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])
    places = {inside: str(ROOT / host) for inside, host in mounts.items()}
    replaced = {**places, "http://vip5:8000": stack.server.url, "600": "0.5", "python": sys.executable}
    command = [replaced.get(part, part) for part in [*service["entrypoint"], *service["command"]]]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["statuses"].keys() == {"200"}
    assert found["statuses"]["200"] > 0
    assert 0 < found["median_ms"] <= found["p95_ms"]


def test_the_configuration_of_prometheus_is_valid_where_it_is_mounted(tmp_path: Path) -> None:
    for volume in services()["prometheus"]["volumes"]:
        source, target = volume.split(":")[:2]
        if target.startswith("/etc/prometheus/"):
            (tmp_path / Path(target).name).symlink_to(ROOT / source)

    assert "SUCCESS" in promtool("check", "config", "--lint-fatal", str(tmp_path / "prometheus.yml"))


def test_the_wheel_is_built_of_what_the_build_is_given_and_nothing_else(tmp_path: Path) -> None:
    """The Dockerfile's own sources and command, but for the folder that the wheel goes to."""
    for each in dockerfile():
        if each.name == "COPY" and each.stage == "project":
            *sources, target = each.value.split()
            (tmp_path / target).mkdir(exist_ok=True)
            for source in sources:
                subprocess.run(
                    f"cp -r {source}{'/.' if (ROOT / source).is_dir() else ''} {tmp_path / target}",
                    shell=True,
                    cwd=ROOT,
                    check=True,
                )
    options = "--no-cache-dir --no-deps --no-index --no-build-isolation"
    assert any(f"install {options} --prefix /project ." in each.value for each in dockerfile())

    build = [sys.executable, "-m", "pip", "wheel", *options.split(), "--wheel-dir", str(tmp_path / "wheels"), "."]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("vip5_serve-*.whl")
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True)
    assert "service/observability/probe.py" in listed.stdout
    assert "tests/" not in listed.stdout
