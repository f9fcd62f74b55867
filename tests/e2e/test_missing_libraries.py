"""Where an optional library is missing, every command does its work or ends with one line that names the extra."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cli.failures import EXTRAS, FAILURE
from tests.clips import draw_folder, tiny_clip
from tests.conftest import ROOT
from tests.e2e.processes import environment
from tests.tiny import tiny_bundle, tiny_checkpoint, tiny_tokenizer
from tests.unit.bundle.test_import_t5 import saved, t5
from tests.unit.cli.command_tree import COMMANDS
from tests.unit.evaluation.datasets import toy_review, toys_dataset
from tests.unit.training.tiny_data import FROM_SCRATCH, write_run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "open_clip": "open_clip_torch",
    "opentelemetry": "opentelemetry-sdk",
    "pytorch_lightning": "RecTools",  # brings these, and torchvision comes with open_clip
    "pandas": "RecTools",
    "rectools": "RecTools",
    "sklearn": "scikit-learn",
    "torchvision": "open_clip_torch",
}
SINGLES = [module for module, extra in EXTRAS.items() if extra in {"train", "encode"}]
PATIENCE_S = 600
SWEEP = 'base = "run.toml"\nout = "sweep"\nnum_users = 3\n[[variants]]\nname = "one"\n'


def named_in(extra: str) -> set[str]:
    """The distributions that an extra of pyproject.toml names."""
    return {re.split(r"[\[<>=]", each)[0].replace("-", "_") for each in PROJECT["optional-dependencies"][extra]}


def distribution_of(module: str) -> str:
    return DISTRIBUTIONS.get(module, module).replace("-", "_")


def test_every_optional_library_is_named_by_an_extra_that_exists() -> None:
    for module, extra in EXTRAS.items():
        assert distribution_of(module) in named_in(extra), (module, extra)


def test_every_library_that_is_imported_is_required_or_optional() -> None:
    always = {re.split(r"[\[<>=]", each)[0].replace("-", "_") for each in PROJECT["dependencies"]}
    always |= {"pythonjsonlogger", "starlette", "theine_core", "hiredis", "pydantic_core"}
    always |= {"service", "model", "feature_cache", "quiet_libraries", "vip5"}
    unknown = set()
    for package in ("service", "model", "feature_cache", "vip5"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                tops = {name.partition(".")[0] for name in names}
                unknown |= tops - always - EXTRAS.keys() - sys.stdlib_module_names
    assert unknown == set()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("libraries")
    tiny_bundle(root)
    toys_dataset(reviews=[toy_review(user) for user in range(4)]).write(root / "toys")
    tiny_checkpoint().save(root)
    saved(root / "t5", t5())
    tiny_clip(root / "clip")
    draw_folder(root / "pictures", 2)
    write_run(root, FROM_SCRATCH.replace("steps = 6", "steps = 1").replace('out = "bundle"', 'out = "trained"'))
    tiny_tokenizer().save(str(root / "tokenizer.json"))
    (root / "sweep.toml").write_text(SWEEP)
    (root / "items.jsonl").write_text('{"item_id": "a", "index": "1"}\n{"item_id": "b", "index": "2"}\n')
    (root / "new.jsonl").write_text('{"item_id": "a", "title": "a new one"}\n')
    (root / "requests.jsonl").write_text('{"task": "sequential", "domain": "toys", "history": ["item-1"]}\n')
    (root / "lines.txt").write_text("1 1 2 3\n2 3 2 1\n")
    (root / "vip5").mkdir()
    (root / "vip5" / "sequential_data.txt").write_text("1 1 2 3\n2 3 2 1\n")
    (root / "reviews.jsonl").write_text('{"reviewerID": "u", "asin": "a", "unixReviewTime": 1, "overall": 5}\n')
    (root / "npy").mkdir()
    np.save(root / "npy" / "a.npy", np.ones(8, np.float32))
    return root


def commands_in(place: Path) -> dict[str, list[str]]:
    """All commands, with what they need to succeed, in an order in which each finds what it reads."""
    bundle, redis = f"--bundle {place}/bundle", "--redis-url redis://127.0.0.1:1 --domain toys"
    imported = f"--checkpoint {place}/tiny.pth --config {place}/tiny.json --catalog {place}/items.jsonl --domain more"
    options = {
        "keys new": "--id shop",
        "keys new-admin": "--id ops",
        "serve": f"{bundle} --port 0",
        "predict": f"{bundle} --requests {place}/requests.jsonl --out {place}/answers.jsonl",
        "bench": f"{bundle} --rows 1 --tokens 64 --beams 10 --num-beams 10 --num-requests 1 --repeats 1",
        "import vip5": f"{imported} --out {place}/bundle --replace",
        "import t5": f"--model {place}/t5 --out {place}/t5-bundle --replace",
        "bundle verify": bundle,
        "bundle new-key": f"--out {place}/key.pem",
        "bundle sign": f"{bundle} --key {place}/key.pem",
        "bundle show": bundle,
        "bundle audit": f"{bundle} --domain toys --data {place}/toys",
        "bundle push": f"{bundle} {place}/store",
        "bundle pull": f"{place}/store --to {place}/pulled",
        "bundle index": f"{bundle} --index-cache {place}/indexes",
        "bundle export-onnx": f"{bundle} --out {place}/exported --replace",
        "features encode": f"--model {place}/clip --encoder tiny --images {place}/pictures --workers 0 "
        f"--out {place}/f.safetensors",
        "features import": f"--features {place}/npy --catalog {place}/items.jsonl --out {place}/g.safetensors",
        "features export-onnx": f"--model {place}/clip --encoder tiny --out {place}/tiny.onnx",
        "features load": f"{bundle} {redis}",
        "features verify": f"{bundle} {redis}",
        "features put": f"{bundle} {redis} --item-id a --features {place}/npy/a.npy",
        "features versions": f"{bundle} {redis}",
        "features drop": f"{bundle} {redis} --version x",
        "data prepare lines": f"--sequences {place}/lines.txt --out {place}/prepared --replace",
        "data prepare vip5": f"--folder {place}/vip5 --out {place}/prepared --replace",
        "data prepare amazon-raw": f"--reviews {place}/reviews.jsonl --core 1 --out {place}/prepared --replace",
        "data show": f"--data {place}/toys",
        "data index": f"--data {place}/toys --method collaborative --out {place}/indexed --replace",
        "data additions": f"--items {place}/new.jsonl --features {place}/npy --out {place}/new.json",
        "data tokenizer": f"--data {place}/toys --out {place}/words.json",
        "train": f"--config {place}/run.toml --num-threads 1 --replace --restart",
        "sweep": f"--config {place}/sweep.toml --num-threads 1 --replace --restart",
        "evaluate": f"{bundle} --domain toys --data {place}/toys --num-users 2 --num-threads 1 --baselines popularity "
        f"--out {place}/r.json",
        "compare": f"{place}/r.json --plot {place}/plot.png",
    }
    return {words: rest.split() for words, rest in options.items()}


def run_all(commands: Mapping[str, list[str]], missing: list[str] | None = None, **variables: str) -> dict[str, Any]:
    asked = json.dumps({"commands": commands, "libraries": list(EXTRAS), "singles": SINGLES, "missing": missing})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.e2e.without_libraries"],
        env=environment({"OMP_NUM_THREADS": "1", **variables}),
        input=asked,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def line_of(case: Mapping[str, Any]) -> str:
    """The one line of a failure."""
    assert case["status"] == FAILURE, case
    (line,) = case["lines"]
    assert line.startswith("error: "), line
    return str(line)


def test_every_command_without_all_libraries_and_without_each_that_it_imports(place: Path) -> None:
    commands = commands_in(place)
    assert {str(command) for command in COMMANDS if not str(command).startswith("data prepare")} - {
        "import p5"  # it reads as import vip5 does
    } <= commands.keys()
    found = run_all({words: rest for words, rest in commands.items() if words != "serve"})
    for words, outcomes in found.items():
        if "whole" not in outcomes:
            assert outcomes["all"]["status"] == (FAILURE if "--redis-url" in commands[words] else 0), (words, outcomes)
            continue
        assert outcomes["whole"]["status"] == 0, (words, outcomes["whole"])
        for missing, case in outcomes.items():
            if case["status"] != 0:  # else the command does not need the library
                (extra,) = re.findall(r"pip install 'vip5-serve\[([\w-]+)\]'", line_of(case))
                assert missing == "all" or distribution_of(missing) in named_in(extra), (words, missing, case)
    assert {words for words, outcomes in found.items() if "whole" in outcomes} == {
        *("train", "sweep", "evaluate", "compare", "data index", "features encode", "features export-onnx"),
        *("bundle new-key", "bundle sign"),
    }


def test_what_is_asked_for_by_an_option_names_its_extra(place: Path) -> None:
    commands = commands_in(place)
    encode = commands["features encode"]
    (place / "weights").mkdir(exist_ok=True)
    (place / "weights" / "open_clip_config.json").write_text("{}")
    of_open_clip = [str(place / "weights") if each == str(place / "clip") else each for each in encode]
    for words, rest, missing, extra in (
        ("serve", commands["serve"], "opentelemetry", "otel"),
        ("features encode", [*encode, "--ray"], "ray", "ray"),
        ("features encode", of_open_clip, "open_clip", "open-clip"),
        ("evaluate", [*commands["evaluate"][:-2], "--baselines", "sasrec"], "rectools", "sasrec"),
    ):
        found = run_all({words: rest}, [missing], VIP5_TRACES_ENDPOINT="http://127.0.0.1:1")[words]
        assert re.search(rf"vip5-serve\[[\w,-]*{extra}\]", line_of(found)), found
