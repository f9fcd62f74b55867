"""What does Ray Serve add to a request, beside `vip5 serve`?

Question  How much longer does a request take through Ray's proxy, the ingress and a replica than from `vip5 serve`, and
          how much processor time does that cost?
Method    `vip5 serve` and the application on a cluster of one node, both on the same tiny model with random weights and
          one engine thread, alive at once. Rounds alternate between them and Ray's own health route, which its proxy
          answers alone. Processor time is that of all processes of each side during its rounds, without what it uses at
          rest.
Output    Medians and 95th percentiles, processor time, and differences; the last line is JSON.

    python -m benchmarks.ray_overhead [--requests 50] [--rounds 6]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]  # its types are a package of their own

from benchmarks.commit import ROOT, commit
from benchmarks.service_overhead import Connection, body_of
from service.ray.options import ApplicationOptions
from tests.e2e.processes import serving
from tests.e2e.ray_cluster import HOST, RayService, cluster
from tests.tiny import tiny_bundle

REST_S = 3.0


@dataclass
class Side:
    """One of the servers: how it is asked, and its processes."""

    ask: Callable[[int], object]
    processes: Sequence[psutil.Process]
    latencies_s: list[float] = field(default_factory=list)
    processor_s: float = 0.0
    elapsed_s: float = 0.0
    at_rest: float = 0.0
    """Processors that it uses while nobody asks."""

    def measure_rest(self) -> None:
        before = self._used_s()
        time.sleep(REST_S)
        self.at_rest = (self._used_s() - before) / REST_S

    def run(self, numbers: Sequence[int]) -> None:
        begun, used = time.perf_counter(), self._used_s()
        for number in numbers:
            start = time.perf_counter()
            self.ask(number)
            self.latencies_s.append(time.perf_counter() - start)
        self.elapsed_s += time.perf_counter() - begun
        self.processor_s += self._used_s() - used

    def _used_s(self) -> float:
        total = 0.0
        for process in self.processes:
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def figures(self) -> dict[str, float]:
        median, p95 = np.percentile(self.latencies_s, [50, 95]) * 1000
        processor_s = self.processor_s - self.at_rest * self.elapsed_s
        return {
            "median_ms": round(float(median), 2),
            "p95_ms": round(float(p95), 2),
            "processor_ms": round(1000 * processor_s / len(self.latencies_s), 2),
            "processors_at_rest": round(self.at_rest, 3),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what Ray Serve adds to a request.")
    parser.add_argument("--requests", type=int, default=50, help="in a round")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = tiny_bundle(Path(folder))
        with cluster(ROOT, [2]) as port, serving(bundle) as server:
            found = measure(bundle, port, server.url, server.process.pid, options)
    for name, figures in found.items():
        print(name, figures)
    print(json.dumps({"benchmark": "ray_overhead", "commit": commit(), **vars(options), **found}))
    return 0


def measure(bundle: Path, port: int, url: str, pid: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    settings: dict[str, object] = {"bundle": str(bundle), "index_cache": "off", "num_threads": 1}
    RayService(port, ApplicationOptions(settings=settings, num_cpus=0.4, ingress_cpus=0.1)).deploy()
    plain, ray = Connection(url), Connection(f"http://{HOST}:{port}")
    own = psutil.Process()
    of_plain = [psutil.Process(pid)]
    of_ray = [each for each in own.children(recursive=True) if each not in of_plain]
    sides = {
        "plain": Side(lambda number: plain.post("/recommend/sequential", body_of(number)), of_plain),
        "ray": Side(lambda number: ray.post("/recommend/sequential", body_of(number)), of_ray),
        "ray's proxy alone": Side(lambda _: ray.get("/-/healthz"), of_ray),
    }
    for side in sides.values():
        for number in range(options.requests):
            side.ask(number)
        side.measure_rest()
    for turn in range(options.rounds):
        for side in sides.values():
            side.run(range(turn * options.requests, (turn + 1) * options.requests))
    found = {name: side.figures() for name, side in sides.items()}
    found["ray - plain"] = {
        name: round(found["ray"][name] - found["plain"][name], 2) for name in ("median_ms", "p95_ms", "processor_ms")
    }
    return found


if __name__ == "__main__":
    raise SystemExit(main())
