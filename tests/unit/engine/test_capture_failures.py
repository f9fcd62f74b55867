"""A capture that fails leaves nothing in memory, and the next one begins in a pool that can be captured into."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.engine.captured.device import prepare_device
from model.engine.captured.engine import CapturedEngine
from model.engine.captured.program import Replay, SearchProgram
from model.engine.captured.replay import Recorder
from model.errors import EngineError
from tests.tiny import TINY_LAYOUT
from tests.unit.engine.rankings import Served, assert_same, random_plan, random_plans


class Scratch:
    """Memory of a run."""


class FakeGraphs:
    """Refuses to capture into a pool whose captures have all gone, as torch does by an internal assertion."""

    def __init__(self) -> None:
        self.pools = 0
        self.held: dict[object, weakref.WeakSet[Scratch]] = {}
        self.left: list[int] = []  # scratch memory that was alive at each call of `free`
        self.scratch: weakref.WeakSet[Scratch] = weakref.WeakSet()

    def new_pool(self) -> object:
        self.pools += 1
        return self.pools

    def capture(self, run: Callable[[], None], pool: object) -> Replay:
        graph = Scratch()
        assert pool not in self.held or len(self.held[pool]), "INTERNAL ASSERT FAILED: use_count > 0"
        self.held.setdefault(pool, weakref.WeakSet()).add(graph)
        try:
            run()
        except Exception as error:
            # torch ends the capture, which fails too; the error that a user sees is this one, raised from the first.
            raise RuntimeError("capture_end failed") from error

        def replay() -> None:
            assert graph is not None
            run()

        return replay

    def free(self) -> None:
        self.left.append(len(self.scratch))


@pytest.fixture
def graphs() -> FakeGraphs:
    return FakeGraphs()


def test_nothing_of_a_failed_capture_is_left_when_its_error_arrives(graphs: FakeGraphs) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="40 GiB") as caught:
        Recorder(graphs).record(lambda: _run_out(graphs))
    assert graphs.left == [0]
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_another_error_is_passed_on(graphs: FakeGraphs) -> None:
    def run() -> None:
        raise ValueError("an operator that is illegal in a capture")

    with pytest.raises(RuntimeError, match="capture_end failed"):
        Recorder(graphs).record(run)


def test_a_pool_is_shared_while_one_of_its_captures_lives_and_then_replaced(graphs: FakeGraphs) -> None:
    recorder = Recorder(graphs)
    first, second = recorder.record(lambda: None), recorder.record(lambda: None)
    assert graphs.pools == 1
    del first
    gc.collect()
    third = recorder.record(lambda: None)
    assert graphs.pools == 1
    del second, third
    gc.collect()
    recorder.record(lambda: None)()
    assert graphs.pools == 2


@pytest.fixture
def engine(tmp_path: Path, graphs: FakeGraphs) -> tuple[Served, CapturedEngine]:
    served = Served(tmp_path, {"toys": TINY_LAYOUT}, num_items=40)
    engine = served.captured()
    engine._recorder = engine._programs._recorder = Recorder(graphs)
    return served, engine


def test_a_batch_is_halved_once_the_memory_of_the_whole_is_free(
    engine: tuple[Served, CapturedEngine], graphs: FakeGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, captured = engine
    _fail_beyond(monkeypatch, graphs, num_rows=2)
    plans = random_plans(served.domains, 7, seed=21)
    assert_same(captured.search(plans)[0], served.plain().search(plans)[0])
    assert set(graphs.left) == {0}
    assert captured.counts.splits >= 3


def test_captures_give_way_to_a_search_that_does_not_fit_beside_them(
    engine: tuple[Served, CapturedEngine], graphs: FakeGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, captured = engine
    plans = [replace(random_plan(served.domains[0], seed), certified=False) for seed in (1, 2)]
    narrow, wide = replace(plans[0], k=1, num_beams=4), replace(plans[1], num_beams=20)
    captured.search([narrow])
    run = SearchProgram.run

    def failing(program: SearchProgram) -> None:
        if captured.buckets and program.shape.bucket.num_beams > 4:
            _run_out(graphs)
        run(program)

    monkeypatch.setattr(SearchProgram, "run", failing)
    # A replay runs the program again, which fails on the fake only: by then the search is among the captures.
    monkeypatch.setattr("model.engine.captured.replay._Capture.__call__", lambda capture: None)
    captured.search([wide])
    assert [bucket.num_beams for bucket in captured.buckets] == [20]
    assert captured.counts.dropped == 1
    assert graphs.pools == 2


def test_a_search_that_fits_in_no_memory_is_an_error_without_the_failed_frames(
    engine: tuple[Served, CapturedEngine], graphs: FakeGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, captured = engine
    _fail_beyond(monkeypatch, graphs, num_rows=0)
    with pytest.raises(EngineError, match=r"a single search does not fit in memory: .*40 GiB"):
        captured.search(random_plans(served.domains, 1, seed=21))
    assert set(graphs.left) == {0}


def test_kernels_and_memory_of_a_device_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that is possible without one."""
    shares: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *share: shares.append(share))
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    attention = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        prepare_device(torch.device("cpu"), 0.5)
        assert torch.backends.cuda.cudnn_sdp_enabled() == attention
        prepare_device(torch.device("cuda"), 0.5)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        assert shares == [(0.5, torch.device("cuda"))]
    finally:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = reduced
        torch.backends.cuda.enable_cudnn_sdp(attention)


def _run_out(graphs: FakeGraphs) -> None:
    scratch = Scratch()
    graphs.scratch.add(scratch)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")


def _fail_beyond(monkeypatch: pytest.MonkeyPatch, graphs: FakeGraphs, num_rows: int) -> None:
    run = SearchProgram.run

    def failing(program: SearchProgram) -> None:
        if program.shape.bucket.num_rows > num_rows:
            _run_out(graphs)
        run(program)

    monkeypatch.setattr(SearchProgram, "run", failing)
