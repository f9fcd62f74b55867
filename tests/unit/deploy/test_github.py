"""GitHub's files follow its schemas, and CI runs what developers run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / ".github"
FORMS = sorted(path for path in (FOLDER / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [FOLDER / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_files_follow_their_schemas(schema: str, files: list[Path]) -> None:
    """The schemas are part of check-jsonschema, so that nothing is downloaded."""
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_ci_installs_nothing_beside_what_its_script_installs() -> None:
    (job,) = _workflow("ci")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_oldest_supported_python_is_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in WORKFLOWS:
        for job in _workflow(path.stem)["jobs"].values():
            (version,) = [step["with"]["python-version"] for step in job["steps"] if "python" in step.get("uses", "")]
            assert f'requires-python = ">={version}"' in project


def test_workflows_may_only_read() -> None:
    assert [_workflow(path.stem)["permissions"] for path in WORKFLOWS] == [{"contents": "read"}] * len(WORKFLOWS)


def test_every_night_the_pinned_versions_are_audited_and_listed() -> None:
    workflow = _workflow("audit")
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make audit", "make sbom"]
    assert workflow[True]["schedule"], "YAML reads `on` as true"


def _workflow(name: str) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load((FOLDER / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    return workflow
