"""How do latency and memory grow with catalogs, domains, beams and histories?

Question  How do the engine's latency and memory grow with the catalog (12 thousand to 10 million items), the number of
          domains (1 to 64), the beams (10 to 256) and the history (5 to 100 items)?
Method    T5-small's dimensions with random weights, the default CPU engine, real histories of Toys. Each sweep varies
          one parameter; the sizes of a sweep are interleaved by request, so that other load on the machine affects all
          of them. Identifiers are the numbers from 1 on, as in VIP5, in tokens. Domains are copies of one adapter in
          slots of their own, so that the work is the same (with other weights, a search may take other steps); batches
          of 32 requests use one of them, or all in turn, and must be answered alike. Memory is the counted size of the
          arrays.
Output    A table per sweep, and a plot of all four; the last line is JSON.

    python -m benchmarks.growth [--requests 24] [--threads 2] [--largest 10000000] [--sweeps …] [--picture PNG]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.cpu_engine import BUNDLE, DATA
from benchmarks.growth_picture import draw
from benchmarks.toys_bundle import DOMAIN, build, sample_purchases
from model.bundle.bundle import Bundle, open_bundle
from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.trie import Trie
from model.decoding.trie_arena import TrieArena
from model.engine.choice import make_engine
from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.engine.protocol import Engine, Placement, Ranking
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.prompts.assembly import TokenRows
from model.prompts.tokenizer import TextTokenizer

CATALOGS = (11_924, 100_000, 1_000_000, 10_000_000)
DOMAINS = (1, 8, 32, 64)
BEAMS = (10, 20, 50, 100, 256)
HISTORIES = (5, 10, 20, 50, 100)
SWEEPS = ("catalog", "domains", "beams", "history")
MIXED_ROWS = 32
NUM_WARM_UP = 2
_TOKENISED_AT_ONCE = 200_000

Ask = Callable[[int], object]
Point = dict[str, float]


@dataclass(frozen=True, eq=False)
class Bench:
    """The model and real requests."""

    bundle: Bundle
    domain: ServedDomain
    plans: list[RankingPlan]

    @classmethod
    def open(cls, num_requests: int) -> Bench:
        if not BUNDLE.exists():
            build(BUNDLE, DATA)
        bundle = open_bundle(BUNDLE)
        domain = ServedDomain.of(0, bundle.domains[DOMAIN], bundle.tokenizer, bundle.hash)
        histories = [each.history for each in sample_purchases(DATA, num_requests)]
        return cls(bundle, domain, [_work(domain, history) for history in histories])

    def engine(self, arena: TrieArena) -> Engine:
        return make_engine("auto", self.bundle.network(), arena, torch.device("cpu"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how latency and memory grow.")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--largest", type=int, default=CATALOGS[-1], help="largest catalog, in items")
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=SWEEPS)
    parser.add_argument("--picture", type=Path, help="PNG file for the plot of all four sweeps")
    options = parser.parse_args()
    if not DATA.is_dir():
        print("skipped: ../shared/data, with the Toys catalog and its histories, does not exist")
        return 0
    torch.set_num_threads(options.threads)
    bench = Bench.open(options.requests)
    made: dict[str, Callable[[], list[Point]]] = {
        "catalog": lambda: _sweep_catalogs(bench, [size for size in CATALOGS if size <= options.largest]),
        "domains": lambda: _sweep_domains(bench),
        "beams": lambda: _sweep_beams(bench),
        "history": lambda: _sweep_histories(bench),
    }
    sweeps = {name: made[name]() for name in SWEEPS if name in options.sweeps}
    if options.picture is not None and len(sweeps) == len(SWEEPS):
        draw(sweeps, options.picture)
    print(json.dumps({"benchmark": "growth", "threads": options.threads, "requests": options.requests, **sweeps}))
    return 0


def _sweep_catalogs(bench: Bench, sizes: Sequence[int]) -> list[Point]:
    tries, points = [], []
    for size in sizes:
        started = time.perf_counter()
        rows = _numbers(bench.bundle.tokenizer, size)
        tokenised = time.perf_counter()
        tries.append(Trie.build(rows.flat, rows.offsets, eos_id=bench.bundle.tokenizer.eos_id))
        trie_bytes = sum(array.nbytes for array in (tries[-1].token, tries[-1].first_child, tries[-1].rows_of_leaves))
        trie_bytes += tries[-1].leaf_lo.nbytes + tries[-1].leaf_hi.nbytes
        points.append({
            "items": size,
            "tokenise_s": round(tokenised - started, 2),
            "trie_s": round(time.perf_counter() - tokenised, 2),
            "trie_mb": round(trie_bytes / 1e6, 1),
            "filter_mb": round(size * 5 / 1e6, 1),  # a byte and a prefix sum per item; shared by requests
            "depth": tries[-1].depth,
        })  # fmt: skip
    # One arena for all sizes: rows start at the root of their own trie.
    engine = bench.engine(TrieArena.of(tries[:1]))
    for slot, trie in enumerate(tries):
        engine.place(slot, _placement(bench, trie))
    everything = [Eligibility.of(LeafMask.of(np.ones(trie.num_leaves, np.bool_))) for trie in tries]

    def ask(slot: int) -> Ask:
        plans = [_at(replace(work, eligibility=everything[slot]), slot) for work in bench.plans]
        return lambda number: rank(engine, [plans[number]])

    return _measured(points, {size: ask(slot) for slot, size in enumerate(sizes)}, len(bench.plans), "items")


def _sweep_domains(bench: Bench) -> list[Point]:
    """Batches of MIXED_ROWS requests to one domain, and to several in turn."""
    engine = bench.engine(TrieArena.of([bench.domain.trie]))
    for slot in range(1, max(DOMAINS)):
        engine.place(slot, _placement(bench, bench.domain.trie))
    weights = _placement(bench, bench.domain.trie).weights
    own = sum(tensor.nbytes for name, tensor in weights.items() if name not in bench.bundle.backbone.weights)
    points = [{"domains": float(number), "weights_mb": round(own * number / 1e6, 1)} for number in DOMAINS]
    plans = [bench.plans[number % len(bench.plans)] for number in range(MIXED_ROWS)]

    def ask(number: int) -> list[Ranking]:
        return rank(engine, [_at(work, place % number) for place, work in enumerate(plans)])

    for scores in zip(*([ranking.scores for ranking in ask(number)] for number in DOMAINS), strict=True):
        assert all(np.allclose(each, scores[0], atol=1e-4) for each in scores), "the same weights scored differently"

    def asked(number: int) -> Ask:
        return lambda _: ask(number)

    measured = _measured(points, {number: asked(number) for number in DOMAINS}, 4, "domains")
    for point in measured:
        point["requests_a_second"] = round(MIXED_ROWS / point["median_ms"] * 1e3, 1)
        point["of_one_domain"] = round(measured[0]["median_ms"] / point["median_ms"], 3)
    return measured


def _sweep_beams(bench: Bench) -> list[Point]:
    engine = bench.engine(TrieArena.of([bench.domain.trie]))
    points = [{"beams": float(number)} for number in BEAMS]

    def ask(num_beams: int) -> Ask:
        return lambda number: rank(engine, [replace(bench.plans[number], num_beams=num_beams)])

    return _measured(points, {number: ask(number) for number in BEAMS}, len(bench.plans), "beams")


def _sweep_histories(bench: Bench) -> list[Point]:
    engine = bench.engine(TrieArena.of([bench.domain.trie]))
    generator = np.random.default_rng(5)
    item_ids = bench.domain.catalog.item_ids
    plans = {
        length: [
            _work(bench.domain, [item_ids[row] for row in generator.choice(len(item_ids), length, replace=False)])
            for _ in bench.plans
        ]
        for length in HISTORIES
    }
    tokens = {length: np.median([work.prompt.num_tokens for work in made]) for length, made in plans.items()}
    points = [{"history": float(length), "prompt_tokens": float(tokens[length])} for length in HISTORIES]

    def ask(length: int) -> Ask:
        return lambda number: rank(engine, [plans[length][number]])

    return _measured(points, {length: ask(length) for length in HISTORIES}, len(bench.plans), "history")


def _measured(points: list[Point], asks: dict[int, Ask], num_requests: int, unit: str) -> list[Point]:
    """Measure all sizes interleaved, add their latencies to the points, and print them."""
    seconds: dict[int, list[float]] = {size: [] for size in asks}
    for number in (*range(NUM_WARM_UP), *range(num_requests)):
        for size, ask in asks.items():
            started = time.perf_counter()
            ask(number)
            seconds[size].append(time.perf_counter() - started)
    for point, size in zip(points, asks, strict=True):
        kept = np.asarray(seconds[size][NUM_WARM_UP:]) * 1e3
        point["median_ms"] = round(float(np.median(kept)), 1)
        point["p95_ms"] = round(float(np.percentile(kept, 95)), 1)
    first = points[0]["median_ms"]
    for point in points:
        point["of_first"] = round(point["median_ms"] / first, 3)
        print("  ".join(f"{name} {value:g}" for name, value in point.items()))
    print(f"-- {unit}")
    return points


def _numbers(tokenizer: TextTokenizer, size: int) -> TokenRows:
    """The tokens of the numbers from 1 to `size`."""
    flat, lengths = [], []
    for first in range(1, size + 1, _TOKENISED_AT_ONCE):
        rows = TokenRows.of(
            tokenizer.identifiers([str(n) for n in range(first, min(first + _TOKENISED_AT_ONCE, size + 1))])
        )
        flat.append(rows.flat.astype(np.int32))
        lengths.append(np.diff(rows.offsets))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return TokenRows(flat=np.concatenate(flat), offsets=offsets)


def _placement(bench: Bench, trie: Trie) -> Placement:
    files = bench.bundle.domains[DOMAIN]
    return Placement(files.spec.layout, {**bench.bundle.backbone.weights, **files.adapter}, trie)


def _work(domain: ServedDomain, history: Sequence[str]) -> RankingPlan:
    plan = plan_sequential(domain, OfflineSequential(history=tuple(history), k=10, num_beams=20))
    assert isinstance(plan, RankingPlan)
    shape = (len(plan.prompt.image_items), domain.spec.layout.feature_dim)
    return replace(plan, features=(np.random.default_rng(len(history)).standard_normal(shape).astype(np.float32),))


def _at(work: RankingPlan, slot: int) -> RankingPlan:
    return replace(work, slot=slot)


if __name__ == "__main__":
    sys.exit(main())
