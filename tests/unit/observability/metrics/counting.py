"""Workers that count: processes of their own, or metrics in this process that share memory as a worker's do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from prometheus_client import values
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from service.observability.metrics import Metrics
from service.observability.metrics.shared import SharedValues
from service.observability.metrics.summed import WorkerMetrics

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
Call = tuple[str, Sequence[object]]
"""A method of Metrics, and its arguments."""

WORKER = """
import json, sys
from service.observability.metrics import Metrics
from service.observability.metrics.shared import SharedValues
SharedValues.open(int(sys.argv[1])).install()
metrics = Metrics()
print("ready", flush=True)
for line in sys.stdin:
    for name, arguments in json.loads(line):
        getattr(metrics, name)(*arguments)
    print("done", flush=True)
"""


@dataclass
class CountingWorker:
    """A process that counts what it is told to."""

    process: subprocess.Popen[str]
    shared: SharedValues

    def count(self, calls: Sequence[Call]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(calls) + "\n")
        self.process.stdin.flush()
        self.await_line()

    def await_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def counting_worker(shared: SharedValues, code: str = WORKER) -> Iterator[CountingWorker]:
    """A worker that shares memory with this process; killed at the end."""
    command = [sys.executable, "-c", code, str(shared.descriptor)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[shared.descriptor]
    ) as process:
        worker = CountingWorker(process, shared)
        try:
            assert worker.await_line() == "ready\n"
            yield worker
        finally:
            worker.kill()


@contextmanager
def metrics_in(shared: SharedValues) -> Iterator[Metrics]:
    """Metrics in this process; what they count in the context lives in `shared`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.ValueClass)
        shared.install()
        yield Metrics()


def call(metrics: Metrics, calls: Sequence[Call]) -> None:
    for name, arguments in calls:
        getattr(metrics, name)(*arguments)


def engine(workers: WorkerMetrics) -> Metrics:
    metrics = Metrics()
    metrics.include(workers)
    return metrics


def samples(metrics: Metrics, accept: str = "") -> list[Sample]:
    """The service's own samples in the order of the text; parsing OpenMetrics checks that order."""
    text = metrics.render(accept).content.decode()
    parse = parse_open_metrics if accept else parse_text
    return [sample for family in parse(text) for sample in family.samples if family.name.startswith("vip5_")]


def counts(metrics: Metrics, accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = samples(metrics, accept)
    by_series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(by_series) == len(found), "a series appears twice"
    return by_series
