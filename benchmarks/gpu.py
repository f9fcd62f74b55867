"""How fast are captured searches on a GPU, and are they correct?

Question  T5-small's size, 11,924 items, 20 beams, 10 items per request: do captured searches find what a CPU finds;
          latency of one request and throughput by batch size, of the default precision and of bfloat16; what lower
          precisions change; the cost of 32 domains in one batch; memory use; distance from transformers and from the
          device's limits; kernel launches and synchronisations per request.
Method    Random weights and requests in the shape of real ones (benchmarks/gpu_workload.py). Ours is timed from plans
          to rankings, including packing inputs, copies in both directions and reading results. Stages run in the order
          of their importance, each in a process of its own with a time limit, so that a stage that fails, or takes
          too long, costs the others nothing; shapes are captured before they are timed. A first run on a GPU takes
          about ten minutes. All that a stage has printed is seen, also of one that was ended.
Output    One line per figure, as it is found; with $OUT set, a profiler's trace in it; the last line is JSON.

    python3 -m benchmarks.gpu [--device cuda] [--quick] [--stages check,tests,...]

Needs torch and what `model/` needs; the stage `tests` pytest and hypothesis, the stage `transformers` transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMITS_S = {  # in the order in which stages run
    "check": 60,
    "tests": 180,
    "latency": 60,
    "throughput": 90,
    "latency_bfloat16": 60,
    "throughput_bfloat16": 90,
    "precision": 90,
    "domains": 60,
    "mixing": 60,
    "memory": 60,
    "transformers": 90,
    "roofline": 60,
    "profile": 60,
}
_TESTS = ["-c", os.devnull, "--rootdir", ".", "--import-mode=importlib", "-p", "no:cacheprovider", "-x", "tests/gpu"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure captured searches on a device, in stages.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few requests, as a smoke test")
    parser.add_argument("--stages", default="", help="comma-separated stages to run (default: all)")
    parser.add_argument("--here", action="store_true", help="run one stage in this process, which has no time limit")
    options = parser.parse_args()
    stages = [stage for stage in options.stages.split(",") if stage] or list(LIMITS_S)
    if unknown := set(stages) - set(LIMITS_S):
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; choose of {', '.join(LIMITS_S)}")
    if options.here:
        return _run_here(stages[0], options.device, is_quick=options.quick)
    found: dict[str, object] = {"benchmark": "gpu", "quick": options.quick}
    for stage in stages:
        found[stage] = _run_apart(stage, options.device, is_quick=options.quick)
    print(json.dumps(found), flush=True)
    return 1 if any("failed" in str(figures) for figures in found.values()) else 0


def _run_apart(stage: str, device: str, *, is_quick: bool) -> object:
    """The figures of a stage in a process of its own, which is ended at its limit."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", *_TESTS]
    if stage != "tests":
        command = [sys.executable, "-m", "benchmarks.gpu", "--here", "--stages", stage, "--device", device]
        command += ["--quick"] if is_quick else []
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(  # noqa: S603  # the command above
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = ""
    timer = _ended_at(process, LIMITS_S[stage])
    try:
        for line in process.stdout:
            last = line.strip() or last
            if not line.startswith("{"):
                print(f"{stage:20}{line.rstrip()}", flush=True)
    finally:
        timer.cancel()
        process.stdout.close()
    code = process.wait()
    print(f"{stage:20}({time.perf_counter() - started:.1f} s)", flush=True)
    if code < 0:
        return {"failed": f"ended at its limit of {LIMITS_S[stage]} s or by signal {-code}, after: {last}"}
    if stage == "tests":
        return {"failed": last} if code else {"result": last}
    return json.loads(last) if last.startswith("{") else {"failed": f"exit {code}, after: {last}"}


def _ended_at(process: subprocess.Popen[str], limit_s: float) -> threading.Timer:
    timer = threading.Timer(limit_s, process.kill)
    timer.daemon = True
    timer.start()
    return timer


def _run_here(stage: str, device: str, *, is_quick: bool) -> int:
    try:
        figures = _figures(stage, device, is_quick=is_quick)
    except Exception as error:  # noqa: BLE001  # the stages that follow run, and the report names this one's error
        traceback.print_exc()
        figures = {"failed": f"{type(error).__name__}: {error}"}
    for key, value in figures.items():
        print(f"{key:38}{value}", flush=True)
    print(json.dumps(figures), flush=True)
    return 1 if "failed" in figures else 0


def _figures(stage: str, device: str, *, is_quick: bool) -> dict[str, object]:
    # Imported here, so that an import that fails costs one stage.
    import torch  # noqa: PLC0415

    from benchmarks import gpu_sections as sections  # noqa: PLC0415
    from benchmarks.gpu_bench import Bench  # noqa: PLC0415
    from benchmarks.gpu_workload import FULL, QUICK  # noqa: PLC0415

    measures: dict[str, Callable[[Bench], dict[str, object]]] = {
        "check": sections.check,
        "latency": partial(sections.measure_latency, precision=sections.DEFAULT),
        "throughput": partial(sections.measure_throughput, precision=sections.DEFAULT),
        "latency_bfloat16": partial(sections.measure_latency, precision="bfloat16"),
        "throughput_bfloat16": partial(sections.measure_throughput, precision="bfloat16"),
        "precision": sections.compare_precisions,
        "domains": sections.measure_domains,
        "mixing": sections.compare_alone_and_mixed,
        "memory": sections.measure_memory,
        "transformers": sections.compare_with_transformers,
        "roofline": sections.compare_with_limits,
        "profile": sections.profile_engine,
    }
    return measures[stage](Bench.of(QUICK if is_quick else FULL, torch.device(device)))


if __name__ == "__main__":
    sys.exit(main())
