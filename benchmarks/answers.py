"""What do constraints, certified exactness, batching and rounding cost, and how do they affect answers?

Question  What latency does a per-request constraint add (goal: at most 5 %)? What does certified exactness cost, and
          how often are 20 beams exact for the top 10? Are answers independent of the batch? How does rounding weights
          to int8 change rankings?
Method    Latency: T5-small's dimensions with random weights over Toys, real histories; each request runs without a
          constraint, with 20 excluded items, and with 20 excluded items in half of the catalog, interleaved. Exactness:
          the same requests, and held-out customers of the trained demonstration, plain and certified. Batches: requests
          to both domains of the demonstration, alone and in batches of random size and order. Rounding: hit rate on the
          held-out customers' next purchase, and overlap of the top 10.
Output    One line per question; the last line is JSON.

    python -m benchmarks.answers [--requests 40] [--batched 1000] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cpu_engine import BUNDLE, DATA, ENGINES, ROOT
from benchmarks.toys_bundle import DOMAIN, build, sample_purchases
from model.bundle.features import load_features
from model.datasets.dataset import Dataset
from model.decoding.eligibility import Eligibility, LeafMask
from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.engine.protocol import Engine, Ranking
from model.planning.domain import ServedDomain
from model.planning.queries import OfflineSequential
from model.planning.rankings import plan_sequential
from model.planning.runtime import Runtime, load_runtime

DEMO = ROOT / "demo" / "bundle"
K = 10
NUM_EXCLUDED = 20
LARGEST_BATCH = 32
NUM_WARM_UP = 2
SEED = 11


@dataclass(frozen=True)
class Question:
    """A plan, and the leaf of the customer's next purchase, where known."""

    work: RankingPlan
    bought: int | None = None


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure the effects of constraints, exactness, batching and rounding."
    )
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--batched", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Mapping[str, object]] = {}
    if DATA.is_dir():
        if not BUNDLE.exists():
            build(BUNDLE, DATA)
        runtime = load_runtime(BUNDLE)
        plans = [_work(runtime.domains[DOMAIN], each.history) for each in sample_purchases(DATA, options.requests)]
        found["constraints"] = _constraints(runtime, plans)
        found["certainty, random weights"] = _certainty(runtime.engine, plans)
    else:
        print("../shared/data does not exist; skipping the latency of constraints")
    demo = {name: load_runtime(DEMO, engine=name) for name in ENGINES}
    questions = held_out(demo["torch"], options.batched)
    plain = [question.work for question in questions]
    found["certainty, demonstration"] = _certainty(demo["onnx"].engine, plain[: 5 * options.requests])
    for name in ENGINES:
        found[f"batches, {name}"] = compare_batches(demo[name].engine, plain)
    found["rounding, demonstration"] = _rounding(demo["torch"].engine, demo["onnx-int8"].engine, questions)
    for question, figures in found.items():
        print(f"{question}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    print(json.dumps({"benchmark": "answers", "threads": options.threads, **found}))
    return 0


def _constraints(runtime: Runtime, plans: Sequence[RankingPlan]) -> Mapping[str, object]:
    domain, engine = runtime.domains[DOMAIN], runtime.engine
    generator = np.random.default_rng(SEED)
    num_leaves = domain.trie.num_leaves
    everything = LeafMask.of(np.ones(num_leaves, np.bool_))
    half = LeafMask.of(generator.random(num_leaves) < 0.5)
    excluded = [generator.choice(num_leaves, NUM_EXCLUDED, replace=False).tolist() for _ in plans]
    kinds: dict[str, Callable[[int], Eligibility]] = {
        "none": lambda _: Eligibility.of(everything),
        "excluded": lambda number: Eligibility.of(everything, exclude=excluded[number]),
        "filtered": lambda number: Eligibility.of(half, exclude=excluded[number]),
    }
    made = {kind: [replace(work, eligibility=make(n)) for n, work in enumerate(plans)] for kind, make in kinds.items()}
    seconds = _in_turn({kind: _asking(engine, each) for kind, each in made.items()}, len(plans))
    medians = {kind: float(np.median(each)) for kind, each in seconds.items()}
    return {f"{kind}_ms": round(median * 1e3, 1) for kind, median in medians.items()} | {
        f"{kind}_cost": round(medians[kind] / medians["none"] - 1, 3) for kind in ("excluded", "filtered")
    }


def _certainty(engine: Engine, plans: Sequence[RankingPlan]) -> Mapping[str, object]:
    certified = [replace(work, certified=True) for work in plans]
    seconds = _in_turn({"plain": _asking(engine, plans), "certified": _asking(engine, certified)}, len(plans))
    plain = [ranked(engine, work) for work in plans]
    proven = [ranked(engine, work) for work in certified]
    return {
        "plain_ms": round(float(np.median(seconds["plain"])) * 1e3, 1),
        "certified_ms": round(float(np.median(seconds["certified"])) * 1e3, 1),
        "certified_p95_ms": round(float(np.percentile(seconds["certified"], 95)) * 1e3, 1),
        "requests": len(plans),
        "proven_with_20_beams": sum(each.exact_prefix == len(each.leaves) for each in plain),
        "right_with_20_beams": sum(
            one.leaves.tolist() == sure.leaves.tolist() for one, sure in zip(plain, proven, strict=True)
        ),
        "proven_when_certified": sum(each.exact_prefix == len(each.leaves) for each in proven),
        "most_beams": max(each.num_beams for each in proven),
    }


def compare_batches(engine: Engine, plans: Sequence[RankingPlan]) -> Mapping[str, object]:
    """Answers to each request alone and in a random batch."""
    alone = [ranked(engine, work) for work in plans]
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(plans))
    together: dict[int, Ranking] = {}
    while len(together) < len(plans):
        chosen = order[len(together) : len(together) + int(generator.integers(2, LARGEST_BATCH + 1))]
        rankings = rank(engine, [plans[number] for number in chosen])
        together |= dict(zip(chosen.tolist(), rankings, strict=True))
    pairs = [(alone[number], together[number]) for number in range(len(plans))]
    return {
        "requests": len(plans),
        "other_items": sum(one.leaves.tolist() != other.leaves.tolist() for one, other in pairs),
        "largest_gap": float(f"{max(np.abs(one.scores - other.scores).max() for one, other in pairs):.1e}"),
    }


def _rounding(exact: Engine, rounded: Engine, questions: Sequence[Question]) -> Mapping[str, object]:
    pairs = [(ranked(exact, each.work), ranked(rounded, each.work)) for each in questions]
    hits = [
        [question.bought in ranking.leaves for ranking in pair] for question, pair in zip(questions, pairs, strict=True)
    ]
    return {
        "requests": len(questions),
        "same_10": sum(one.leaves.tolist() == other.leaves.tolist() for one, other in pairs),
        "overlap_10": round(float(np.mean([len(set(a.leaves) & set(b.leaves)) / K for a, b in pairs])), 4),
        "hit_rate_10": round(float(np.mean([hit for hit, _ in hits])), 4),
        "hit_rate_10_int8": round(float(np.mean([hit for _, hit in hits])), 4),
    }


def held_out(runtime: Runtime, number: int) -> list[Question]:
    """Held-out customers of both domains, alternating, with the last purchase as target."""
    questions: list[list[Question]] = []
    for name, domain in sorted(runtime.domains.items()):
        data = Dataset.read(DEMO.with_name(f"{DEMO.name}-held-out") / name)
        stored = load_features(runtime.feature_files[name])
        features = dict(zip(stored.item_ids, stored.features.astype(np.float32), strict=True))
        questions.append([])
        for user in range(len(data.sequences)):
            history = [data.catalog.item_ids[row] for row in data.sequences.seen(user, "test")]
            row = domain.catalog.row_of(data.catalog.item_ids[data.sequences.target(user, "test")])
            if history and row is not None:
                questions[-1].append(Question(_work(domain, history, features), int(domain.leaves_of_rows[row])))
    return [question for pair in zip(*questions, strict=False) for question in pair][:number]


def question_of(domain: ServedDomain, history: Sequence[str]) -> Question:
    """A question with random features."""
    return Question(_work(domain, history))


def _work(
    domain: ServedDomain, history: Sequence[str], features: Mapping[str, NDArray[np.float32]] | None = None
) -> RankingPlan:
    """A plan for a history; random features if none are given."""
    plan = plan_sequential(domain, OfflineSequential(history=tuple(history), k=K, num_beams=20))
    assert isinstance(plan, RankingPlan)
    images, dim = plan.prompt.image_items, domain.spec.layout.feature_dim
    if features is None:
        random = np.random.default_rng(len(history)).standard_normal((len(images), dim)).astype(np.float32)
        return replace(plan, features=(random,))
    nothing = np.zeros(dim, np.float32)
    item_ids = domain.catalog.item_ids
    return replace(plan, features=(np.stack([features.get(item_ids[row], nothing) for row in images]),))


def _asking(engine: Engine, plans: Sequence[RankingPlan]) -> Callable[[int], object]:
    return lambda number: rank(engine, [plans[number]])


def _in_turn(asks: Mapping[str, Callable[[int], object]], number: int) -> dict[str, list[float]]:
    """Seconds per kind and request, interleaved in rotating order, after a warm-up."""
    seconds: dict[str, list[float]] = {kind: [] for kind in asks}
    order = list(asks)
    for place in (*range(NUM_WARM_UP), *range(number)):
        for kind in order:
            started = time.perf_counter()
            asks[kind](place)
            seconds[kind].append(time.perf_counter() - started)
        order.append(order.pop(0))
    return {kind: each[NUM_WARM_UP:] for kind, each in seconds.items()}


def ranked(engine: Engine, work: RankingPlan) -> Ranking:
    (ranking,) = rank(engine, [work])
    return ranking


if __name__ == "__main__":
    sys.exit(main())
