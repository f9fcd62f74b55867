"""The engine's metrics are the exact sums over all processes, whatever became of the workers."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.samples import Exemplar, Timestamp

from service.observability.metrics import Metrics
from service.observability.metrics.exact import exact, rounded
from service.observability.metrics.shared import SharedValues
from service.observability.metrics.shared_layout import Key
from service.observability.metrics.shared_values import Appender, SharedValue
from service.observability.metrics.summed import WorkerMetrics
from tests.unit.observability.metrics.counting import (
    OPEN_METRICS,
    Call,
    CountingWorker,
    call,
    counting_worker,
    counts,
    engine,
    metrics_in,
    samples,
)

NUM_WORKERS = 3
LATENCY = "vip5_e2e_request_latency_seconds"

durations = st.integers(0, 40_000).map(lambda number: number / 1024)  # sums without rounding, in any order
words = st.sampled_from(["toys", "clothing", 'a "b"\\c\n', "é", ""])
calls: st.SearchStrategy[Call] = st.one_of(
    st.tuples(st.just("observe_request"), st.tuples(words, words, st.sampled_from([200, 429, 503]), durations)),
    st.tuples(st.just("observe_version"), st.tuples(words, words, st.just("stable"), durations)),
    st.tuples(st.just("observe_features"), st.tuples(words, st.integers(0, 9), st.integers(0, 9), durations)),
    st.tuples(st.just("observe_exact_prefix"), st.tuples(st.integers(0, 200))),
    st.tuples(st.just("count_rejected"), st.tuples(st.sampled_from(["overloaded", "timeout"]))),
    st.tuples(st.just("observe_busy"), st.tuples(st.just("ranking"), durations)),
)


@dataclass
class Fleet:
    """Real workers, the engine's view of them, and one process' metrics that count the same."""

    stack: ExitStack
    workers: WorkerMetrics
    engine: Metrics
    oracle: Metrics
    running: dict[int, CountingWorker]

    def start(self, number: int) -> None:
        shared = SharedValues.create(f"worker-{number}", 4096)
        self.running[number] = self.stack.enter_context(counting_worker(shared))
        self.workers.add(number, shared, self.running[number].process.pid)

    def count(self, process: int, counted: list[Call]) -> None:
        """Count in one of the processes; 0 is the engine."""
        call(self.oracle, counted)
        if process:
            self.running[process].count(counted)
        else:
            call(self.engine, counted)

    def assert_sums_are_exact(self) -> None:
        for accept in ("", OPEN_METRICS):
            assert counts(self.engine, accept) == counts(self.oracle, accept)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with ExitStack() as stack:
        workers = WorkerMetrics()
        fleet = Fleet(stack, workers, engine(workers), Metrics(), {})
        for number in range(1, NUM_WORKERS + 1):
            fleet.start(number)
        yield fleet


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, NUM_WORKERS), st.lists(calls, max_size=6)), max_size=6))
def test_counts_of_all_processes_add_up(fleet: Fleet, steps: list[tuple[int, list[Call]]]) -> None:
    for process, counted in steps:
        fleet.count(process, counted)
    fleet.assert_sums_are_exact()


def test_killed_workers_and_their_successors_add_up(fleet: Fleet) -> None:
    chance = random.Random(3)
    for number in (1, 2, 2):
        fleet.count(number, [("observe_request", ("/before", "toys", 200, chance.randrange(9999) / 1024))] * 5)
        fleet.running[number].kill()
        fleet.assert_sums_are_exact()
        fleet.workers.retire(number)
        fleet.assert_sums_are_exact()
        fleet.start(number)
        fleet.count(number, [("observe_request", ("/after", "toys", 200, chance.randrange(9999) / 1024))] * 5)
        fleet.assert_sums_are_exact()


def test_the_processes_are_measured_together_and_processor_time_is_kept(fleet: Fleet) -> None:
    def measured(metrics: Metrics) -> dict[str, float]:
        lines = metrics.render().content.decode().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if line.startswith("process_"))}

    alone, together = measured(fleet.oracle), measured(fleet.engine)
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"):
        assert together[name] > alone[name], name
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert together[name] == alone[name], name
    before = together["process_cpu_seconds_total"]
    fleet.running[3].kill()
    fleet.workers.retire(3, cpu_s=1000.0)
    after = measured(fleet.engine)

    assert after["process_cpu_seconds_total"] >= before
    assert after["process_cpu_seconds_total"] >= 1000
    assert after["process_resident_memory_bytes"] < together["process_resident_memory_bytes"] + 2**25


@contextmanager
def added(workers: WorkerMetrics, number: int) -> Iterator[Metrics]:
    """A worker's metrics, in this process."""
    shared = SharedValues.create(f"worker-{number}")
    workers.add(number, shared, os.getpid())
    with metrics_in(shared) as metrics:
        yield metrics


def test_without_workers_nothing_changes() -> None:
    alone, including = Metrics(), engine(WorkerMetrics())
    for metrics in (alone, including):
        metrics.observe_request("/recommend/sequential", "toys", 200, 0.1, "a" * 32)

    for accept in ("", OPEN_METRICS):
        plain, summed = (
            [(*sample[:4], sample.exemplar and sample.exemplar.labels) for sample in samples(metrics, accept)]
            for metrics in (alone, including)
        )
        assert plain == summed


def test_a_worker_is_retired_once_and_its_number_is_free_again() -> None:
    workers = WorkerMetrics()
    metrics = engine(workers)
    for _ in range(3):
        with added(workers, 1) as worker:
            worker.count_reduced_beams()
        with (
            closing(SharedValues.create("another")) as another,
            pytest.raises(ValueError, match="worker 1 is counted already"),
        ):
            workers.add(1, another, os.getpid())
        workers.retire(1)
        workers.retire(1)

    assert counts(metrics)["vip5_num_beams_reduced_total", frozenset()] == 3


def add_counter(workers: WorkerMetrics, number: int, value: float) -> None:
    """A worker that has counted one thing."""
    shared = SharedValues.create("worker")
    workers.add(number, shared, os.getpid())
    SharedValue(Appender(shared.descriptor), Key("counter", "vip5_a", "vip5_a_total", ())).inc(value)


def test_memory_and_descriptors_do_not_grow_with_the_workers_that_died() -> None:
    workers = WorkerMetrics()
    num_open = []
    for number in range(30):
        add_counter(workers, 1, 0.1 + number / 7)
        workers.retire(1)
        num_open.append(len(list(Path("/proc/self/fd").iterdir())))
    (total,) = workers._ended.values()

    assert len(set(num_open)) == 1, num_open
    assert len(total.parts) <= 3


def test_a_total_never_falls_when_workers_end() -> None:
    """Prometheus takes any fall of a counter for a restart from 0, even that of the last binary digit."""
    chance = random.Random(5)
    workers = WorkerMetrics()
    totals = []
    for number in range(60):
        add_counter(workers, number, chance.random() * 10 ** chance.randrange(-6, 6))
    for number in range(60):
        (family,) = workers.added_to([])
        totals.append(family.samples[0].value)
        workers.retire(number)

    assert len(set(totals)) == 1


@given(st.lists(st.floats(-1e300, 1e300), max_size=20))
def test_few_floats_hold_a_sum_exactly(values: list[float]) -> None:
    assert sum(map(Fraction, exact(values))) == sum(map(Fraction, values))


def test_a_sum_that_no_float_holds_is_infinite_and_one_without_meaning_is_no_number() -> None:
    assert exact([1e308, 1e308]) == [math.inf]
    assert math.isnan(rounded([math.inf, -math.inf]))


@pytest.mark.parametrize("newest", ["engine", "worker", "ended"])
def test_each_bucket_shows_the_newest_exemplar_of_any_process(newest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = WorkerMetrics()
    summed = engine(workers)
    processes: dict[str, AbstractContextManager[Metrics]] = {
        "engine": nullcontext(summed),
        "worker": added(workers, 1),
        "ended": added(workers, 2),
    }
    for name, process in processes.items():
        monkeypatch.setattr("time.time", lambda name=name: 2e9 if name == newest else 1e9)
        with process as metrics:
            metrics.observe_request("/recommend/sequential", "toys", 200, 0.2, f"{name:->32}")
    workers.retire(2)
    shown = [sample for sample in samples(summed, OPEN_METRICS) if sample.exemplar]

    assert [(sample.name, sample.labels["le"], sample.value) for sample in shown] == [(f"{LATENCY}_bucket", "0.25", 3)]
    assert shown[0].exemplar == Exemplar({"trace_id": f"{newest:->32}"}, 0.2, Timestamp(2_000_000_000, 0))


def test_a_histogram_that_a_worker_is_creating_is_not_shown_in_part() -> None:
    """The text formats require the bucket without an upper bound."""
    workers = WorkerMetrics()
    shared = SharedValues.create("worker-1")
    workers.add(1, shared, os.getpid())
    with metrics_in(shared) as metrics:
        metrics.observe_request("/recommend/sequential", "toys", 200, 0.2)
    whole = counts(engine(workers), OPEN_METRICS)
    is_last = [entry.key.sample.startswith(LATENCY) and ("le", "+Inf") in entry.key.labels for entry in shared._entries]
    del shared._entries[is_last.index(True)]
    partial = counts(engine(workers), OPEN_METRICS)

    assert any(name.startswith(LATENCY) for name, _ in whole)
    assert not any(name.startswith(LATENCY) for name, _ in partial)


def test_families_that_only_workers_have_are_shown() -> None:
    with closing(SharedValues.create("worker-1")) as shared:
        with metrics_in(shared) as metrics:
            metrics.count_reduced_beams()
        workers = WorkerMetrics()
        workers.add(1, shared, os.getpid())
        families = {family.name: family for family in workers.added_to([])}

    assert families["vip5_num_beams_reduced"].samples[0].value == 1


def test_gauges_are_the_engines() -> None:
    workers = WorkerMetrics()
    metrics = engine(workers)
    metrics.watch_workers(lambda: 2)
    metrics.count_worker_restart()
    with added(workers, 1) as worker:
        worker.set_bundle("toys", "of-the-worker")
    found = counts(metrics)

    assert found["vip5_workers", frozenset()] == 2
    assert found["vip5_worker_restarts_total", frozenset()] == 1
    assert not any(name == "vip5_bundle_info" for name, _ in found)
