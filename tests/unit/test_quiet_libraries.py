"""No library that this project uses sends or keeps usage data, also outside of builds and tests."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quiet_libraries import VARIABLES
from tests.conftest import ROOT
from tests.tiny import tiny_bundle

SOURCES = ("service", "model", "feature_cache", "quiet_libraries", "demo", "deploy", "benchmarks", "tests")
IN_BUILDS = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "TRAVIS", "JENKINS_URL", "BUILD_ID", "ORT_RUNNING_UNIT_TESTS")
"""Variables with which ONNX Runtime keeps quiet by itself."""

ENGINE = """
import sys
from pathlib import Path
from model.planning.runtime import load_runtime
load_runtime(Path(sys.argv[1]), engine="onnx")
"""
TOWER = """
import sys
import numpy as np
from onnx import TensorProto, helper
import feature_cache.encoding.onnx_tower as tower
shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", shape[:1], shape[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = tower.onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
assert session.run(None, {"x": np.ones(1, np.float32)})[0] == 1
"""


def quietless(home: Path) -> dict[str, str]:
    """An environment as in production, whose home and temporary folders are empty."""
    kept = {name: value for name, value in os.environ.items() if name not in {*VARIABLES, *IN_BUILDS}}
    folders = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    others = {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(home.with_name("torch")),  # torch makes this folder when it is imported
    }
    return kept | dict.fromkeys(folders, str(home)) | others


def run(script: str, *arguments: str, home: Path) -> str:
    """Run a script; what it did on the network, as strace shows it, or nothing where there is no strace."""
    strace = shutil.which("strace")
    trace = home.with_name("trace")
    watched = [strace, "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(trace)] if strace else []
    subprocess.run([*watched, sys.executable, "-c", script, *arguments], env=quietless(home), check=True, timeout=120)
    return trace.read_text(encoding="utf-8") if strace else ""


@pytest.mark.parametrize("script", [ENGINE, TOWER], ids=["engine", "image tower"])
def test_onnx_runtime_keeps_no_device_id_and_looks_nobody_up(script: str, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundles", num_items=20)
    home = tmp_path / "home"
    home.mkdir()

    network = run(script, str(bundle), home=home)

    assert list(home.rglob("*")) == []
    # Libraries make a socket to see whether there is IPv6.
    assert not [line for line in network.splitlines() if "AF_INET" in line and "socket(" not in line]


@pytest.mark.parametrize("package", ["model", "feature_cache", "service.cli", "demo"])
def test_every_package_turns_telemetry_off_when_it_is_imported(package: str, tmp_path: Path) -> None:
    script = f"import os, {package}; assert {VARIABLES!r}.items() <= os.environ.items()"
    run(script, home=tmp_path)


def test_the_variables_are_set_whatever_they_were() -> None:
    script = f"import os, model; assert {VARIABLES!r}.items() <= os.environ.items()"
    others = os.environ | dict.fromkeys(VARIABLES, "no") | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=others, check=True, timeout=60)


def imports_onnx_runtime(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        is_call = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "importorskip",
            "__import__",
        }
        if is_call:
            names += [str(each.value) for each in node.args if isinstance(each, ast.Constant)]  # type: ignore[attr-defined]
        if any(name.partition(".")[0] == "onnxruntime" for name in names):
            return True
    return False


def test_one_module_imports_onnx_runtime() -> None:
    files = (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    found = [str(path.relative_to(ROOT)) for path in files if imports_onnx_runtime(path)]
    assert found == ["quiet_libraries/onnx_runtime.py"]
