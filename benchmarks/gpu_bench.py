"""The contenders of the GPU benchmark, created on first use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu_roofline import settle, timed_s
from benchmarks.gpu_workload import FULL, Size, Workload, make_network, make_workload
from model.decoding.trie import Trie
from model.engine.captured.buckets import Bucket, Ladder
from model.engine.captured.engine import CapturedEngine, captured_engine
from model.engine.captured.options import CaptureOptions, Precision
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking

if TYPE_CHECKING:
    from benchmarks.gpu_baseline import TransformersBaseline

_K = 10
_NUM_BEAMS = 20
_LISTED = 64


@dataclass(frozen=True, eq=False)
class Bench:
    """A workload on a device."""

    workload: Workload
    device: torch.device
    batch_sizes: tuple[int, ...]
    many: int  # requests per cheap measurement
    few: int  # requests per expensive measurement
    least_s: float  # minimum time of a throughput measurement
    num_beams: int = _NUM_BEAMS

    @classmethod
    def of(cls, size: Size, device: torch.device) -> Bench:
        is_full = size is FULL
        num_beams = _NUM_BEAMS if is_full else 12
        return cls(
            make_workload(size, k=_K, num_beams=num_beams),
            device,
            batch_sizes=(1, 2, 4, 8, 16, 32, 64, 128) if is_full else (1, 2),
            many=400 if is_full else 4,
            few=40 if is_full else 2,
            least_s=1.0 if is_full else 0.01,
            num_beams=num_beams,
        )

    @property
    def baseline_rows(self) -> int:
        return min(16, self.batch_sizes[-1])

    @property
    def on_a_cpu(self) -> CapturedEngine:
        """Uncaptured searches in float32."""
        network, _ = make_network(self.workload.size)
        options = CaptureOptions("float32", captures=False, ladder=self._ladder, warm_up=())
        return captured_engine(network, self._tries, torch.device("cpu"), options)

    def baseline(self) -> TransformersBaseline:
        """Transformers with the default's dtype, warmed up."""
        from benchmarks.gpu_baseline import TransformersBaseline  # noqa: PLC0415  # a machine may not have transformers

        _, weights = make_network(self.workload.size)
        baseline = TransformersBaseline(self.workload, weights, self.device, torch.float32)
        baseline.answer(self.workload.plans[:1])
        return baseline

    def rate(self, engine: CapturedEngine, plans: Sequence[RankingPlan], rows: int) -> float:
        """Requests per second in batches of this size, after all shapes are captured."""
        batches = [plans[start : start + rows] for start in range(0, len(plans) - rows + 1, rows)]
        for batch in batches:
            engine.search(batch)
        settle(self.device)
        started, num_done = time.perf_counter(), 0
        while True:
            for batch in batches:
                engine.search(batch)
                num_done += len(batch)
                elapsed = time.perf_counter() - started
                if elapsed > self.least_s:
                    return num_done / elapsed

    def answers(self, engine: CapturedEngine, plans: Sequence[RankingPlan]) -> list[Ranking]:
        rows = self.batch_sizes[-1]
        batches = (plans[start : start + rows] for start in range(0, len(plans), rows))
        return [ranking for batch in batches for ranking in engine.search(batch)[0]]

    def search_s(self, engine: CapturedEngine, plans: Sequence[RankingPlan]) -> float:
        """Seconds per batch with ours."""
        return timed_s(lambda: engine.search(plans), self.device)

    def generate_s(self, baseline: TransformersBaseline, plans: Sequence[RankingPlan]) -> float:
        """Seconds per batch with transformers."""
        return timed_s(lambda: baseline.answer(plans), self.device)

    def lengths(self, plans: Sequence[RankingPlan]) -> list[int]:
        return [work.prompt.num_tokens for work in plans]

    def small_engine(self, precision: Precision) -> CapturedEngine:
        """An engine that captures what it is asked for."""
        return self._engine(precision, ())

    def engine(self, precision: Precision, rows: Sequence[int], *, is_mixed: bool = False) -> CapturedEngine:
        """An engine with captures for all prompt lengths and these batch sizes, also for mixed rows if asked for."""
        longest = max(self.lengths(self.workload.plans))
        tokens = [step for step in self._ladder.tokens if step // 2 < longest]
        needs = [
            Bucket(count, step, self.num_beams, _LISTED, is_mixed=of_several)
            for count in rows
            for step in tokens
            for of_several in ([False, True] if is_mixed and count > 1 else [False])
        ]
        return self._engine(precision, [need for need in needs if self._ladder.holds(need)])

    @property
    def _ladder(self) -> Ladder:
        return Ladder(beams=(self.num_beams, 100, 256), listed=(_LISTED, 1024))

    @property
    def _tries(self) -> list[Trie]:
        return [self.workload.trie] * self.workload.size.num_domains

    def _engine(self, precision: Precision, buckets: Sequence[Bucket]) -> CapturedEngine:
        network, _ = make_network(self.workload.size)
        options = CaptureOptions(
            precision=precision,
            captures=self.device.type == "cuda",
            ladder=self._ladder,
            warm_up=tuple(sorted(buckets, key=lambda need: -need.cost)),
        )
        return captured_engine(network, self._tries, self.device, options)
