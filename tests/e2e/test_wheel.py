"""The wheel is whole: built from the sources and installed where no checkout is seen, it does what the README shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import ROOT
from tests.e2e.processes import PATIENCE_S
from tests.unit.cli.command_tree import COMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("service", "model", "feature_cache", "quiet_libraries", "vip5")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOW_HELP = """
import contextlib, io, json, sys
from service.cli import main
shown = {}
for words in json.load(sys.stdin):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    shown[" ".join(words)] = text.getvalue()
json.dump(shown, sys.stdout)
"""


def run(*command: str | Path, cwd: Path, given: str | None = None) -> str:
    """What a process prints, without any variable that shows it this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIP5_", "PYTHON"))}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=kept | {"COLUMNS": "300"},
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder far from the checkout."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """Built from a copy, because building leaves files beside the sources; the copy holds more than the packages."""
    source = place / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "bundle-pictures")
    for name in (*PACKAGES, "demo", "tests", "benchmarks", "deploy"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", place / "wheels", source, cwd=place)
    (built,) = (place / "wheels").iterdir()
    return built


@pytest.fixture(scope="module")
def environment(place: Path, wheel: Path) -> Path:
    """The `bin` of an environment with the wheel, which sees the libraries of this one but no editable install."""
    root = place / "environment"
    venv.create(root, symlinks=True)
    python = root / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel, cwd=place)
    (packages,) = root.glob("lib/python*/site-packages")
    # A folder that a .pth file names joins the path, but its own .pth files, by which a checkout is seen, are not read.
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in sorted(libraries)))
    return root / "bin"


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}

    wanted = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in {".py", ".typed"}]
    wanted += (ROOT / "service" / "page").iterdir()
    assert held == {path.relative_to(ROOT).as_posix() for path in wanted}
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_the_metadata_is_that_of_the_project(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = message_from_string(archive.read(f"{folder}/METADATA").decode())
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "vip5 = service.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()

    for field, value in {
        "Name": PROJECT["name"],
        "Version": PROJECT["version"],
        "Summary": PROJECT["description"],
        "License-Expression": PROJECT["license"],
        "Requires-Python": PROJECT["requires-python"],
        "Author": PROJECT["authors"][0]["name"],
        "Maintainer": PROJECT["maintainers"][0]["name"],
        "Keywords": ",".join(PROJECT["keywords"]),
    }.items():
        assert metadata[field] == value, field
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert metadata.get_all("Project-URL") == [f"{name}, {url}" for name, url in PROJECT["urls"].items()]
    assert metadata.get_all("Provides-Extra") == [*PROJECT["optional-dependencies"]]
    assert str(metadata.get_payload()).strip() == README.strip()


def test_what_is_imported_is_the_wheels(environment: Path, place: Path) -> None:
    show = (
        f"import {', '.join(PACKAGES)}; print(*({', '.join(f'{package}.__file__' for package in PACKAGES)}), sep='\\n')"
    )

    found = run(environment / "python", "-c", show, cwd=place).splitlines()

    assert [Path(file).is_relative_to(environment.parent) for file in found] == [True] * len(PACKAGES)


def test_the_command_tells_its_version_and_all_its_help(environment: Path, place: Path) -> None:
    assert run(environment / "vip5", "--version", cwd=place) == f"vip5-serve {PROJECT['version']}\n"
    assert "Usage: vip5" in run(environment / "vip5", "--help", cwd=place)
    words = json.dumps([command.words for command in COMMANDS])
    shown = json.loads(run(environment / "python", "-c", SHOW_HELP, cwd=place, given=words))
    assert shown.keys() == {*map(str, COMMANDS)}
    assert all(f"Example: vip5 {name}" in text for name, text in shown.items())


def test_it_answers_what_the_readme_asks_with_the_readmes_command(environment: Path, place: Path) -> None:
    (place / "demo").mkdir()
    (place / "demo" / "bundle").symlink_to(ROOT / "demo" / "bundle")
    requests = (ROOT / "demo" / "bundle-requests.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    (place / "demo" / "bundle-requests.jsonl").write_text("".join(f"{line}\n" for line in requests), encoding="utf-8")
    command = re.search(r"^(?:\.venv/bin/)?vip5 (predict .*)$", README, re.MULTILINE)
    assert command is not None
    words = command[1].split()

    run(environment / "vip5", *words, cwd=place)

    answers = [json.loads(line) for line in (place / words[words.index("--out") + 1]).read_text().splitlines()]
    assert len(answers) == len(requests)
    assert all(answer.get("items") or answer.get("text") for answer in answers)
