"""Rows for lanes whose engine is a function of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from model.engine.protocol import EncoderInput, OnToken, TextWork, Timings
from model.prompts.prompt import Prompt

T = TypeVar("T")

NO_TIME = Timings(encode_s=0.0, decode_s=0.0)


def work(name: int, num_tokens: int = 1) -> TextWork:
    """A row of so many tokens; `name` comes back in `name_of`."""
    ids = np.zeros(num_tokens, dtype=np.int64)
    prompt = Prompt(ids, ids, ids, image_items=(), num_tokens_untruncated=num_tokens)
    features = np.zeros((0, 4), dtype=np.float32)
    return TextWork(EncoderInput(slot=0, task="explanation", prompt=prompt, features=features), max_new_tokens=name)


def name_of(row: TextWork) -> int:
    return row.max_new_tokens


class GatedEngine:
    """Gives each row's name back, but holds every batch until the gate is open; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.poison: Callable[[int], bool] = lambda _: False

    def run(self, rows: Sequence[TextWork], on_token: OnToken, /) -> tuple[list[int], Timings]:
        names = [name_of(row) for row in rows]
        self.batches.append(names)
        self.entered.release()
        assert self.gate.wait(timeout=30)
        if any(self.poison(name) for name in names):
            raise RuntimeError(f"poisoned: {names}")
        return names, NO_TIME

    async def wait_entered(self) -> None:
        """Wait until one more batch has reached the engine."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)
