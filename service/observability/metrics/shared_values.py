"""Values of prometheus_client that live in shared memory; on a worker's side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from mmap import ALLOCATIONGRANULARITY, mmap
from threading import Lock

from prometheus_client.samples import Exemplar
from prometheus_client.values import MutexValue

from service.observability.metrics.shared_layout import (
    END,
    SUFFIXES,
    WORD_BYTES,
    Key,
    Views,
    entry_words,
    write_entry,
    write_exemplar,
)


class Appender:
    """Appends values to the memory. If it is full, the memory grows and the growth is mapped besides."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._head = self._views = Views.of(mmap(descriptor, 0))
        self._first_word = 0  # that `_views` maps
        self._lock = Lock()

    def append(self, key: Key) -> tuple[Views, int, int]:
        """A new value of 0: its mapping, and the words of its entry and of its exemplars (0 if it takes none)."""
        content = key.encode()
        takes_exemplars = not key.sample.endswith("_sum")
        size = entry_words(content, takes_exemplars=takes_exemplars)
        with self._lock:
            at = self._room_for(size)
            write_entry(self._views, at, content, size)
            self._head.words[END] = self._first_word + at + size
            records_at = at + entry_words(content, takes_exemplars=False) if takes_exemplars else 0
            return self._views, at, records_at

    def _room_for(self, size: int) -> int:
        """The word of `_views` where `size` unused words begin."""
        at: int = self._head.words[END] - self._first_word
        num_left = len(self._views.words) - at
        if size <= num_left:
            return at
        if num_left:
            self._views.words[at] = num_left  # padding; seen with the entry behind it
        self._grow(size)
        return 0

    def _grow(self, size: int) -> None:
        """Double the memory, or more if an entry of `size` words needs it."""
        before = os.fstat(self._descriptor).st_size
        needed = -(-size * WORD_BYTES // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY
        added = max(before, needed)
        os.ftruncate(self._descriptor, before + added)
        self._views = Views.of(mmap(self._descriptor, added, offset=before))
        self._first_word = before // WORD_BYTES


class SharedValue:
    """Stands in for prometheus_client's MutexValue: each change is one store into the shared memory."""

    __slots__ = ("_at", "_doubles", "_entry_at", "_exemplar", "_lock", "_records_at", "_value", "_views")

    _multiprocess = False

    def __init__(self, appender: Appender, key: Key) -> None:
        self._views, self._entry_at, self._records_at = appender.append(key)
        self._doubles = self._views.doubles
        self._at = self._entry_at + 2
        self._value = 0.0
        self._exemplar: Exemplar | None = None
        self._lock = Lock()

    def inc(self, amount: float) -> None:
        with self._lock:
            self._value = self._doubles[self._at] = self._value + amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  # the library's signature
        with self._lock:
            self._value = self._doubles[self._at] = value

    def get(self) -> float:
        return self._value

    def set_exemplar(self, exemplar: Exemplar) -> None:
        with self._lock:
            self._exemplar = exemplar
            if self._records_at:
                write_exemplar(self._views, self._entry_at, self._records_at, exemplar)

    def get_exemplar(self) -> Exemplar | None:
        return self._exemplar


class SharedValueClass:
    """What prometheus_client calls to make a value. Gauges stay in the process: there is no sum of them."""

    _multiprocess = False

    def __init__(self, appender: Appender) -> None:
        self._appender = appender

    def __call__(
        self,
        kind: str,
        family: str,
        sample: str,
        label_names: Sequence[str],
        label_values: Sequence[str],
        help_text: str,
        **options: str,
    ) -> SharedValue | MutexValue:
        if kind not in SUFFIXES:
            return MutexValue(kind, family, sample, label_names, label_values, help_text, **options)  # type: ignore[no-untyped-call]
        labels = tuple(sorted(zip(label_names, label_values, strict=True)))
        return SharedValue(self._appender, Key(kind, family, sample, labels))
