"""How faithful is each engine to torch in float32?

Question  How many held-out customers of the trained demonstration get torch's ten items in torch's order, how many of
          the items are torch's, how far are their scores, how often is the next purchase among them, and do answers
          depend on the batch? And with random weights over the Toys catalog?
Method    Every engine answers each customer alone; then in batches of random size and order. Processor time is counted.
          Random weights need ../shared/data and are left out where it is absent.
Output    One line per engine; the last line is JSON.

    python -m benchmarks.fidelity [--requests 300] [--random 40] [--engines torch,onnx,onnx-int8] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from benchmarks.answers import DEMO, K, Question, compare_batches, held_out, question_of
from benchmarks.cpu_engine import BUNDLE, DATA, ENGINES
from benchmarks.toys_bundle import DOMAIN, build, sample_purchases
from model.engine.offline import rank
from model.engine.protocol import Ranking
from model.planning.runtime import Runtime, load_runtime


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the engines' answers with those of torch in float32.")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--random", type=int, default=40, help="requests to random weights over Toys (default: 40)")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = list(dict.fromkeys(["torch", *options.engines.split(",")]))
    found: dict[str, object] = {"benchmark": "fidelity", "requests": options.requests}
    demo = {name: load_runtime(DEMO, engine=name) for name in names}
    found["demonstration"] = _compare(demo, held_out(demo["torch"], options.requests))
    if options.random and DATA.is_dir():
        if not BUNDLE.exists():
            build(BUNDLE, DATA)
        toys = {name: load_runtime(BUNDLE, engine=name) for name in names}
        purchases = sample_purchases(DATA, options.random)
        found["random"] = _compare(
            toys, [question_of(toys["torch"].domains[DOMAIN], each.history) for each in purchases]
        )
    print(json.dumps(found))
    return 0


def _compare(runtimes: Mapping[str, Runtime], questions: Sequence[Question]) -> dict[str, Mapping[str, object]]:
    expected: list[Ranking] = []
    found: dict[str, Mapping[str, object]] = {}
    for name, runtime in runtimes.items():
        started = time.process_time()
        answers = [rank(runtime.engine, [question.work])[0] for question in questions]
        seconds = time.process_time() - started
        expected = expected or answers
        gaps = [gap for pair in zip(answers, expected, strict=True) for gap in score_gaps(*pair)]
        overlaps = [len(set(a.leaves) & set(b.leaves)) / K for a, b in zip(answers, expected, strict=True)]
        batches = compare_batches(runtime.engine, [question.work for question in questions])
        found[name] = {
            "same_order": sum(a.leaves.tolist() == b.leaves.tolist() for a, b in zip(answers, expected, strict=True)),
            "of": len(questions),
            "items": round(float(np.mean(overlaps)), 4),
            "largest_gap": float(f"{max(gaps):.1e}"),
            "median_gap": float(f"{np.median(gaps):.1e}"),
            "hit_rate": round(
                float(np.mean([q.bought in a.leaves for q, a in zip(questions, answers, strict=True)])), 4
            ),
            "batch_gap": batches["largest_gap"],
            "processor_ms": round(1e3 * seconds / len(questions), 2),
        }
        print(f"{name:12}" + ", ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
    return found


def score_gaps(one: Ranking, other: Ranking) -> list[float]:
    """Score differences of the items in both."""
    scores = dict(zip(other.leaves.tolist(), other.scores.tolist(), strict=True))
    pairs = zip(one.leaves.tolist(), one.scores.tolist(), strict=True)
    return [abs(score - scores[leaf]) for leaf, score in pairs if leaf in scores]


if __name__ == "__main__":
    sys.exit(main())
