"""The metrics of the whole service: the engine's own, and what its workers have counted, dead ones too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

from prometheus_client import Metric
from prometheus_client.registry import Collector

from service.observability.metrics.series import Total, Totals, add_readings, series_of, summed
from service.observability.metrics.shared import SharedValues
from service.observability.metrics.worker_processes import CPU, WorkerProcess, add_processes


@dataclass(frozen=True)
class _Worker:
    shared: SharedValues
    process: WorkerProcess


class WorkerMetrics:
    """What the workers have counted. Workers have numbers, which the engine may give again to their successors.

    What ended workers counted is kept as one total for each series, so that memory does not grow with their number.
    Methods may be called on any thread.
    """

    def __init__(self) -> None:
        self._live: dict[int, _Worker] = {}
        self._ended: Totals = {}
        self._ended_cpu_s = 0.0
        self._lock = Lock()

    def add(self, worker: int, shared: SharedValues, pid: int) -> None:
        """Count a worker that was started. Raises ValueError if its predecessor has not been retired."""
        with self._lock:
            if worker in self._live:
                raise ValueError(f"worker {worker} is counted already; retire it first")
            self._live[worker] = _Worker(shared, WorkerProcess(pid))

    def retire(self, worker: int, cpu_s: float | None = None) -> None:
        """Keep what a worker has counted, and close its memory. Call it once the process is reaped.

        `cpu_s`, from its resource usage, is its processor time; without it, that of the last scrape counts. Does
        nothing if the worker is not counted.
        """
        with self._lock:
            ended = self._live.pop(worker, None)
            if ended is None:
                return
            add_readings(self._ended, ended.shared.read())
            for total in self._ended.values():
                total.merge()
            self._ended_cpu_s += max(ended.process.cpu_s, cpu_s or 0.0)
            ended.shared.close()

    def added_to(self, own: Iterable[Metric]) -> Iterator[Metric]:
        """The engine's families with the workers' counts added; its gauges stay as they are.

        Families that only workers have come last, without help.
        """
        with self._lock:
            totals = {key: Total([*total.parts], total.exemplar) for key, total in self._ended.items()}
            for worker in self._live.values():
                add_readings(totals, worker.shared.read())
            processes = [{CPU: self._ended_cpu_s}, *(worker.process.read() for worker in self._live.values())]
        counted: dict[tuple[str, str], Totals] = defaultdict(dict)
        for key, total in totals.items():
            counted[key.type, key.family][key] = total
        for family in own:
            add_processes(family, processes)
            if theirs := counted.pop((family.type, family.name), None):
                family.samples = summed(family.samples, series_of(theirs))
            yield family
        for (kind, name), theirs in counted.items():
            family = Metric(name, "", kind)
            family.samples = summed([], series_of(theirs))
            yield family


class WithWorkers(Collector):
    """A registry whose families include the workers' counts."""

    def __init__(self, own: Collector, workers: WorkerMetrics) -> None:
        self._own = own
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        return self._workers.added_to(self._own.collect())
