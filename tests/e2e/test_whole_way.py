"""Every command of docs/whole-way.md, one after another: from pictures to a domain that beats popularity."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from demo.export import export
from model.evaluation.report import Report
from tests.conftest import ROOT
from tests.e2e.processes import environment, serving
from tests.redis_servers import redis_server

PAGE = (ROOT / "docs" / "whole-way.md").read_text(encoding="utf-8")
BLOCKS: list[str] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
WORK, (SERVE, ASK, LOAD, SERVE_FROM_REDIS) = BLOCKS[:6], BLOCKS[6:]
PATIENCE_S = 900
URL, REDIS = "http://127.0.0.1:8000", "redis://localhost"


def paste(script: str, place: Path) -> str:
    """What the commands print; `.venv/bin` has what this environment has."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place,
        env=environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks as the sources do to the commands of the page."""
    root = tmp_path_factory.mktemp("whole-way")
    commands = root / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, code in (("python", ""), ("vip5", "-c 'from service.cli import main; main()'")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n')
        (commands / name).chmod(0o755)
    (root / "demo" / "runs").mkdir(parents=True)
    (root / "demo" / "runs" / "first.toml").write_bytes((ROOT / "demo" / "runs" / "first.toml").read_bytes())
    for name in ("bundle-clip", "bundle-pictures"):
        (root / "demo" / name).symlink_to(ROOT / "demo" / name)
    return root


def test_the_page_can_be_pasted_from_the_pictures_to_redis(place: Path) -> None:
    told = paste("\n".join(WORK), place)
    assert "warning: the identifiers that a model generates are the shop's own ids" in told
    assert "216 of 216 items have an embedding" in told
    report = Report.read(place / "data" / "result.json")
    found = {result.name: result.metrics["hr@5"] for result in report.results}
    assert found["A-3"].value - found["A-3"].margin > found["popularity"].value + found["popularity"].margin
    shown = dict(re.findall(r"^\| sequential \| (A-3|popularity) \|(?:[^|]*\|){4} ([\d.]+)", PAGE, re.MULTILINE))
    assert abs(float(shown["popularity"]) - found["popularity"].value) < 1e-3
    assert abs(float(shown["A-3"]) - found["A-3"].value) < 0.03, "processors round differently"

    bundle = place / "bundles" / "mine"
    assert SERVE.split() == [".venv/bin/vip5", "serve", "--bundle", "bundles/mine"]
    with serving(bundle) as server:
        answer = json.loads(paste(ASK.replace(URL, server.url), place))
    assert len(answer["items"]) == 3
    assert answer["degraded"] == []

    with redis_server(place / "data") as redis:
        told = paste(LOAD.replace(REDIS, redis.url), place)
        assert "ok: version" in told
        assert f"VIP5_REDIS_URL={REDIS} VIP5_FEATURE_STORE=redis {SERVE}" in SERVE_FROM_REDIS
        with serving(bundle, {"VIP5_REDIS_URL": redis.url, "VIP5_FEATURE_STORE": "redis"}) as server:
            again = json.loads(paste(ASK.replace(URL, server.url), place))
            metrics = httpx.get(f"{server.url}/metrics").text
    assert [item["item_id"] for item in again["items"]] == [item["item_id"] for item in answer["items"]]
    assert "vip5_redis_up 1.0" in metrics


def test_the_page_shows_what_the_files_look_like(tmp_path: Path) -> None:
    purchases, items = export(tmp_path, 1)
    (line,) = re.findall(r"^```\n(.*)\n```", PAGE, re.MULTILINE)
    (item,) = re.findall(r"^```json\n(.*)\n```", PAGE, re.MULTILINE)
    assert purchases.read_text().startswith(line)
    assert json.loads(item) in [json.loads(each) for each in items.read_text().splitlines()]
