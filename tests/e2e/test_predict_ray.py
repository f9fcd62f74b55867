"""`vip5 predict --ray` gives what `vip5 predict` gives, and either goes on where the other was interrupted."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from model.bundle.manifest import read_manifest
from service.answering.answer_files import format_of
from service.answering.part_files import Counts, PartFiles, folder_of
from service.answering.prediction import run_of
from service.settings.settings import Settings
from tests.e2e.processes import COMMAND, environment, run_vip5
from tests.tiny import tiny_bundle

CLUSTER_PATIENCE_S = 300
NUM_LINES = 130


@pytest.mark.usefixtures("only_cluster")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, of the extra ray, is not installed")
def test_a_cluster_finishes_what_was_interrupted_with_the_same_answers(tmp_path: Path, ray_folder: Path) -> None:
    bundle, requests = tiny_bundle(tmp_path), tmp_path / "in.jsonl"
    bodies: list[Any] = [
        {"task": "sequential", "domain": "toys", "history": [f"item-{1 + n % 9}"], "k": 1 + n % 4}
        for n in range(NUM_LINES)
    ]
    requests.write_text("".join(f"{json.dumps(body)}\n" for body in [*bodies, {"task": "guess"}]))
    options = ("predict", "--bundle", bundle, "--requests", requests, "--num-threads", "1", "--out")
    assert run_vip5(*options, tmp_path / "here.jsonl").returncode == 0
    here = (tmp_path / "here.jsonl").read_text().splitlines()
    out = tmp_path / "cluster.jsonl"
    kept = interrupted(out, bundle, requests, here[:60])

    done = subprocess.run(
        [*COMMAND, *map(str, options), str(out), "--ray", "--workers", "2"],
        env=environment({"RAY_TMPDIR": str(ray_folder), "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        timeout=CLUSTER_PATIENCE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert f"{NUM_LINES} answered, 1 failed, written to " in done.stderr
    lines = out.read_text().splitlines()
    assert lines[:60] == kept
    assert [comparable(line) for line in lines] == [comparable(line) for line in here]
    assert not folder_of(out).exists()


def interrupted(out: Path, bundle: Path, requests: Path, answers: list[str]) -> list[str]:
    """Leave a run behind that has finished some answers."""
    run = run_of([read_manifest(bundle).hash], Settings(bundle=bundle), requests)
    with PartFiles.opened(out, run) as parts:
        parts.add(lambda path: format_of(out).write(answers, path), Counts(len(answers), 0))
    return answers


def comparable(line: str) -> dict[str, Any]:
    """Without rounding in batches of other sizes."""
    answer: dict[str, Any] = json.loads(line)
    return answer | {"items": [item | {"score": round(item["score"], 3)} for item in answer.get("items", [])]}
