"""What may captured searches in each precision claim to be proven?

Question  How far do scores in each precision differ from those of float32, how often would float32 contradict a claim
          with its own margin, and how often does it contradict one that is made?
Method    Held-out customers of the trained demonstration. Captured searches run uncaptured on the CPU; tensor cores are
          emulated by rounding the factors of products to 10 bits of mantissa (benchmarks/tensor_cores.py). The truth is
          the certified search in float32. A claim is contradicted if float32 ranks another item in a claimed place by
          more than the margin.
Output    One line per precision; the last line is JSON.

    python -m benchmarks.certification [--requests 300]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.answers import DEMO, held_out
from benchmarks.fidelity import score_gaps
from benchmarks.tensor_cores import TensorCores
from model.bundle.bundle import open_bundle
from model.decoding.items import EXACTNESS_MARGIN
from model.engine.captured.engine import CapturedEngine, captured_engine
from model.engine.captured.filling import read
from model.engine.captured.options import CaptureOptions, Precision
from model.engine.offline import rank
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking
from model.planning.runtime import load_runtime

PRECISIONS: tuple[Precision, ...] = ("float32", "tfloat32", "bfloat16")
_READ = "model.engine.captured.engine.read"
_PACK = "model.engine.torch_executor.pack_projections"  # products with packed weights would escape the emulation


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the claims of each precision that float32 contradicts.")
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runtime = load_runtime(DEMO, engine="torch")
    tries = [domain.trie for _, domain in sorted(runtime.domains.items())]
    plans = [question.work for question in held_out(runtime, options.requests)]
    certified = [replace(plan, certified=True) for plan in plans]
    truth = [rank(runtime.engine, [plan])[0] for plan in certified]
    found: dict[str, object] = {"benchmark": "certification", "requests": len(plans)}
    for precision in PRECISIONS:
        with patch(_PACK, lambda _: None), TensorCores():
            network = open_bundle(DEMO).network()
            settings = CaptureOptions(precision, captures=False, warm_up=(), num_spare_slots=0)
            engine = captured_engine(network, tries, torch.device("cpu"), settings)
            found[precision] = _claims(engine, plans, certified, truth)
        print(f"{precision:10}{found[precision]}", flush=True)
    print(json.dumps(found))
    return 0


def _claims(
    engine: CapturedEngine, plans: Sequence[RankingPlan], certified: Sequence[RankingPlan], truth: Sequence[Ranking]
) -> dict[str, object]:
    claiming = partial(read, is_exact=True)
    with patch(_READ, lambda buffers, plans, **_: claiming(buffers, plans)):
        unchecked = [engine.search([plan])[0][0] for plan in plans]
    plain = [engine.search([plan])[0][0] for plan in plans]
    proven = [rank(engine, [plan])[0] for plan in certified]
    gaps = [gap for pair in zip(plain, truth, strict=True) for gap in score_gaps(*pair)]
    return {
        "median_gap": float(f"{np.median(gaps):.1e}"),
        "largest_gap": float(f"{max(gaps):.1e}"),
        "contradicted_with_a_margin_of_float32": _contradicted(unchecked, truth),
        "claims": sum(ranking.exact_prefix > 0 for ranking in plain),
        "contradicted": _contradicted(plain, truth),
        "certified_claims": sum(ranking.exact_prefix > 0 for ranking in proven),
        "certified_contradicted": _contradicted(proven, truth),
    }


def _contradicted(rankings: Sequence[Ranking], truth: Sequence[Ranking]) -> int:
    """Requests with a claimed item whose true score is lower than that of the true item of its place, or unknown."""
    wrong = 0
    for ranking, true in zip(rankings, truth, strict=True):
        length = min(ranking.exact_prefix, true.exact_prefix)
        scores = dict(zip(true.leaves.tolist(), true.scores.tolist(), strict=True))
        pairs = zip(ranking.leaves[:length].tolist(), true.scores[:length].tolist(), strict=True)
        wrong += any(scores.get(leaf, -np.inf) < score - EXACTNESS_MARGIN for leaf, score in pairs)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
