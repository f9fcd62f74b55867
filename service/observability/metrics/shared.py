"""A worker's counters and histograms in memory that outlives it: the worker writes, the engine reads."""

from __future__ import annotations

import fcntl
import logging
import math
import os
from dataclasses import dataclass
from mmap import ALLOCATIONGRANULARITY, mmap

from prometheus_client import values
from prometheus_client.samples import Exemplar

from service.observability.metrics.shared_layout import (
    END,
    FIRST_ENTRY,
    MAGIC,
    WORD_BYTES,
    Entry,
    Key,
    Views,
    read_entry,
    read_exemplar,
)
from service.observability.metrics.shared_values import Appender, SharedValueClass

logger = logging.getLogger(__name__)

INITIAL_BYTES = 1 << 20
"""Some 3,000 values. Memory that holds no value yet costs nothing."""


@dataclass(frozen=True)
class Reading:
    """A value at the time of reading."""

    key: Key
    value: float
    exemplar: Exemplar | None


class SharedValues:
    """Memory without a name in the file system, which is passed to a worker as a file descriptor.

    The engine calls `create`, starts the worker with `pass_fds=[shared.descriptor]`, and reads. The worker calls `open`
    with that descriptor and `install`. Nothing locks: a worker that is killed leaves what it has counted.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._views = Views.of(mmap(descriptor, 0))
        self._entries: list[Entry] = []
        self._parsed_to = FIRST_ENTRY
        self._is_damaged = False

    @classmethod
    def create(cls, name: str, num_bytes: int = INITIAL_BYTES) -> SharedValues:
        """New memory of at least `num_bytes`. It can grow and cannot shrink, so reading cannot fault."""
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, -(-num_bytes // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        shared = cls(descriptor)
        shared._views.words[END] = FIRST_ENTRY
        shared._views.words[0] = MAGIC
        return shared

    @classmethod
    def open(cls, descriptor: int) -> SharedValues:
        """Memory that this process was given by the one that started it; it is not passed on to others.

        Raises ValueError if the descriptor is of anything else.
        """
        if os.fstat(descriptor).st_size < FIRST_ENTRY * WORD_BYTES:
            raise ValueError(f"file descriptor {descriptor} is not the memory of metrics")
        shared = cls(descriptor)
        if shared._views.words[0] != MAGIC:
            raise ValueError(f"file descriptor {descriptor} is not the memory of metrics")
        os.set_inheritable(descriptor, False)  # noqa: FBT003  # takes no keyword
        return shared

    def install(self) -> None:
        """Keep the counters and histograms that are created from now on in this memory: call it before Metrics()."""
        values.ValueClass = SharedValueClass(Appender(self.descriptor))

    def read(self) -> list[Reading]:
        """All values. What is damaged is left out, with one warning in the log."""
        self._follow()
        return [
            Reading(entry.key, value, self._exemplar(entry))
            for entry in self._entries
            if math.isfinite(value := self._views.doubles[entry.at + 2])
        ]

    def close(self) -> None:
        """Give the memory and the descriptor back."""
        self._views.close()
        os.close(self.descriptor)

    def _follow(self) -> None:
        """Note the entries that were added since the last time."""
        end = self._views.words[END]
        size = os.fstat(self.descriptor).st_size  # asked after `end`, so that it covers it
        if size > len(self._views.bytes):
            self._views.close()
            self._views = Views.of(mmap(self.descriptor, 0))
        if self._views.words[0] != MAGIC or end > len(self._views.words):
            self._warn("the head of the memory is damaged")
            return
        try:
            while self._parsed_to < end:
                self._parsed_to, entry = read_entry(self._views, self._parsed_to, end)
                if entry is not None:
                    self._entries.append(entry)
        except ValueError as error:
            self._warn(str(error))

    def _exemplar(self, entry: Entry) -> Exemplar | None:
        if not entry.records_at:
            return None
        try:
            return read_exemplar(self._views, entry.at, entry.records_at)
        except ValueError as error:
            self._warn(str(error))
            return None

    def _warn(self, reason: str) -> None:
        if not self._is_damaged:
            self._is_damaged = True
            logger.warning("worker_metrics_damaged", extra={"reason": reason})
