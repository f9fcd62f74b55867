"""The commands of docs/operations.md do what the page says, pasted one after another."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from model.bundle.catalog import Catalog
from service.http.api_keys import ApiKeys
from tests.e2e.processes import PATIENCE_S, ROOT, environment, serving
from tests.service.live import bundle_of

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECTIONS = (
    "First request",
    "Ship a new adapter",
    "Replace the files of a bundle",
    "Take an item out of stock",
    "Keys",
    "Drain and restart",
)
TOKEN = "of-tests-of-tests"


def commands_of(section: str) -> str:
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    (block,) = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(block)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with two bundles whose items are called as the demonstration's, and the command `vip5`."""
    catalog = Catalog.from_rows({"item_id": f"toy-{number:04d}", "index": str(number)} for number in range(1, 161))
    for seed, name in enumerate(("spring", "summer"), 1):
        bundle_of(tmp_path / "bundles" / name, seed, catalog=catalog)
    command = tmp_path / "bin" / "vip5"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from service.cli import main; main()' \"$@\"\n")
    command.chmod(0o755)
    return tmp_path


def test_the_page_can_be_pasted_from_the_first_request_to_the_end(workplace: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl not found: install it from the system's packages")
    settings = {
        "VIP5_ADMIN_TOKEN": TOKEN,
        "VIP5_ADMIN_PORT": "0",
        "VIP5_BUNDLES_ROOT": str(workplace / "bundles"),
        "VIP5_ENGINE": "torch",
        "VIP5_JOURNAL": str(workplace / "journal.jsonl"),
    }
    with serving(workplace / "bundles" / "spring", settings) as server:
        before = _roles(server.admin_url)
        script = "\n".join(commands_of(section) for section in SECTIONS)
        for written, real in (("http://127.0.0.1:8000", server.url), ("http://127.0.0.1:8001", server.admin_url)):
            assert written in script
            script = script.replace(written, real)
        env = environment({"VIP5_ADMIN_TOKEN": TOKEN})
        pasted = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=workplace,
            env=env | {"PATH": f"{workplace / 'bin'}:{env['PATH']}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
        after = _roles(server.admin_url)
        assert httpx.get(f"{server.url}/health/ready").status_code == 503, "it drains"

    assert after["stable"] == before["stable"]
    assert after["previous"] != before["stable"], "it was promoted, and rolled back"
    assert '"exact_prefix"' in pasted.stdout
    assert '"catalog_revision":2' in pasted.stdout
    (key,) = re.findall(r"key:  (\S+)", pasted.stdout)
    assert ApiKeys(workplace / "keys.jsonl").check(None, key).id == "shop"


def _roles(admin_url: str) -> dict[str, str]:
    told = httpx.get(
        f"{admin_url}/admin/domains/toys", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_S
    )
    return {role: each["version"] for each in told.json()["versions"] for role in each["roles"]}
