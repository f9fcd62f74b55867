"""How long does one recommendation take, beside transformers' own beam search?

Question  One request at a time on two CPU threads: how does the engine's latency compare with `generate` of the
          transformers library, 20 beams over the trie of all 11,924 Toys items?
Method    T5-small's dimensions with random weights; real users' histories; the same prompt tokens go to both sides.
          Ours does all of VIP5 (assembling the prompt, image tokens, adapters, leaving out what is in the history) and
          returns 10 items. The baseline is a plain T5 without images and adapters that is given ready token ids; its 20
          sequences are cut to the 10 best that are not in the history. Both answer each request in turn, the one and
          the other first, after a warm-up. Apart from the timing, some answers are compared with VIP5 rebuilt on the
          library's T5 (adapters as hooks), whose 20 beams must find the same 20 items with the same scores.
Output    Median and 95th percentile of each, their ratio, and what the checks found; the last line is JSON.

    python -m benchmarks.first_bearing [--requests 60] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders import NUM_BEAMS, K, Ours, PlainT5, Request, Vip5Rebuilt
from benchmarks.toys_bundle import build, sample_purchases
from model.bundle.bundle import open_bundle

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
BUNDLE = ROOT / "benchmarks" / ".work" / "toys-t5-small"

NUM_WARM_UP = 3
NUM_COMPARED = 8
LARGEST_GAP = 2e-4  # of scores that are the same but for rounding


@dataclass(frozen=True)
class Latency:
    """Milliseconds per request."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        median, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
        return cls(round(float(median), 1), round(float(p95), 1))


@dataclass
class Tally:
    """What was measured and seen of one side."""

    seconds: list[float]
    num_items: int = 0
    num_invalid: int = 0
    num_short: int = 0  # answers of fewer than K items

    def add(self, seconds: float, items: Sequence[str | None]) -> None:
        self.seconds.append(seconds)
        self.num_items += len(items)
        self.num_invalid += sum(item is None for item in items)
        self.num_short += len(items) < K


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the engine's latency with that of transformers' generate.")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if not DATA.is_dir():
        print("skipped: there is no ../shared/data beside the repository, with the Toys catalog and its histories")
        return 0
    torch.set_num_threads(options.threads)
    if not BUNDLE.exists():
        print(f"building {BUNDLE.relative_to(ROOT)}")
        build(BUNDLE, DATA)

    bundle = open_bundle(BUNDLE)
    ours, plain, rebuilt = Ours(BUNDLE, options.threads), PlainT5(bundle), Vip5Rebuilt(bundle)
    requests = [ours.request(one) for one in sample_purchases(DATA, NUM_WARM_UP + options.requests)]
    for request in requests[:NUM_WARM_UP]:
        ours.answer(request)
        plain.answer(request)
    measured = requests[NUM_WARM_UP:]
    our_tally, plain_tally = _run_in_turn(ours.answer, plain.answer, measured)
    same, largest_gap = _compare(ours, rebuilt, measured[:NUM_COMPARED])
    _report(measured, our_tally, plain_tally, options.threads, same, largest_gap)
    is_sound = our_tally.num_invalid == our_tally.num_short == 0 and largest_gap < LARGEST_GAP
    return 0 if is_sound and all(same) else 1


Answer = Callable[[Request], Sequence[str | None]]


def _run_in_turn(first: Answer, second: Answer, requests: Sequence[Request]) -> tuple[Tally, Tally]:
    """Both sides answer every request; they take turns in going first."""
    tallies = (Tally([]), Tally([]))
    sides = list(zip((first, second), tallies, strict=True))
    for request in requests:
        for answer, tally in sides:
            started = time.perf_counter()
            items = answer(request)
            tally.add(time.perf_counter() - started, items)
        sides.reverse()
    return tallies


def _compare(ours: Ours, rebuilt: Vip5Rebuilt, requests: Sequence[Request]) -> tuple[list[bool], float]:
    """For each request, whether both find the same items in the same order; and the largest difference of scores."""
    same, gaps = [], [0.0]
    for request in requests:
        mine, theirs = ours.best(request), rebuilt.best(request)
        same.append([item for item, _ in mine] == [item for item, _ in theirs])
        gaps.extend(abs(a - b) for (_, a), (_, b) in zip(mine, theirs, strict=False))
    return same, max(gaps)


def _report(
    requests: Sequence[Request], ours: Tally, plain: Tally, num_threads: int, same: Sequence[bool], largest_gap: float
) -> None:
    lengths: NDArray[np.int64] = np.array([request.num_tokens for request in requests])
    our_latency, plain_latency = Latency.of(ours.seconds), Latency.of(plain.seconds)
    ratio = round(plain_latency.median_ms / our_latency.median_ms, 2)
    print(f"{len(requests)} requests, {int(np.median(lengths))} prompt tokens in the median, {lengths.max()} at most")
    print(f"{'':24}{'median':>12}{'p95':>12}{'items':>8}{'invalid':>9}{'short':>7}")
    for name, latency, tally in (("vip5-serve", our_latency, ours), ("transformers, plain T5", plain_latency, plain)):
        row = f"{name:24}{latency.median_ms:9.1f} ms{latency.p95_ms:9.1f} ms"
        print(f"{row}{tally.num_items:8}{tally.num_invalid:9}{tally.num_short:7}")
    print(f"ratio of medians {ratio}")
    print(
        f"same {NUM_BEAMS} items as VIP5 in transformers: {sum(same)} of {len(same)}, scores differ {largest_gap:.1e}"
    )
    found = {
        "benchmark": "first_bearing",
        "commit": _commit(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "threads": num_threads,
        "requests": len(requests),
        "ours": asdict(our_latency),
        "baseline": asdict(plain_latency),
        "ratio": ratio,
        "invalid": {"ours": ours.num_invalid, "baseline": plain.num_invalid},
        "short": {"ours": ours.num_short, "baseline": plain.num_short},
        "same_items": sum(same) / len(same),
        "largest_score_gap": largest_gap,
    }
    print(json.dumps(found))


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git the caller uses
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
