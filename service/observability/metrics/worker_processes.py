"""Processor time, memory and open files of several processes in the `process_*` metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric, ProcessCollector

CPU = "process_cpu_seconds"
SUMMED = (CPU, "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds")
"""The others, start time and limit of open files, are the engine's."""


class WorkerProcess:
    """A worker's share of the `process_*` metrics."""

    def __init__(self, pid: int) -> None:
        self._collector = ProcessCollector(pid=lambda: pid, registry=None)
        self.cpu_s = 0.0
        """Processor time at the last reading; it outlives the process."""

    def read(self) -> dict[str, float]:
        """Values by family; processor time only if the process is gone."""
        found = {family.name: family.samples[0].value for family in self._collector.collect()}
        self.cpu_s = found[CPU] = max(self.cpu_s, found.get(CPU, 0.0))
        return found


def add_processes(own: Metric, others: Iterable[dict[str, float]]) -> None:
    """Add other processes' values to a family of this process."""
    if own.name in SUMMED and own.samples:
        total = own.samples[0].value + sum(each.get(own.name, 0.0) for each in others)
        own.samples = [own.samples[0]._replace(value=total)]
