"""The GPU benchmark runs to its end, on whatever is here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT


def test_every_section_of_the_benchmark_gives_figures() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    failed = {name: section for name, section in figures.items() if "failed" in str(section)}
    assert not failed, done.stderr
    assert done.returncode == 0
    assert figures["mixing"]["share_other_answer"] == 0
    assert {"latency", "throughput", "profile", "roofline", "precision", "domains", "memory"} < set(figures)
