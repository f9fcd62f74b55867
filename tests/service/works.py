"""Rows for lanes whose engine is a function of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np

from model.engine.protocol import EncoderInput, GeneratedText, TextProgress, TextWork, Timings
from model.prompts.prompt import Prompt

NO_TIME = Timings(encode_s=0.0, decode_s=0.0)


def work(name: int, num_tokens: int = 1) -> TextWork:
    """A row of so many tokens; `name` comes back in `name_of`. As a text it is `name` tokens long."""
    ids = np.zeros(num_tokens, dtype=np.int64)
    prompt = Prompt(ids, ids, ids, image_items=(), num_tokens_untruncated=num_tokens)
    features = np.zeros((0, 4), dtype=np.float32)
    return TextWork(EncoderInput(slot=0, task="explanation", prompt=prompt, features=features), max_new_tokens=name)


def name_of(row: TextWork) -> int:
    return row.max_new_tokens


class Gate:
    """Holds whoever passes until it is open, and tells who came."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def pass_through(self) -> None:
        self.entered.release()
        assert self.gate.wait(timeout=30)

    async def wait_entered(self) -> None:
        """Wait until one more has come to the gate."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


class GatedEngine(Gate):
    """Gives each row's name back, but holds every batch until the gate is open; remembers the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.poison: Callable[[int], bool] = lambda _: False
        self.most_rows = 1000

    def run(self, rows: Sequence[TextWork]) -> tuple[list[int], Timings]:
        names = [name_of(row) for row in rows]
        self.batches.append(names)
        self.pass_through()
        if len(rows) > self.most_rows:
            raise MemoryError(f"{len(rows)} rows")
        if any(self.poison(name) for name in names):
            raise RuntimeError(f"poisoned: {names}")
        return names, NO_TIME


class GatedTexts:
    """A session whose texts are as many tokens long as their names say, each token the name; steps wait at the gate."""

    def __init__(self, num_rows: int) -> None:
        self.steps = Gate()
        self.admitted: list[list[int]] = []
        self.stepped: list[list[int]] = []  # names of the texts of each step
        self.cancelled: list[int] = []
        self.bad_prompts: set[int] = set()
        self.bad_texts: set[int] = set()
        self.most_admitted = self.most_stepped = 1000
        self._rows: dict[int, tuple[int, int]] = {}  # name and tokens so far
        self._num_rows = num_rows

    @property
    def num_free(self) -> int:
        return self._num_rows - len(self._rows)

    def admit(self, works: Sequence[TextWork]) -> list[int]:
        names = [name_of(each) for each in works]
        self.admitted.append(names)
        if self._rows and len(names) > self.most_admitted:
            raise MemoryError(f"{len(names)} prompts")
        if self.bad_prompts & set(names):
            raise RuntimeError("a bad prompt")
        rows = [row for row in range(self._num_rows) if row not in self._rows][: len(works)]
        self._rows |= {row: (name, 0) for row, name in zip(rows, names, strict=True)}
        return rows

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        rows = sorted(self._rows) if rows is None else rows
        names = [self._rows[row][0] for row in rows]
        self.steps.pass_through()
        if len(rows) > self.most_stepped:
            raise MemoryError(f"{len(rows)} texts")
        if self.bad_texts & set(names):
            raise RuntimeError("a bad text")
        self.stepped.append(names)
        return [self._advanced(row) for row in rows]

    def cancel(self, row: int) -> GeneratedText:
        name, length = self._rows.pop(row)
        self.cancelled.append(name)
        return GeneratedText((name,) * length, 0.0, "cancelled")

    def _advanced(self, row: int) -> TextProgress:
        name, length = self._rows[row]
        self._rows[row] = name, length + 1
        if length + 1 < name:
            return TextProgress(row, name)
        del self._rows[row]
        return TextProgress(row, name, GeneratedText((name,) * name, 0.0, "length"))
