"""How fast are captured searches on a GPU, beside transformers and the device's limits, and are they correct?

Question  T5-small's size, 11,924 items, 20 beams, 10 items per request: latency of one request, throughput by batch
          size, kernel launches and synchronisations per request, distance from the device's limits, the effect of
          bfloat16, independence of answers from the batch, the cost of 32 domains in one batch, and memory use.
Method    Random weights and requests in the shape of real ones (benchmarks/gpu_workload.py). Ours is timed from plans
          to rankings, including packing inputs, copies in both directions and reading results. transformers'
          constrained `generate` runs on the same device, interleaved with ours, on prepared token ids without images
          and adapters. Limits are measured in the same run (a large product, a large copy), operations are counted. All
          code is warmed up. Sections are independent: a failing one is reported and the others continue.
Output    One line per figure; with $OUT set, a profiler trace in it; the last line is JSON.

    python3 -m benchmarks.gpu [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_profile import profile_requests
from benchmarks.gpu_roofline import count_demand, measure_ceilings, settle
from benchmarks.gpu_workload import FULL, QUICK
from model.engine.captured.engine import CapturedEngine
from model.engine.protocol import Ranking

Figures: TypeAlias = dict[str, object]

GOALS = {"latency_p50_ms": 2.5, "recommendations_per_s": 4000, "ratio_to_transformers": 40, "launches": 3, "fetches": 1}
K = 10


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure captured searches on a device.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few requests, as a smoke test")
    options = parser.parse_args()
    device = torch.device(options.device)
    bench = Bench.of(QUICK if options.quick else FULL, device)
    sections: dict[str, Callable[[Bench], Figures]] = {
        "device": describe,
        "latency": measure_latency,
        "throughput": measure_throughput,
        "profile": profile_engine,
        "roofline": compare_with_limits,
        "precision": compare_precisions,
        "mixing": compare_alone_and_mixed,
        "domains": measure_domains,
        "memory": measure_memory,
    }
    found: Figures = {"benchmark": "gpu", "quick": options.quick}
    for name, section in sections.items():
        found[name] = _guarded(name, section, bench)
    print(json.dumps(found))
    has_failed = any(isinstance(figures, dict) and "failed" in figures for figures in found.values())
    return 1 if has_failed else 0


def _guarded(name: str, section: Callable[[Bench], Figures], bench: Bench) -> Figures:
    started = time.perf_counter()
    try:
        figures = section(bench)
    except Exception as error:  # noqa: BLE001  # one failing section must not lose the others' results
        traceback.print_exc()
        figures = {"failed": f"{type(error).__name__}: {error}"}
    for key, value in figures.items():
        print(f"{name:12}{key:38}{value}")
    print(f"{name:12}({time.perf_counter() - started:.1f} s)", flush=True)
    return figures


def describe(bench: Bench) -> Figures:
    is_gpu = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(bench.device) if is_gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "identifiers": "of the real catalog" if bench.workload.is_real_catalog else "made up in the shape of the real",
        "prompt_tokens_median": int(np.median(bench.lengths(bench.workload.plans))),
        "prompt_tokens_most": max(bench.lengths(bench.workload.plans)),
        "fanout": bench.workload.trie.fanout,
        "captures": len(bench.engine.buckets),
    }


def measure_latency(bench: Bench) -> Figures:
    """One request at a time, ours and transformers' interleaved."""
    plans = bench.workload.plans
    ours = [bench.search_s([work]) for work in plans[: bench.many]]
    in_turn, theirs = list[float](), list[float]()
    for work in plans[: bench.few]:
        in_turn.append(bench.search_s([work]))
        theirs.append(bench.generate_s([work]))
    p50, p95 = _percentiles_ms(ours)
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "transformers_p50_ms": _percentiles_ms(theirs)[0],
        "transformers_p95_ms": _percentiles_ms(theirs)[1],
        "ratio_of_medians_in_turn": round(float(np.median(theirs) / np.median(in_turn)), 1),
        "goal_p50_ms": GOALS["latency_p50_ms"],
        "goal_ratio": GOALS["ratio_to_transformers"],
    }


def measure_throughput(bench: Bench) -> Figures:
    """Ours with each batch size, and with the largest sorted by length; transformers with one size, interleaved."""
    figures: Figures = {}
    best = 0.0
    for rows in bench.batch_sizes:
        rate = bench.rate(bench.engine, bench.workload.plans, rows)
        figures[f"batch_{rows}_per_s"] = round(rate)
        best = max(best, rate)
    by_length = sorted(bench.workload.plans, key=lambda work: work.prompt.num_tokens)
    figures["largest_by_length_per_s"] = round(bench.rate(bench.engine, by_length, bench.batch_sizes[-1]))
    rows, theirs, ours = bench.baseline_rows, list[float](), list[float]()
    for turn in range(3):
        batch = bench.workload.plans[turn * rows : (turn + 1) * rows]
        theirs.append(rows / bench.generate_s(batch))
        ours.append(rows / bench.search_s(batch))
    figures |= {
        "best_per_s": round(best),
        f"transformers_batch_{rows}_per_s": round(float(np.median(theirs)), 1),
        f"ratio_at_batch_{rows}": round(float(np.median(ours) / np.median(theirs)), 1),
        "ratio_best_to_transformers": round(best / float(np.median(theirs)), 1),
        "goal_per_s": GOALS["recommendations_per_s"],
    }
    return figures


def profile_engine(bench: Bench) -> Figures:
    """Launches, copies and synchronisations of one request and of one full batch."""
    out = os.environ.get("OUT")
    single = profile_requests(bench, rows=1, trace=Path(out) / "one_request.json.gz" if out else None)
    batch = profile_requests(bench, rows=bench.batch_sizes[-1], trace=None)
    figures: Figures = {f"one_{name}": value for name, value in single.items()}
    figures |= {f"batch_{name}": value for name, value in batch.items()}
    return {**figures, "goal_launches": GOALS["launches"], "goal_copies_back": GOALS["fetches"]}


def compare_with_limits(bench: Bench) -> Figures:
    """Share of the device's limit that a batch reaches."""
    ceilings = measure_ceilings(bench.device, bench.dtype)
    figures: Figures = {
        "product_tflops": round(ceilings.flops_per_s / 1e12, 2),
        "copy_tb_per_s": round(ceilings.bytes_per_s / 1e12, 3),
    }
    for rows in (bench.batch_sizes[0], bench.batch_sizes[-1]):
        plans = bench.workload.plans[:rows]
        seconds = float(np.median([bench.search_s(plans) for _ in range(bench.few)]))
        demand = count_demand(
            bench.workload.size.backbone,
            bench.workload.size.layout,
            bench.lengths(plans),
            bench.num_beams,
            bench.workload.trie.depth,
            bench.dtype.itemsize,
        )
        figures[f"batch_{rows}_ms"] = round(1e3 * seconds, 3)
        figures[f"batch_{rows}_gflop"] = round(demand.flops / 1e9, 2)
        figures[f"batch_{rows}_gbyte"] = round(demand.num_bytes / 1e9, 3)
        figures[f"batch_{rows}_fraction_of_limit"] = round(demand.floor_s(ceilings) / seconds, 4)
    return figures


def compare_precisions(bench: Bench) -> Figures:
    """Share of top-10 lists that lower precisions change, and their throughput."""
    plans, rows = bench.workload.plans, bench.batch_sizes[-1]
    engines = {"float32": bench.exact_engine, "tfloat32": bench.middle_engine, "bfloat16": bench.engine}
    exact = bench.answers(bench.exact_engine, plans)
    figures: Figures = {"requests": len(plans)}
    for name, engine in engines.items():
        pairs = list(zip(bench.answers(engine, plans), exact, strict=True))
        figures |= {
            f"{name}_other_order": _share(one.leaves.tolist() != other.leaves.tolist() for one, other in pairs),
            f"{name}_other_items": _share(set(one.leaves) != set(other.leaves) for one, other in pairs),
            f"{name}_other_first": _share(set(one.leaves[:1]) != set(other.leaves[:1]) for one, other in pairs),
            f"{name}_batch_1_per_s": round(bench.rate(engine, plans[: bench.many], 1)),
            f"{name}_batch_{rows}_per_s": round(bench.rate(engine, plans, rows)),
        }
    return figures


def compare_alone_and_mixed(bench: Bench) -> Figures:
    """Float32 answers to requests alone and in random batches over several domains."""
    plans = bench.workload.mixed()[: bench.many // 2]
    alone = [bench.exact_engine.search([work])[0][0] for work in plans]
    generator = np.random.default_rng(3)
    together: list[Ranking] = []
    while len(together) < len(plans):
        start = len(together)
        rows = int(generator.integers(2, bench.batch_sizes[-1] + 1))
        together += bench.exact_engine.search(plans[start : start + rows])[0]
    pairs = list(zip(alone, together, strict=True))
    return {
        "requests": len(pairs),
        "share_other_answer": _share(one.leaves.tolist() != other.leaves.tolist() for one, other in pairs),
        "largest_score_gap": float(max(np.abs(one.scores - other.scores).max() for one, other in pairs)),
    }


def measure_domains(bench: Bench) -> Figures:
    """Batches of one domain and of all domains, interleaved."""
    rows = bench.batch_sizes[-1] // 2 or 1
    one, mixed = bench.workload.plans, bench.workload.mixed()
    rates: dict[str, list[float]] = {"one": [], "mixed": []}
    for _ in range(3):
        rates["one"].append(bench.rate(bench.engine, one, rows))
        rates["mixed"].append(bench.rate(bench.engine, mixed, rows))
    per_s = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "domains": bench.workload.size.num_domains,
        "rows": rows,
        "one_per_s": round(per_s["one"]),
        "mixed_per_s": round(per_s["mixed"]),
        "mixed_to_one": round(per_s["mixed"] / per_s["one"], 3),
    }


def measure_memory(bench: Bench) -> Figures:
    engine: CapturedEngine = bench.engine
    figures: Figures = {
        "captures": engine.counts.captures,
        "dropped": engine.counts.dropped,
    }
    if bench.device.type == "cuda":
        settle(bench.device)
        figures["allocated_mb_both_precisions_and_transformers"] = round(torch.cuda.memory_allocated() / 1e6)
        figures["reserved_mb_likewise"] = round(torch.cuda.memory_reserved() / 1e6)
        figures["reserved_mb_after_first_captures"] = round(bench.reserved_at_start / 1e6)
    return figures


def _percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return round(float(p50), 3), round(float(p95), 3)


def _share(differs: Iterable[bool]) -> float:
    return round(float(np.mean(list(differs))), 4)


if __name__ == "__main__":
    sys.exit(main())
