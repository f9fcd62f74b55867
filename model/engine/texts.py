"""Text sessions: one-beam texts advance together, one token per step; searches with several beams run in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.decoding.beams import SpecialIds
from model.decoding.text import BeamOptions, Hypothesis, RunningText, Sampling, TextSearch, step_texts
from model.engine.executor import EncodedBatch, Executor
from model.engine.plans import TextPlan
from model.engine.protocol import FinishReason, GeneratedText, TextProgress


@dataclass(frozen=True)
class _WaitingSearch:
    plan: TextPlan
    encoded: EncodedBatch


class DecodingTextSession:
    """A TextSession over an executor. A text occupies a row from its admission until it ends or is cancelled.

    Only the oldest search with several beams runs, so that only its beams take memory and other texts wait for at most
    one of its steps.
    """

    def __init__(self, executor: Executor, num_rows: int, special: SpecialIds) -> None:
        self._executor = executor
        self._stepper = executor.row_stepper()
        self._special = special
        self._free = list(range(num_rows))
        self._texts: dict[int, RunningText] = {}
        self._searches: dict[int, _WaitingSearch] = {}  # in the order of admission
        self._running: tuple[int, TextSearch] | None = None

    @property
    def num_free(self) -> int:
        return len(self._free)

    def admit(self, plans: Sequence[TextPlan]) -> list[int]:
        if len(plans) > len(self._free):
            raise ValueError(f"{len(plans)} plans for {len(self._free)} free rows; admit no more than num_free")
        with self._executor.computing():
            return self._admit(plans)

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        with self._executor.computing():
            return self._step(rows)

    def cancel(self, row: int) -> GeneratedText:
        if row in self._searches:
            self._end_search(row)
            return GeneratedText(token_ids=(), score=0.0, finish_reason="cancelled")
        hypothesis = self._texts[row].hypothesis
        self._end_text(row)
        return _generated(hypothesis, "cancelled")

    def _admit(self, plans: Sequence[TextPlan]) -> list[int]:
        rows = self._free[: len(plans)]
        searched = {row: plan for row, plan in zip(rows, plans, strict=True) if plan.num_beams > 1}
        one_beam = {row: plan for row, plan in zip(rows, plans, strict=True) if plan.num_beams == 1}
        searches = {row: _WaitingSearch(plan, self._executor.encode([plan])) for row, plan in searched.items()}
        if one_beam:
            self._stepper.admit(list(one_beam), list(one_beam.values()))
        self._searches |= searches
        self._texts |= {row: self._started(plan) for row, plan in one_beam.items()}
        self._free = self._free[len(plans) :]
        return rows

    def _step(self, rows: Sequence[int] | None) -> list[TextProgress]:
        texts = self._texts if rows is None else {row: self._texts[row] for row in rows if row in self._texts}
        tokens = step_texts(self._stepper, texts, self._executor.device) if texts else {}
        progress = [TextProgress(row, token, self._finished(row)) for row, token in tokens.items()]
        search = self._next_search(rows)
        if search is not None and (rows is None or search in rows):
            progress += self._step_one_search(search)
        return progress

    def _next_search(self, rows: Sequence[int] | None) -> int | None:
        """The search that is under way, or else the oldest."""
        if self._running is not None:
            return self._running[0]
        return next((row for row in self._searches if rows is None or row in rows), None)

    def _started(self, plan: TextPlan) -> RunningText:
        sampling = Sampling(temperature=plan.temperature, top_p=plan.top_p, seed=plan.seed)
        return RunningText(sampling, plan.max_new_tokens, self._special)

    def _finished(self, row: int) -> GeneratedText | None:
        text = self._texts[row]
        if not text.has_ended:
            return None
        self._end_text(row)
        return _generated(text.hypothesis, "stop" if text.hypothesis.is_complete else "length")

    def _end_text(self, row: int) -> None:
        del self._texts[row]
        self._stepper.release(row)
        self._give_back(row)

    def _step_one_search(self, row: int) -> list[TextProgress]:
        try:
            best = self._step_search(row, self._searches[row])
        except Exception as error:  # noqa: BLE001  # the one-beam texts have already taken their step
            self._end_search(row)
            return [TextProgress(row, failure=error)]
        if best is None:
            return []
        self._end_search(row)
        return [TextProgress(row, finished=_generated(best, "stop" if best.is_complete else "length"))]

    def _step_search(self, row: int, waiting: _WaitingSearch) -> Hypothesis | None:
        """Take a step; returns the best text if the search has ended."""
        if self._running is None:
            self._running = row, self._search(waiting)
        _, search = self._running
        search.step()
        if not search.has_ended:
            return None
        return search.ranked()[0]

    def _search(self, waiting: _WaitingSearch) -> TextSearch:
        plan = waiting.plan
        stepper = waiting.encoded.stepper(num_beams=plan.num_beams, max_length=plan.max_new_tokens)
        options = BeamOptions(num_beams=plan.num_beams, max_new_tokens=plan.max_new_tokens)
        return TextSearch(stepper, options, self._special, self._executor.device)

    def _end_search(self, row: int) -> None:
        del self._searches[row]
        if self._running is not None and self._running[0] == row:
            self._running = None
        self._give_back(row)

    def _give_back(self, row: int) -> None:
        # Rows are given out lowest first, so that the rows in use are contiguous.
        self._free = sorted([*self._free, row])


def _generated(hypothesis: Hypothesis, reason: FinishReason) -> GeneratedText:
    return GeneratedText(hypothesis.token_ids, hypothesis.score, finish_reason=reason)
