"""Counts kernel launches, copies and synchronisations per request in traces of torch's profiler."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_bench import Bench
from model.engine.captured.engine import CapturedEngine

_NUM_REQUESTS = 5
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def profile_requests(bench: Bench, engine: CapturedEngine, *, rows: int, trace: Path | None) -> dict[str, float]:
    """Events per batch of this size; on a CPU, which has none, operators are counted instead."""
    plans = bench.workload.plans[:rows]
    for _ in range(3):
        engine.search(plans)
    is_gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(_NUM_REQUESTS):
            engine.search(plans)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        content = path.read_bytes()
    if trace is not None:
        trace.write_bytes(gzip.compress(content))
    return _count(json.loads(content)["traceEvents"])


def _count(events: list[dict[str, object]]) -> dict[str, float]:
    names = Counter(str(event.get("name")) for event in events if event.get("cat") in {"cuda_runtime", "cuda_driver"})
    copies = Counter(str(event.get("name")) for event in events if event.get("cat") == "gpu_memcpy")
    kinds = Counter(str(event.get("cat")) for event in events)
    kernel_us = sum(float(str(event["dur"])) for event in events if event.get("cat") == "kernel")
    totals = {
        "graph_launches": names["cudaGraphLaunch"],
        "kernel_launches": sum(names[name] for name in _LAUNCHES),
        "waits": sum(names[name] for name in _WAITS),
        "copies_to_device": sum(count for name, count in copies.items() if "HtoD" in name),
        "copies_back": sum(count for name, count in copies.items() if "DtoH" in name),
        "kernels": kinds["kernel"],
        "kernel_ms": kernel_us / 1e3,
        "operators": kinds["cpu_op"],
    }
    return {name: round(total / _NUM_REQUESTS, 3) for name, total in totals.items()}
