"""The measurements of the GPU benchmark (benchmarks/gpu.py), each of a bench of its own process."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_profile import profile_requests
from benchmarks.gpu_roofline import count_demand, measure_ceilings, settle
from model.engine.captured.options import Precision
from model.engine.protocol import Ranking

Figures: TypeAlias = dict[str, object]

GOALS = {"latency_p50_ms": 2.5, "recommendations_per_s": 4000, "launches": 3, "fetches": 1}
DEFAULT: Precision = "tfloat32"  # of auto on CUDA
PRECISIONS: tuple[Precision, ...] = ("float32", "tfloat32", "bfloat16")
LARGEST_GAP: dict[Precision, float] = {"float32": 1e-3, "tfloat32": 0.3, "bfloat16": 3.0}
"""Score differences to a CPU that only a wrong search exceeds; rounding alone stays far below."""


def check(bench: Bench) -> Figures:
    """Versions, and one captured search in every precision beside the same search in float32 on a CPU."""
    figures = _describe(bench)
    plans = bench.workload.plans[:2]
    expected = bench.on_a_cpu.search(plans)[0]
    for precision in PRECISIONS:
        found = bench.small_engine(precision).search(plans)[0]
        gap = max(_gap(one, other) for one, other in zip(found, expected, strict=True))
        figures[f"{precision}_largest_gap"] = round(gap, 6)
        if not gap <= LARGEST_GAP[precision]:
            raise ValueError(f"scores in {precision} differ by {gap} from those of a CPU, {figures}")
    return figures


def _gap(one: Ranking, other: Ranking) -> float:
    """The largest score difference of an item in both rankings, or of the best ones if there is none."""
    scores = dict(zip(other.leaves.tolist(), other.scores.tolist(), strict=True))
    gaps = [
        abs(score - scores[leaf]) for leaf, score in zip(one.leaves.tolist(), one.scores, strict=True) if leaf in scores
    ]
    return float(max(gaps, default=abs(one.scores[0] - other.scores[0])))


def _describe(bench: Bench) -> Figures:
    is_gpu = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(bench.device) if is_gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "identifiers": "of the real catalog" if bench.workload.is_real_catalog else "made up in the shape of the real",
        "prompt_tokens_median": int(np.median(bench.lengths(bench.workload.plans))),
        "prompt_tokens_most": max(bench.lengths(bench.workload.plans)),
        "fanout": bench.workload.trie.fanout,
        "cuda": torch.version.cuda,
    }


def measure_latency(bench: Bench, precision: Precision) -> Figures:
    """One request at a time."""
    engine = bench.engine(precision, bench.batch_sizes[:1])
    for plan in bench.workload.plans[: bench.few]:
        engine.search([plan])
    p50, p95 = _percentiles_ms([bench.search_s(engine, [plan]) for plan in bench.workload.plans[: bench.many]])
    return {"p50_ms": p50, "p95_ms": p95, "goal_p50_ms": GOALS["latency_p50_ms"]}


def measure_throughput(bench: Bench, precision: Precision) -> Figures:
    """With each batch size, and with the largest sorted by length."""
    engine = bench.engine(precision, bench.batch_sizes)
    figures: Figures = {}
    best = 0.0
    for rows in bench.batch_sizes:
        rate = bench.rate(engine, bench.workload.plans, rows)
        figures[f"batch_{rows}_per_s"] = round(rate)
        best = max(best, rate)
    by_length = sorted(bench.workload.plans, key=lambda work: work.prompt.num_tokens)
    figures["largest_by_length_per_s"] = round(bench.rate(engine, by_length, bench.batch_sizes[-1]))
    return {**figures, "best_per_s": round(best), "goal_per_s": GOALS["recommendations_per_s"]}


def compare_with_transformers(bench: Bench) -> Figures:
    """Transformers' constrained `generate` on the same device, interleaved with ours."""
    engine, rows = bench.engine(DEFAULT, (1, bench.baseline_rows)), bench.baseline_rows
    baseline = bench.baseline()
    figures: Figures = {}
    for size in (1, rows):
        ours, theirs = list[float](), list[float]()
        for turn in range(bench.few if size == 1 else 3):
            batch = bench.workload.plans[turn * size : (turn + 1) * size]
            ours.append(bench.search_s(engine, batch))
            theirs.append(bench.generate_s(baseline, batch))
        figures |= {
            f"batch_{size}_ms": _percentiles_ms(ours)[0],
            f"transformers_batch_{size}_ms": _percentiles_ms(theirs)[0],
            f"batch_{size}_ratio": round(float(np.median(theirs) / np.median(ours)), 1),
        }
    return figures


def profile_engine(bench: Bench) -> Figures:
    """Launches, copies and synchronisations of one request and of one full batch."""
    out = os.environ.get("OUT")
    engine = bench.engine(DEFAULT, (1, bench.batch_sizes[-1]))
    single = profile_requests(bench, engine, rows=1, trace=Path(out) / "one_request.json.gz" if out else None)
    batch = profile_requests(bench, engine, rows=bench.batch_sizes[-1], trace=None)
    figures: Figures = {f"one_{name}": value for name, value in single.items()}
    figures |= {f"batch_{name}": value for name, value in batch.items()}
    return {**figures, "goal_launches": GOALS["launches"], "goal_copies_back": GOALS["fetches"]}


def compare_with_limits(bench: Bench) -> Figures:
    """Share of the device's limit that a batch reaches."""
    ceilings = measure_ceilings(bench.device, torch.float32)
    figures: Figures = {
        "product_tflops": round(ceilings.flops_per_s / 1e12, 2),
        "copy_tb_per_s": round(ceilings.bytes_per_s / 1e12, 3),
    }
    engine = bench.engine(DEFAULT, (1, bench.batch_sizes[-1]))
    for rows in (bench.batch_sizes[0], bench.batch_sizes[-1]):
        plans = bench.workload.plans[:rows]
        seconds = float(np.median([bench.search_s(engine, plans) for _ in range(bench.few)]))
        demand = count_demand(
            bench.workload.size.backbone,
            bench.workload.size.layout,
            bench.lengths(plans),
            bench.num_beams,
            bench.workload.trie.depth,
            torch.float32.itemsize,
        )
        figures[f"batch_{rows}_ms"] = round(1e3 * seconds, 3)
        figures[f"batch_{rows}_gflop"] = round(demand.flops / 1e9, 2)
        figures[f"batch_{rows}_gbyte"] = round(demand.num_bytes / 1e9, 3)
        figures[f"batch_{rows}_fraction_of_limit"] = round(demand.floor_s(ceilings) / seconds, 4)
    return figures


def compare_precisions(bench: Bench) -> Figures:
    """Share of top-10 lists that lower precisions change, and their throughput."""
    plans, rows = bench.workload.plans, bench.batch_sizes[-1]
    engines = {name: bench.engine(name, (1, rows)) for name in PRECISIONS}
    exact = bench.answers(engines["float32"], plans)
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
    engine = bench.engine("float32", bench.batch_sizes, is_mixed=True)
    alone = [engine.search([work])[0][0] for work in plans]
    generator = np.random.default_rng(3)
    together: list[Ranking] = []
    while len(together) < len(plans):
        start = len(together)
        rows = int(generator.integers(2, bench.batch_sizes[-1] + 1))
        together += engine.search(plans[start : start + rows])[0]
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
    engine = bench.engine(DEFAULT, (rows,), is_mixed=True)
    rates: dict[str, list[float]] = {"one": [], "mixed": []}
    for _ in range(3):
        rates["one"].append(bench.rate(engine, one, rows))
        rates["mixed"].append(bench.rate(engine, mixed, rows))
    per_s = {name: float(np.median(values)) for name, values in rates.items()}
    return {
        "domains": bench.workload.size.num_domains,
        "rows": rows,
        "one_per_s": round(per_s["one"]),
        "mixed_per_s": round(per_s["mixed"]),
        "mixed_to_one": round(per_s["mixed"] / per_s["one"], 3),
    }


def measure_memory(bench: Bench) -> Figures:
    """Of the default engine, after its first captures and after all requests."""
    engine = bench.engine(DEFAULT, bench.batch_sizes)
    is_gpu = bench.device.type == "cuda"
    at_start = torch.cuda.memory_reserved() if is_gpu else 0
    bench.answers(engine, bench.workload.plans)
    figures: Figures = {"captures": engine.counts.captures, "dropped": engine.counts.dropped}
    if is_gpu:
        settle(bench.device)
        free, total = torch.cuda.mem_get_info()
        figures["reserved_mb_after_first_captures"] = round(at_start / 1e6)
        figures["reserved_mb"] = round(torch.cuda.memory_reserved() / 1e6)
        figures["allocated_mb"] = round(torch.cuda.memory_allocated() / 1e6)
        figures["used_of_the_device_mb"] = round((total - free) / 1e6)
    return figures


def _percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return round(float(p50), 3), round(float(p95), 3)


def _share(differs: Iterable[bool]) -> float:
    return round(float(np.mean(list(differs))), 4)
