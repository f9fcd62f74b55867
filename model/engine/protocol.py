"""What an engine is given and what it gives back.

An engine knows domains by slot and items by leaf: it never sees a text, an item's id or a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.decoding.eligibility import Eligibility
from model.decoding.trie import Trie
from model.network.config import DomainLayout, Task
from model.prompts.prompt import Prompt


@dataclass(frozen=True)
class EncoderInput:
    """A prompt with its image features, and the weights that are to read it."""

    slot: int  # the domain's place in the engine's banks
    task: Task
    prompt: Prompt
    features: NDArray[np.float32]  # [I, D], one row per image of the prompt; zero where an image is missing


@dataclass(frozen=True)
class RankingWork:
    """Find the k best items of a catalog for one prompt."""

    source: EncoderInput
    eligibility: Eligibility
    k: int
    num_beams: int
    length_penalty: float = 0.0
    certified: bool = False


@dataclass(frozen=True)
class Ranking:
    """The best items found, best first.

    At most k of them, fewer if fewer are eligible. Scores are sums of log-probabilities over the full vocabulary,
    `</s>` included, divided by length^length_penalty. The first `exact_prefix` items are proven to be the true top of
    everything eligible, under the model.
    """

    leaves: NDArray[np.int64]  # [R], R <= k
    scores: NDArray[np.float64]  # [R]
    exact_prefix: int
    num_beams: int  # beams that the answer was found with


@dataclass(frozen=True)
class ScoringWork:
    """Log-probability of given continuations of one prompt (yes / no)."""

    source: EncoderInput
    targets: tuple[tuple[int, ...], ...]  # token ids, `</s>` included; at least one each


@dataclass(frozen=True)
class TextWork:
    """Generate text for one prompt.

    One beam: greedy at temperature 0, else drawn from the softmax at that temperature among the smallest set of tokens
    that holds `top_p` of the mass. Several beams: the library's beam search, temperature is not used.
    """

    source: EncoderInput
    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class GeneratedText:
    """Tokens of one generated text, without the start token and `</s>`."""

    token_ids: tuple[int, ...]
    score: float  # sum of log-probabilities / length^length_penalty
    finish_reason: FinishReason


@dataclass(frozen=True)
class Timings:
    """Seconds that a batch spent on the device."""

    encode_s: float
    decode_s: float


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
    finished: GeneratedText | None = None  # with it the row is free again
    failure: Exception | None = None  # a search failed; its row is free again, and no other text is touched


class TextSession(Protocol):
    """Texts that are generated side by side: each may begin and end between any two steps of the others.

    No text depends on which others run beside it. Used from one thread.
    """

    @property
    def num_free(self) -> int:
        """How many more texts may join."""
        ...

    def admit(self, works: Sequence[TextWork]) -> list[int]:
        """Encode prompts and give each text a row. Raises ValueError for more works than there are free rows.

        Where it fails for another reason, no work has been admitted.
        """
        ...

    def step(self, rows: Sequence[int] | None = None) -> list[TextProgress]:
        """One more token of each one-beam text, or of those at `rows`; one step of the oldest search of several beams.

        Searches are told of when they end. If it fails, nothing has changed, and it may be called again for fewer rows.
        """
        ...

    def cancel(self, row: int) -> GeneratedText:
        """Give a text up, whose row is free again; returns what there is of it."""
        ...


OnToken = Callable[[int, int], bool]
"""Called with (row, token id) for each new token of a one-beam text; returns False to cancel that row."""


class Engine(Protocol):
    """Runs batches that mix domains freely.

    Each method may be called from one thread at a time; different methods from different threads.
    """

    @property
    def num_slots(self) -> int:
        """How many slots there are, free ones included."""
        ...

    def place(self, slot: int, placement: Placement) -> None:
        """Fill a free slot while the others go on answering; what the slot held before is gone.

        A slot beyond the last, or a layout wider than what is there, makes more room. That the slot is free, with no
        work of it waiting or running, is the caller's to know.
        """
        ...

    def vacate(self, slot: int) -> None:
        """Let go of what a slot held; it is free from now on."""
        ...

    def rank(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        """Constrained beam search, repeated with wider beams for certified works; one ranking per work, in order."""
        ...

    def search(self, batch: Sequence[RankingWork]) -> tuple[list[Ranking], Timings]:
        """One search per work, certified ones too, which may come out unproven; in order."""
        ...

    def widened(self, work: RankingWork, ranking: Ranking) -> RankingWork | None:
        """What is to be searched next to prove a certified work's ranking; None where it is proven or at its limit."""
        ...

    def score(self, batch: Sequence[ScoringWork]) -> tuple[list[tuple[float, ...]], Timings]:
        """Log-probability of every target of every work, in order."""
        ...

    def generate(
        self, batch: Sequence[TextWork], on_token: OnToken | None = None
    ) -> tuple[list[GeneratedText], Timings]:
        """Free text; one per work, in order."""
        ...

    def open_texts(self, num_rows: int) -> TextSession:
        """Room for `num_rows` texts that are generated side by side, step by step."""
        ...
