"""What do boosts and limits cost, and do the lists stay the true ones?

Question  How much longer does a request take with a boost over half of 100,000 items, with the domain's own rules, and
          with `max_per`? How many lists of the demonstration equal those by the scores of all items?
Method    Cost: one request at a time, planned and ranked in this process, over 100,000 items with the network of the
          demonstration and with one of T5-small's size (random weights), and over the demonstration itself. Every round
          runs each kind once, in random order, on the same history; a kind's ratio is the median over the rounds of its
          CPU time by the plain request's of the same round: other work on the machine lengthens wall times only.
          `neutral` boosts have factors that are nearly 1, so that the search visits the same nodes; those named `new`
          have never been seen before, and are compiled.
          Exactness: histories of the demonstration's users. The true list is made of the log-probabilities of all
          items, scored one by one; equal are lists with the same items in the same order, items whose scores are
          within 1e-4 of each other taken as one.
Output    A line for each kind; the last line is JSON.

    python -m benchmarks.merchandising [--items 100000] [--rounds 40] [--lists 100] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from benchmarks.cpu_engine import ROOT
from benchmarks.random_weights import initial_weights
from benchmarks.toys_bundle import CONFIG, LAYOUT
from model.bundle.bundle import open_bundle
from model.bundle.catalog import Catalog
from model.bundle.layout import DomainSpec, PromptDefaults
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.writer import BundleWriter
from model.decoding.leaf_groups import within_limits
from model.engine.offline import rank
from model.engine.plans import RankingPlan, ScoringPlan
from model.engine.protocol import Engine
from model.network.config import BackboneConfig, DomainLayout
from model.planning.boosts import BoostFactors
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import load_runtime

DEMO = ROOT / "demo" / "bundle"
TOKENIZER = ROOT.parent / "shared" / "data" / "t5-tokenizer" / "tokenizer.json"
NUM_CATEGORIES = 50
BOOSTED = 1.5
NEUTRAL = 1.0001
SAME_NATS = 1e-4
K = 10
SEED = 11

Ask = Callable[[OfflineSequential], RankingPlan]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure boosts and limits: cost and exactness.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--lists", type=int, default=100, help="histories of each domain of the demonstration")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    demo = open_bundle(DEMO)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="merchandising-") as folder:
        tokenizer = Tokenizer.from_file(str(TOKENIZER)) if TOKENIZER.exists() else None
        own = Tokenizer.from_file(str(DEMO / "backbone" / "tokenizer.json"))
        layout = next(iter(demo.domains.values())).spec.layout
        sizes = {
            "demonstration's network": (demo.backbone.config, layout, own),
            "T5-small's size": (CONFIG, LAYOUT, tokenizer or own),
        }
        figures["demonstration"] = cost(DEMO, "toys", "category", options.rounds, options.threads)
        show("demonstration, 216 items", figures["demonstration"])
        for number, (name, size) in enumerate(sizes.items()):
            root = Path(folder) / str(number)
            build(root, *size, options.items)
            figures[name] = cost(root, "large", "category", options.rounds, options.threads)
            show(f"{name}, {options.items:,} items", figures[name])
    equal = exactness(options.lists, options.threads)
    for kind, shares in equal.items():
        print(f"lists equal to the true ones, {kind:24}" + "".join(f"  {k} {v}" for k, v in shares.items()))
    print(json.dumps({"benchmark": "merchandising", "cost": figures, "exactness": equal}))


def show(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: plain request {figures['plain, ms']:.2f} ms")
    for kind, ratio in figures.items():
        if kind != "plain, ms":
            print(f"  {kind:28} {100 * (ratio - 1):+6.1f} %")


def build(root: Path, config: BackboneConfig, layout: DomainLayout, tokenizer: Tokenizer, num_items: int) -> None:
    """Random weights over items whose identifiers are their numbers."""
    numbers = range(1, num_items + 1)
    table = pa.table(
        {
            "item_id": [f"B{number:09d}" for number in numbers],
            "index": [str(number) for number in numbers],
            "title": [f"Product number {number}" for number in numbers],
            "category": [f"category {number * 7919 % NUM_CATEGORIES}" for number in numbers],
        }
    )
    config = replace(config, vocab_size=max(config.vocab_size, tokenizer.get_vocab_size()))
    with BundleWriter(root) as writer:
        writer.share_backbone(config, initial_weights(expected_shapes(config), 1), tokenizer)
        spec = DomainSpec("large", layout, "", prompts=PromptDefaults(max_tokens=256), trained=False)
        writer.add_domain(
            spec, initial_weights(expected_domain_shapes(config, layout), 2), Catalog.from_table(table, "the catalog")
        )
        writer.seal()


def cost(root: Path, name: str, column: str, rounds: int, threads: int) -> dict[str, float]:
    """The plain request's milliseconds, and ratios of the others."""
    runtime = load_runtime(root, num_threads=threads)
    domain, engine = runtime.domains[name], runtime.engine
    values = sorted(str(value) for value, _ in domain.catalog.values(column, 10_000)[0])[::2]
    fresh = itertools.count(1)

    def half(factor: float) -> BoostFactors:
        return BoostFactors({column: dict.fromkeys(values, factor)})

    ruled = {factor: domain.with_rules(half(factor)) for factor in (NEUTRAL, BOOSTED)}
    ids = domain.catalog.item_ids
    some = BoostFactors(items=dict.fromkeys((ids[row] for row in range(0, min(len(ids), 200), 10)), BOOSTED))
    kinds: dict[str, Callable[[OfflineSequential], RankingPlan]] = {
        "plain": _asks(domain),
        "plain again": _asks(domain),
        "rules, neutral": _asks(ruled[NEUTRAL]),
        "rules": _asks(ruled[BOOSTED]),
        "new boost, neutral": _asks(domain, lambda: half(NEUTRAL + next(fresh) * 1e-7)),
        "new boost": _asks(domain, lambda: half(BOOSTED + next(fresh) * 1e-7)),
        "20 items": _asks(domain, lambda: some),
        "max_per": lambda query: _planned(domain, replace(query, max_per={column: 2})),
    }
    generator = np.random.default_rng(SEED)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 3):
        query = OfflineSequential(history=tuple(ids[row] for row in generator.integers(0, len(ids), 5)), k=K)
        for kind in generator.permutation(list(kinds)):
            started_at = time.process_time()
            engine.search([kinds[kind](query)])
            if number >= 3:  # warm
                times[kind].append(time.process_time() - started_at)
    plain = np.array(times.pop("plain"))
    ratios = {kind: float(median((np.array(each) / plain).tolist())) for kind, each in times.items()}
    return {"plain, ms": float(np.median(plain)) * 1e3, **ratios}


def _asks(domain: ServedDomain, boost: Callable[[], BoostFactors] | None = None) -> Ask:
    return lambda query: _planned(domain, query if boost is None else replace(query, boost=boost()))


def _planned(domain: ServedDomain, query: OfflineSequential) -> RankingPlan:
    plan = plan_sequential(domain, query)
    assert isinstance(plan, RankingPlan)
    return plan


def exactness(num_lists: int, threads: int) -> dict[str, dict[str, str]]:
    """For each kind of request, how many lists of each search are the true ones, and how many items it proved."""
    runtime = load_runtime(DEMO, num_threads=threads)
    boost = BoostFactors({"category": {"vehicles": 3.0, "tops": 3.0}, "colour": {"green": 0.3, "red": 2.0}})
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "boost": {"boost": boost},
        "max_per": {"max_per": {"category": 2}},
        "boost, max_per": {"boost": boost, "max_per": {"category": 2}},
        "boost, max_per, where": {"boost": boost, "max_per": {"kind": 1}, "where": {"style": ("modern",)}},
    }
    counts = {kind: {search: [0, 0, 0] for search in ("20 beams", "certified")} for kind in kinds}
    generator = np.random.default_rng(SEED)
    for domain in runtime.domains.values():
        ids = domain.catalog.item_ids
        for _ in range(num_lists):
            history = tuple(ids[row] for row in generator.integers(0, len(ids), 3))
            truth: dict[int, float] = {}
            for kind, fields in kinds.items():
                plan = _planned(domain, OfflineSequential(history=history, k=K, **fields))
                truth = truth or _all_scored(runtime.engine, domain, plan)
                expected = list(_true_list(plan, truth))
                for search, is_certified in (("20 beams", False), ("certified", True)):
                    (ranking,) = rank(runtime.engine, [replace(plan, certified=is_certified)])
                    found = ranking.scores if ranking.boosted is None else ranking.boosted
                    is_equal = len(found) == len(expected) and bool(
                        np.allclose(found, expected, atol=SAME_NATS, rtol=0)
                    )
                    count = counts[kind][search]
                    count[0] += is_equal
                    count[1] += 1
                    count[2] += ranking.exact_prefix == len(expected)
    return {
        kind: {search: f"{equal} of {total} ({proven} proven)" for search, (equal, total, proven) in each.items()}
        for kind, each in counts.items()
    }


def _all_scored(engine: Engine, domain: ServedDomain, plan: RankingPlan) -> dict[int, float]:
    """The log-probability of every leaf, scored one by one."""
    eos_id = domain.tokenizer.eos_id
    rows = domain.trie.rows_of_leaves.tolist()
    targets = tuple((*domain.assembler.identifiers.row(row).tolist(), eos_id) for row in rows)
    ((scores,),), _ = engine.score([ScoringPlan.of(plan, targets)])
    return dict(enumerate(scores))


def _true_list(plan: RankingPlan, truth: dict[int, float]) -> Iterator[float]:
    """Scores of the true list, best first."""
    leaves = np.flatnonzero(plan.eligibility.mask())
    scores = np.array([truth[leaf] for leaf in leaves.tolist()])
    if plan.boosts is not None:
        scores = scores + plan.boosts.of_leaves(leaves)
    order = np.argsort(-scores, kind="stable")
    taken: Sequence[int] = within_limits(leaves[order].tolist(), plan.limits, plan.k) if plan.limits else range(plan.k)
    return (float(scores[order][place]) for place in taken)


if __name__ == "__main__":
    main()
