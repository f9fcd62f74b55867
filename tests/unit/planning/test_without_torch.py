"""A process that only plans imports no torch, which would cost it seconds and hundreds of megabytes."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import model.planning
import model.prompts

ENGINE_SIDE = {"model.planning.runtime"}
"""Loads the engine."""

FOLDERS = (model.planning, model.prompts)
PLANNING_SIDE = [
    *(f"{folder.__name__}.{each.name}" for folder in FOLDERS for each in pkgutil.iter_modules(folder.__path__)),
    "feature_cache.embedded",
    "feature_cache.patched",
    "feature_cache.tiered",
    "model.bundle.catalog",
    "model.bundle.changes",
    "model.bundle.columns",
    "model.bundle.documents",
    "model.bundle.domain_files",
    "model.bundle.domain_tables",
    "model.bundle.features",
    "model.bundle.identifiers",
    "model.bundle.index.cache",
    "model.bundle.index.index",
    "model.bundle.users",
    "model.bundle.verified_files",
    "model.decoding.eligibility",
    "model.decoding.trie",
    "model.engine.plans",
    "model.engine.protocol",
    "service.schemas.explanation",
    "service.schemas.ranking",
]
ENDED_BY_TORCH = """
import importlib, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise AssertionError(f"{module} imports torch")

sys.meta_path.insert(0, Refusing())
for module in sys.argv[1:]:
    importlib.import_module(module)
assert "torch" not in sys.modules
"""


def imported(*modules: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ENDED_BY_TORCH, *modules]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_planning_side_imports_no_torch() -> None:
    done = imported(*(module for module in PLANNING_SIDE if module not in ENGINE_SIDE))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["model.planning.runtime", "model.decoding.trie_arena"])
def test_the_engine_side_is_noticed(module: str) -> None:
    done = imported(module)
    assert done.returncode != 0
    assert f"{module} imports torch" in done.stderr
