"""The contenders of the GPU benchmark, created on first use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from benchmarks.gpu_baseline import TransformersBaseline
from benchmarks.gpu_roofline import settle, timed_s
from benchmarks.gpu_workload import FULL, Size, Workload, make_network, make_workload
from model.engine.captured.buckets import Bucket, Ladder
from model.engine.captured.engine import CapturedEngine, captured_engine
from model.engine.captured.options import CaptureOptions, Precision
from model.engine.plans import RankingPlan
from model.engine.protocol import Ranking

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
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def baseline_rows(self) -> int:
        return min(16, self.batch_sizes[-1])

    @cached_property
    def engine(self) -> CapturedEngine:
        return self._engine("bfloat16", self.batch_sizes)

    @cached_property
    def exact_engine(self) -> CapturedEngine:
        return self._engine("float32", (1, self.batch_sizes[-1]))

    @cached_property
    def middle_engine(self) -> CapturedEngine:
        return self._engine("tfloat32", (1, self.batch_sizes[-1]))

    @cached_property
    def baseline(self) -> TransformersBaseline:
        _, weights = make_network(self.workload.size)
        baseline = TransformersBaseline(self.workload, weights, self.device, self.dtype)
        baseline.answer(self.workload.plans[:1])
        return baseline

    @cached_property
    def reserved_at_start(self) -> int:
        """Bytes that torch had reserved on the device once the first engine was ready."""
        self.engine.warm_up(())
        return torch.cuda.memory_reserved(self.device)

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

    def search_s(self, plans: Sequence[RankingPlan]) -> float:
        """Seconds per batch with ours."""
        return timed_s(lambda: self.engine.search(plans), self.device)

    def generate_s(self, plans: Sequence[RankingPlan]) -> float:
        """Seconds per batch with transformers."""
        return timed_s(lambda: self.baseline.answer(plans), self.device)

    def lengths(self, plans: Sequence[RankingPlan]) -> list[int]:
        return [work.prompt.num_tokens for work in plans]

    def _engine(self, precision: Precision, rows: Sequence[int]) -> CapturedEngine:
        """An engine with captures for all prompt lengths and these batch sizes, one domain per batch."""
        network, _ = make_network(self.workload.size)
        ladder = Ladder(beams=(self.num_beams, 100, 256), listed=(_LISTED, 1024))
        longest = max(self.lengths(self.workload.plans))
        tokens = [step for step in ladder.tokens if step // 2 < longest]
        needs = [Bucket(count, step, self.num_beams, _LISTED, is_mixed=False) for count in rows for step in tokens]
        is_captured = self.device.type == "cuda"
        options = CaptureOptions(
            precision=precision,
            captures=is_captured,
            ladder=ladder,
            warm_up=tuple(sorted((need for need in needs if ladder.holds(need)), key=lambda need: -need.cost)),
        )
        tries = [self.workload.trie] * self.workload.size.num_domains
        return captured_engine(network, tries, self.device, options)
