"""How long does one recommendation take on a CPU, with each engine and compared with other libraries?

Question  One request at a time on two CPU threads, 20 beams over the trie of all 11,924 Toys items: how do the engines'
          latencies compare with transformers' `generate` under the same constraint, and with CTranslate2's int8 beam
          search, which has no constraint? What share of the machine's matrix product throughput do they reach?
Method    T5-small's dimensions with random weights; real users' histories. Our engines do all the work of VIP5 (prompt
          assembly, image tokens, adapters, excluding the history) and return 10 items. The others get the token ids of
          the same prompt and a plain T5 without images and adapters. transformers' 20 sequences are reduced to the 10
          best outside of the history; CTranslate2 decodes three steps. Each contender runs in its own process, because
          idle threads of one library slow down the others. All answer each request, interleaved in rotating order,
          after a warm-up. Separately, some answers are compared with VIP5 rebuilt on transformers' T5 (adapters as
          hooks), whose 20 beams must find the same 20 items with the same scores, and each engine's 10 items with
          torch's.
Output    Median, 95th percentile and ratios per contender, and the results of the comparisons; the last line is JSON.

    python -m benchmarks.cpu_engine [--requests 60] [--threads 2] [--ctranslate2 PYTHON]

PYTHON is the interpreter of an environment with ctranslate2, transformers 4 and torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.commit import commit
from benchmarks.contenders import NUM_BEAMS, CTranslate2, K, Ours, PlainT5, Request, Vip5Rebuilt
from benchmarks.toys_bundle import build, sample_purchases
from model.bundle.bundle import open_bundle
from model.engine.names import EngineName

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
BUNDLE = ROOT / "benchmarks" / ".work" / "toys-t5-small"
TOKENIZER = DATA / "t5-tokenizer" / "tokenizer.json"

ENGINES: tuple[EngineName, ...] = ("torch", "onnx", "onnx-int8")
BASELINE = "transformers, plain T5"
NUM_WARM_UP = 3
NUM_COMPARED = 8
LARGEST_GAP = 2e-4  # largest score difference that rounding explains

Timed = Callable[[Request], tuple[float, Sequence[str | None]]]


@dataclass
class Tally:
    """Latencies and answers of one contender."""

    seconds: list[float] = field(default_factory=list)
    answers: list[Sequence[str | None]] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return round(float(np.median(self.seconds)) * 1e3, 1)

    @property
    def p95_ms(self) -> float:
        return round(float(np.percentile(self.seconds, 95)) * 1e3, 1)

    @property
    def num_invalid(self) -> int:
        return sum(item is None for items in self.answers for item in items)

    @property
    def num_short(self) -> int:
        """Number of answers with fewer than K items."""
        return sum(len(items) < K for items in self.answers)

    def overlap(self, other: Tally) -> float:
        """Mean share of common items over the requests."""
        pairs = zip(self.answers, other.answers, strict=True)
        return float(np.mean([len(set(mine) & set(theirs)) / K for mine, theirs in pairs]))

    def num_same(self, other: Tally) -> int:
        """Number of requests with the same items in the same order."""
        return sum(list(mine) == list(theirs) for mine, theirs in zip(self.answers, other.answers, strict=True))


class Apart:
    """A contender in its own process."""

    def __init__(self, name: str, num_threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, num_threads, theirs), daemon=True)
        self._process.start()

    def answer(self, request: Request) -> tuple[float, Sequence[str | None]]:
        """Seconds measured in the process, and the items."""
        self._connection.send(request)
        seconds, items = self._connection.recv()
        return seconds, items

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()


def _serve(name: str, num_threads: int, connection: Connection) -> None:
    torch.set_num_threads(num_threads)
    engines: dict[str, EngineName] = {engine: engine for engine in ENGINES}
    side = Ours(BUNDLE, engines[name], num_threads) if name in engines else PlainT5(open_bundle(BUNDLE))
    while (request := connection.recv()) is not None:
        started = time.perf_counter()
        items = side.answer(request)
        connection.send((time.perf_counter() - started, items))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the latency of the engines with that of other libraries.")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--ctranslate2",
        type=Path,
        help="Python interpreter of an environment with ctranslate2 (default: skip CTranslate2)",
    )
    options = parser.parse_args()
    if not DATA.is_dir():
        print("skipped: ../shared/data, with the Toys catalog and its histories, does not exist")
        return 0
    torch.set_num_threads(options.threads)
    if not BUNDLE.exists():
        print(f"building {BUNDLE.relative_to(ROOT)}")
        build(BUNDLE, DATA)

    bundle = open_bundle(BUNDLE)
    apart = {name: Apart(name, options.threads) for name in (*ENGINES, BASELINE)}
    sides: dict[str, Timed] = {name: side.answer for name, side in apart.items()}
    translator = None
    if options.ctranslate2 is not None:
        folder = BUNDLE.with_name("toys-t5-plain")
        translator = CTranslate2(options.ctranslate2, bundle, folder, TOKENIZER, options.threads)
        sides["CTranslate2, int8"] = lambda request, side=translator: (side.seconds(request), [])  # type: ignore[misc]
    ours = Ours(BUNDLE, "onnx", options.threads)
    requests = [ours.request(one) for one in sample_purchases(DATA, NUM_WARM_UP + options.requests)]
    _run_in_turn(sides, requests[:NUM_WARM_UP])
    measured = requests[NUM_WARM_UP:]
    rate = _product_rate()
    tallies = _run_in_turn(sides, measured)
    rate = max(rate, _product_rate())
    for side in apart.values():
        side.close()
    if translator is not None:
        translator.close()
    gap = _compare(ours, Vip5Rebuilt(bundle), measured[:NUM_COMPARED])
    operations = float(np.median([ours.floating_operations(request) for request in measured]))
    _report(measured, tallies, options.threads, operations / rate)
    print(f"the {NUM_BEAMS} items of VIP5 in transformers have the same scores on onnx within {gap:.1e}")
    is_sound = all(tallies[name].num_invalid == tallies[name].num_short == 0 for name in ENGINES)
    return 0 if is_sound and gap < LARGEST_GAP else 1


def _run_in_turn(sides: dict[str, Timed], requests: Sequence[Request]) -> dict[str, Tally]:
    """All contenders answer every request, in rotating order."""
    tallies = {name: Tally() for name in sides}
    order = list(sides)
    for request in requests:
        for name in order:
            seconds, items = sides[name](request)
            tallies[name].seconds.append(seconds)
            tallies[name].answers.append(items)
        order.append(order.pop(0))
    return tallies


def _product_rate(size: int = 2048, rounds: int = 8) -> float:
    """Operations per second of a large float32 matrix product; the best of several rounds."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _compare(ours: Ours, rebuilt: Vip5Rebuilt, requests: Sequence[Request]) -> float:
    """The largest score difference of the same item in both answers; infinite if an item is missing in ours."""
    gaps = [0.0]
    for request in requests:
        mine, theirs = dict(ours.best(request)), dict(rebuilt.best(request))
        gaps += [abs(mine.get(item, -np.inf) - score) for item, score in theirs.items()]
    return max(gaps)


def _report(requests: Sequence[Request], tallies: dict[str, Tally], num_threads: int, least_s: float) -> None:
    """`least_s` is the time of a median request's products at the machine's full float32 rate."""
    lengths = np.array([request.num_tokens for request in requests])
    print(f"{len(requests)} requests, {int(np.median(lengths))} prompt tokens in the median, {lengths.max()} at most")
    print(f"the products alone, at the rate of a large one in float32: {least_s * 1e3:.1f} ms")
    baseline = tallies[BASELINE].median_ms
    print(f"{'':24}{'median':>12}{'p95':>12}{'faster':>9}{'of rate':>9}{'invalid':>9}{'short':>7}")
    found = {}
    for name, tally in tallies.items():
        faster = round(baseline / tally.median_ms, 2)
        share = round(least_s * 1e3 / tally.median_ms, 2)
        found[name] = {"median_ms": tally.median_ms, "p95_ms": tally.p95_ms, "faster": faster, "share_of_rate": share}
        row = f"{name:24}{tally.median_ms:9.1f} ms{tally.p95_ms:9.1f} ms{faster:9}{share:9}"
        print(f"{row}{tally.num_invalid:9}{tally.num_short:7}")
    quality = {
        name: {
            "same_10": tallies[name].num_same(tallies["torch"]),
            "overlap_10": round(tallies[name].overlap(tallies["torch"]), 4),
        }
        for name in ENGINES
    }
    for name, agreement in quality.items():
        print(
            f"{name}: the 10 items of torch, in order, {agreement['same_10']} times; overlap {agreement['overlap_10']}"
        )
    about = {
        "benchmark": "cpu_engine",
        "commit": commit(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnxruntime")},
        "threads": num_threads,
        "requests": len(requests),
    }
    print(json.dumps({**about, "least_ms": round(least_s * 1e3, 1), "sides": found, "quality": quality}))


if __name__ == "__main__":
    sys.exit(main())
