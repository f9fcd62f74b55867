"""Plans for lanes whose engine is a function of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from model.decoding.eligibility import Eligibility, LeafMask
from model.decoding.leaf_boosts import BoostTable
from model.engine.plans import AttributionPlan, Plan, RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText, LogProbs, Placement, Ranking, TextProgress, TextSession, Timings
from model.prompts.prompt import Prompt
from tests.plans import plan_of, plan_to

TIME = Timings(encode_s=0.25, decode_s=0.5)


def search_named(name: int, num_tokens: int = 1) -> RankingPlan:
    """A search for a prompt of so many tokens; its engine finds the leaf `name`."""
    anything = Eligibility.of(LeafMask.of(np.ones(1, dtype=np.bool_)))
    return plan_to(RankingPlan, _prompts(1, num_tokens), eligibility=anything, k=name, num_beams=1)


def scores_named(names: Sequence[int], num_tokens: int = 1) -> ScoringPlan:
    """A prompt of so many tokens about each of the leaves."""
    plan = _prompts(len(names), num_tokens)
    return plan_to(ScoringPlan, plan, targets=((1,), (2,)), leaves=tuple(names), k=len(names))


def attribution_named(names: Sequence[int], num_tokens: int = 1) -> AttributionPlan:
    """Prompts of so many tokens with these numbers."""
    plan = _prompts(len(names), num_tokens)
    return plan_to(AttributionPlan, plan, targets=((1,), (2,)), leaves=tuple(names))


def text_named(name: int, num_tokens: int = 1) -> TextPlan:
    """A text of `name` tokens, for a prompt of `num_tokens`."""
    return plan_to(TextPlan, _prompts(1, num_tokens), max_new_tokens=name)


def name_of(ranking: Ranking) -> int:
    (name,) = ranking.leaves.tolist()
    return int(name)


def _prompts(num_prompts: int, num_tokens: int) -> Plan:
    ids = np.zeros(num_tokens, dtype=np.int64)
    prompt = Prompt(ids, ids, ids, image_items=(), num_tokens_untruncated=num_tokens)
    return replace(plan_of(prompt), prompts=(prompt,) * num_prompts)


class Gate:
    """Blocks threads until it is opened, and counts those that have arrived."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def pass_through(self) -> None:
        self.entered.release()
        assert self.gate.wait(timeout=30)

    async def wait_entered(self) -> None:
        """Wait until one more thread has arrived."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


class GatedEngine(Gate):
    """Finds the leaf that each plan is named after; batches wait at the gate and are recorded."""

    num_slots = 1
    is_exact = True

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.poison: Callable[[int], bool] = lambda _: False
        self.most_rows = 1000
        self.wider: dict[int, int] = {}
        """Name of the wider search, by the name of a search."""
        self.loses_results = False
        self.unreadable: set[int] = set()
        """Names of plans whose results cannot be read."""

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        names = [plan.k for plan in batch]
        self._run(names)
        found = [Ranking(np.array([name]), np.zeros(1), exact_prefix=1, num_beams=1) for name in names]
        return [] if self.loses_results else found, TIME

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        if name_of(ranking) in self.unreadable:
            raise LookupError(f"no trie for {name_of(ranking)}")
        wider = self.wider.get(name_of(ranking))
        return None if wider is None else replace(plan, k=wider)

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        self._run([name for plan in batch for name in plan.leaves])
        num_lost = [len(self.unreadable.intersection(plan.leaves)) for plan in batch]
        return [((0.0, 0.0),) * (len(plan.prompts) - lost) for plan, lost in zip(batch, num_lost, strict=True)], TIME

    def open_texts(self, num_rows: int) -> TextSession:
        raise NotImplementedError

    def place(self, slot: int, placement: Placement) -> None:
        raise NotImplementedError

    def vacate(self, slot: int) -> None:
        raise NotImplementedError

    def expect_boosts(self, tables: Sequence[BoostTable]) -> None:
        raise NotImplementedError

    def _run(self, names: list[int]) -> None:
        self.batches.append(names)
        self.pass_through()
        if len(names) > self.most_rows:
            raise MemoryError(f"{len(names)} rows")
        if any(self.poison(name) for name in names):
            raise RuntimeError(f"poisoned: {names}")


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

    def admit(self, plans: Sequence[TextPlan]) -> list[int]:
        names = [plan.max_new_tokens for plan in plans]
        self.admitted.append(names)
        if self._rows and len(names) > self.most_admitted:
            raise MemoryError(f"{len(names)} prompts")
        if self.bad_prompts & set(names):
            raise RuntimeError("a bad prompt")
        rows = [row for row in range(self._num_rows) if row not in self._rows][: len(plans)]
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
