"""What a query turns into: prompts to encode, and what is to be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility
from model.engine.protocol import EncoderInput, RankingWork, ScoringWork, TextWork
from model.network.config import Task
from model.prompts.prompt import Prompt


@dataclass(frozen=True)
class Degradation:
    """Something that made an answer less than it could be; `kind` is stable, `detail` is for people."""

    kind: str
    detail: str


@dataclass(frozen=True)
class RankingPlan:
    """One prompt, and a constrained search over the catalog."""

    slot: int
    task: Task
    template: str
    prompt: Prompt
    eligibility: Eligibility
    k: int
    num_beams: int
    length_penalty: float
    certified: bool
    degraded: tuple[Degradation, ...]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return (self.prompt,)

    def work(self, features: Sequence[NDArray[np.float32]]) -> RankingWork:
        """`features` holds one array [I, D] per prompt."""
        (feature_rows,) = features
        source = EncoderInput(slot=self.slot, task=self.task, prompt=self.prompt, features=feature_rows)
        return RankingWork(
            source=source,
            eligibility=self.eligibility,
            k=self.k,
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            certified=self.certified,
        )


@dataclass(frozen=True)
class PointwisePlan:
    """One yes/no prompt per candidate; candidates are ranked by P(yes) / (P(yes) + P(no))."""

    slot: int
    task: Task
    template: str
    prompts: tuple[Prompt, ...]
    candidate_rows: tuple[int, ...]
    yes_ids: tuple[int, ...]
    no_ids: tuple[int, ...]
    k: int
    degraded: tuple[Degradation, ...]

    def work(self, features: Sequence[NDArray[np.float32]]) -> list[ScoringWork]:
        """`features` holds one array [I, D] per prompt."""
        return [
            ScoringWork(
                source=EncoderInput(slot=self.slot, task=self.task, prompt=prompt, features=feature_rows),
                targets=(self.yes_ids, self.no_ids),
            )
            for prompt, feature_rows in zip(self.prompts, features, strict=True)
        ]

    def rank(self, log_probs: Sequence[tuple[float, ...]]) -> list[tuple[int, float]]:
        """The k best (catalog row, P(yes) / (P(yes) + P(no))), best first; ties keep the candidates' order."""
        yes, no = np.asarray(log_probs, dtype=np.float64).reshape(-1, 2).T
        scores = 1.0 / (1.0 + np.exp(no - yes))
        order = np.argsort(-scores, kind="stable")[: self.k]
        return [(self.candidate_rows[i], float(scores[i])) for i in order]


@dataclass(frozen=True)
class TextPlan:
    """One prompt, and free text to generate."""

    slot: int
    template: str
    prompt: Prompt
    max_new_tokens: int
    num_beams: int
    temperature: float
    top_p: float
    seed: int | None
    degraded: tuple[Degradation, ...]

    @property
    def predicts_rating(self) -> bool:
        """Whether the text starts with a star rating."""
        return self.template in ("C-7", "C-8")

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return (self.prompt,)

    def work(self, features: Sequence[NDArray[np.float32]]) -> TextWork:
        """`features` holds one array [I, D] per prompt."""
        (feature_rows,) = features
        return TextWork(
            source=EncoderInput(slot=self.slot, task="explanation", prompt=self.prompt, features=feature_rows),
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
        )
