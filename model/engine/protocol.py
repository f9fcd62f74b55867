"""What an engine does with plans, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.trie import Trie
from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.network.config import DomainLayout


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best items found, best first.

    At most k of them, fewer if fewer are eligible. Scores are sums of log-probabilities over the full vocabulary,
    `</s>` included, divided by length^length_penalty; for a plan that scores candidates, P(yes) / (P(yes) + P(no)). The
    first `exact_prefix` items are proven to be the true top of everything eligible, under the model.
    """

    leaves: NDArray[np.int64]  # [R], R <= k
    scores: NDArray[np.float64]  # [R]
    exact_prefix: int
    num_beams: int  # of the search that found them; 0 where none was needed


LogProbs: TypeAlias = tuple[tuple[float, ...], ...]
"""Log-probabilities [P, number of targets] of a scoring plan."""

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class GeneratedText:
    """Tokens of one generated text, without the start token and `</s>`."""

    token_ids: tuple[int, ...]
    score: float  # sum of log-probabilities; with several beams divided by the length
    finish_reason: FinishReason


@dataclass(frozen=True)
class Timings:
    """Seconds that a batch spent on the device."""

    encode_s: float = 0.0
    decode_s: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        return Timings(self.encode_s + other.encode_s, self.decode_s + other.decode_s)


@dataclass(frozen=True, eq=False)
class Placement:
    """One version of a domain as an engine needs it."""

    layout: DomainLayout
    weights: Mapping[str, Tensor]  # under the names of checkpoints, layer norms included
    trie: Trie


@dataclass(frozen=True)
class TextProgress:
    """What one step did to one text of a session."""

    row: int
    token_id: int | None = None  # None where `</s>` came, and for texts that are searched with several beams
    finished: GeneratedText | None = None  # the row is free again
    failure: Exception | None = None  # a search failed; its row is free again, the other texts are untouched


class TextSession(Protocol):
    """Texts that are generated side by side: each may begin and end between any two steps of the others.

    No text depends on which others run beside it. Used from one thread.
    """

    @property
    def num_free(self) -> int:
        """How many more texts may join."""
        ...

    def admit(self, plans: Sequence[TextPlan]) -> list[int]:
        """Encode prompts and give each text a row. Raises ValueError for more plans than there are free rows.

        If it fails for another reason, no plan has been admitted.
        """
        ...

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        """One more token of each one-beam text, or of those at `rows`; one step of the oldest search of several beams.

        A search reports when it ends. If a step fails, nothing has changed; it may be repeated for fewer rows.
        """
        ...

    def cancel(self, row: int) -> GeneratedText:
        """Stop generating a text and free its row; returns the text so far."""
        ...


class Engine(Protocol):
    """Runs batches that mix domains freely.

    Each method may be called from one thread at a time; different methods from different threads.
    """

    @property
    def num_slots(self) -> int:
        """How many slots there are, free ones included."""
        ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot while the others keep answering; what the slot held before is gone.

        A slot beyond the last, or a layout wider than the banks, makes more room. The caller ensures that the slot is
        free: no plan for it waits or runs.
        """
        ...

    def vacate(self, slot: int) -> None:
        """Free a slot and release what it held."""
        ...

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        """One search per plan, in order; certified ones may come out unproven (see `widened`)."""
        ...

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        """What to search next to prove a certified plan's ranking; None where it is proven or at its limit."""
        ...

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        """Log-probability of every target of every prompt, in order."""
        ...

    def open_texts(self, num_rows: int) -> TextSession:
        """A session with room for `num_rows` texts that are generated side by side, step by step."""
        ...
