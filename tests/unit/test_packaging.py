"""pyproject.toml tells the truth: named extras exist, what is imported is required, the metadata is complete."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.cli.failures import EXTRAS as EXTRA_OF_MODULE
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = PROJECT["project"]
EXTRAS: dict[str, list[str]] = METADATA["optional-dependencies"]
PACKAGES = ("service", "model", "feature_cache", "quiet_libraries", "vip5")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TEXTS = [*MODULES, ROOT / "README.md", ROOT / "demo" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "opentelemetry": "opentelemetry-sdk",
    "pythonjsonlogger": "python-json-logger",
    "sklearn": "scikit-learn",
}
"""Of modules that are not called as their distributions are."""
BROUGHT_ALONG = {
    "pandas": "RecTools",
    "pydantic_core": "pydantic",
    "pytorch_lightning": "RecTools",
    "torchvision": "open-clip-torch",
}
"""Modules that belong to a dependency of another one, whose own types they are."""


def distributions(requirements: list[str]) -> set[str]:
    """Names of what is required, extras of this distribution included."""
    found = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == METADATA["name"]:
            found |= distributions([each for extra in requirement.extras for each in EXTRAS[extra]])
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def imported(path: Path) -> Iterator[str]:
    """Distributions whose modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            module = name.partition(".")[0]
            if module not in {*sys.stdlib_module_names, *PACKAGES}:
                yield canonicalize_name(BROUGHT_ALONG.get(module) or DISTRIBUTIONS.get(module) or module)


def test_everything_that_is_imported_is_required() -> None:
    required = distributions(METADATA["dependencies"]).union(*map(distributions, EXTRAS.values()))

    assert {name for path in MODULES for name in imported(path)} <= required


def test_everything_that_is_required_to_run_is_imported() -> None:
    used = {name for path in MODULES for name in imported(path)}

    assert distributions(METADATA["dependencies"]) <= used | {"uvicorn", "redis", "h11"}


@pytest.mark.parametrize(("name", "extra"), EXTRA_OF_MODULE.items())
def test_what_a_command_says_to_install_is_in_the_extra(name: str, extra: str) -> None:
    distribution = BROUGHT_ALONG.get(name) or DISTRIBUTIONS.get(name, name)
    assert canonicalize_name(distribution) in distributions(EXTRAS[extra])


def test_every_extra_that_is_named_exists() -> None:
    forms = (
        r"vip5-serve\[([a-z,-]+)\]",
        r"\bextra `([a-z-]+)`",
        r"\bextra ([a-z-]+):",
        r'ExtraError\("[^"]+", "([a-z-]+)"',
    )
    named = {
        extra: str(path)
        for path in TEXTS
        for form in forms
        for found in re.findall(form, path.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }

    assert {"train", "encode", "otel", "ray", "open-clip", "onnx-gpu"} <= named.keys()
    assert {extra: path for extra, path in named.items() if extra not in EXTRAS} == {}


def test_the_metadata_is_complete() -> None:
    assert METADATA["license"] == "Apache-2.0"
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= METADATA["urls"].keys()
    assert all(url.startswith("https://github.com/vip5-serve/vip5-serve") for url in METADATA["urls"].values())
    assert METADATA["authors"] == METADATA["maintainers"] == [{"name": "vip5-serve developers"}]
    assert METADATA["keywords"]


def test_the_classifiers_say_what_the_rest_says() -> None:
    classifiers = METADATA["classifiers"]
    versions = [each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)]

    assert len(classifiers) == len(set(classifiers))
    assert not [each for each in classifiers if each.startswith("License ::")], "the SPDX expression says it"
    assert METADATA["requires-python"] == f">={versions[0]}"
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES), "Typing :: Typed"
