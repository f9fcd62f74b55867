"""The interface of engines, and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.decoding.leaf_boosts import BoostTable
from model.decoding.trie import Trie
from model.engine.plans import RankingPlan, ScoringPlan, TextPlan
from model.network.config import DomainLayout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best items found, best first: k of them, or fewer if fewer are eligible.

    Scores are sums of log-probabilities over the full vocabulary, `</s>` included, divided by length^length_penalty;
    for scored candidates they are P(yes) / (P(yes) + P(no)). The first `exact_prefix` items are proven to be the true
    top of the eligible items under the model.
    """

    leaves: NDArray[np.int64]  # [R], R <= k
    scores: NDArray[np.float64]  # [R]
    exact_prefix: int
    num_beams: int  # of the search that found them; 0 if candidates were scored
    boosted: NDArray[np.float64] | None = None
    """[R], what the items are ordered by: scores with boosts; None without boosts."""
    is_short: bool = False
    """Whether limits left fewer than k items, and the search did not find all eligible ones."""


LogProbs: TypeAlias = tuple[tuple[float, ...], ...]
"""Log-probabilities [P, number of targets] of a scoring plan's P prompts."""

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class GeneratedText:
    """Tokens of one generated text, without the start token and `</s>`."""

    token_ids: tuple[int, ...]
    score: float  # sum of log-probabilities; with several beams, divided by the length
    finish_reason: FinishReason


@dataclass(frozen=True)
class Timings:
    """Seconds of a batch in the encoder and in the decoder or search."""

    encode_s: float = 0.0
    decode_s: float = 0.0

    def __add__(self, other: Timings) -> Timings:
        return Timings(self.encode_s + other.encode_s, self.decode_s + other.decode_s)


@dataclass(frozen=True, eq=False)
class Placement:
    """A domain as an engine needs it."""

    layout: DomainLayout
    weights: Mapping[str, Tensor]  # by checkpoint name, layer norms included
    trie: Trie


@dataclass(frozen=True)
class TextProgress:
    """Effect of one step on one text of a session."""

    row: int
    token_id: int | None = None  # None for `</s>`, and for texts with several beams
    finished: GeneratedText | None = None  # the text has ended and its row is free
    failure: Exception | None = None  # a search with several beams failed; its row is free


class TextSession(Protocol):
    """Texts that are generated side by side (continuous batching): texts join and leave between steps.

    A text does not depend on the others in its batch. Used from one thread.
    """

    @property
    def num_free(self) -> int:
        """Number of free rows."""
        ...

    def admit(self, plans: Sequence[TextPlan]) -> list[int]:
        """Encode prompts and give each text a row. Raises ValueError for more plans than free rows.

        If it fails with another error, no plan has been admitted.
        """
        ...

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        """The next token of each one-beam text, and one step of the oldest search with several beams.

        `rows` restricts the step to these rows, of which the oldest search begins when none is under way. A search
        reports progress only when it ends. If a step fails, no text has changed; it may be repeated for fewer rows.
        """
        ...

    def cancel(self, row: int) -> GeneratedText:
        """Stop a text and free its row; returns the text so far."""
        ...


class Engine(Protocol):
    """Runs batches that may mix domains.

    Different methods may be called from different threads at once, the same method from one thread at a time.
    """

    @property
    def num_slots(self) -> int:
        """Number of slots, free ones included."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether log-probabilities are those of float32, so that rankings by them are proven.

        Certified searches of an engine that is not exact prove nothing and are not widened.
        """
        ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot while other slots are in use; replaces the slot's previous domain.

        A slot beyond the last, or a layout wider than the banks, enlarges the banks. The caller ensures that no plan
        for the slot is waiting or running.
        """
        ...

    def vacate(self, slot: int) -> None:
        """Free a slot and its memory."""
        ...

    def expect_boosts(self, tables: Sequence[BoostTable]) -> None:
        """Get ready for searches with these boosts, while nothing else runs. Others work all the same."""
        ...

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        """One search per plan, in order. Certified plans may need further, wider searches, see `widened`."""
        ...

    def widened(self, plan: RankingPlan, ranking: Ranking) -> RankingPlan | None:
        """The next plan to prove a certified plan's ranking; None if it is proven or cannot be widened further."""
        ...

    def score(self, batch: Sequence[ScoringPlan]) -> tuple[list[LogProbs], Timings]:
        """Log-probability of every target of every prompt, in order."""
        ...

    def open_texts(self, num_rows: int) -> TextSession:
        """Open a session with `num_rows` rows."""
        ...
