"""The GPU benchmark runs to its end, on whatever is here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.gpu import LIMITS_S, _run_apart
from tests.conftest import ROOT

STAGES = [stage for stage in LIMITS_S if stage != "tests"]  # which would run this one


def test_every_stage_of_the_benchmark_gives_figures() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--stages", ",".join(STAGES)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    failed = {name: section for name, section in figures.items() if "failed" in str(section)}
    assert not failed, done.stderr
    assert done.returncode == 0
    assert figures["mixing"]["share_other_answer"] == 0
    assert set(STAGES) < set(figures)


def test_a_stage_that_fails_is_named_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS_S, "latency", 0.01)
    assert "ended at its limit" in str(_run_apart("latency", "cpu", is_quick=True))
    assert "failed" in str(_run_apart("check", "no-such-device", is_quick=True))
