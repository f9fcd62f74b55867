"""Plans: the result of planning a request, waiting in a lane and run by an engine.

A plan has prompts for one domain and the options of one task. Domains are slots of the engine, items are leaves of the
domain's trie. Where a new ranking option goes: `RankingPlan`, and if each row of a batch may have its own value,
`RowOptions` in `model/decoding/items.py` and `row_options.py`.
"""

# P prompts, I images of a prompt, U distinct images of a plan, D width of an image feature

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from model.decoding.eligibility import Eligibility
from model.decoding.leaf_boosts import Boosts
from model.decoding.leaf_groups import Limit
from model.degradation import Degradation
from model.network.config import Task
from model.prompts.prompt import Prompt

_NO_FEATURES: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class SharedFeatures(Sequence[NDArray[np.floating]]):
    """Features of the images of each prompt, [I, D], gathered when read from the rows that the prompts share."""

    rows: NDArray[np.floating]  # [U, D]
    places: Sequence[NDArray[np.int64]]  # [I] for each prompt, rows of its images

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.floating]: ...
    @overload
    def __getitem__(self, index: slice) -> SharedFeatures: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.floating] | SharedFeatures:
        if isinstance(index, slice):
            return SharedFeatures(self.rows, self.places[index])
        return self.rows[self.places[index]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Prompts to encode. Images without a row of features are read as zeros."""

    slot: int  # of the domain in the engine
    task: Task
    template: str
    prompts: tuple[Prompt, ...]
    features: Sequence[NDArray[np.floating]] = ()  # [I, D] for each prompt; empty until fetched
    degraded: tuple[Degradation, ...] = ()

    @property
    def prompt(self) -> Prompt:
        """The only prompt of a RankingPlan or TextPlan."""
        (prompt,) = self.prompts
        return prompt

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt; 0 without prompts."""
        if len(self.prompts) == 1:
            return self.prompts[0].num_tokens
        return max((prompt.num_tokens for prompt in self.prompts), default=0)

    @property
    def features_by_prompt(self) -> Sequence[NDArray[np.floating]]:
        """One array [I, D] for each prompt; empty arrays if no features were fetched."""
        return self.features or (_NO_FEATURES,) * len(self.prompts)

    def with_features(self, features: Sequence[NDArray[np.floating]]) -> Self:
        """The plan with features of each prompt: every request needs it, and `replace` sets all fields anew."""
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)
        changed.__dict__["features"] = features
        return changed

    def degraded_by(self, *reasons: Degradation) -> Self:
        return replace(self, degraded=(*self.degraded, *reasons)) if reasons else self


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingPlan(Plan):
    """Find the k best eligible items for one prompt with a constrained beam search."""

    eligibility: Eligibility
    k: int
    num_beams: int
    length_penalty: float = 0.0
    certified: bool = False  # widen the search until all k items are proven, or to the limit
    boosts: Boosts | None = None
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoringPlan(Plan):
    """Compute the log-probabilities of the same targets for each prompt: yes and no for each candidate."""

    targets: tuple[tuple[int, ...], ...]  # token ids, `</s>` included; at least one each
    leaves: tuple[int, ...] = ()  # [P], the item that each prompt asks about, or empty
    k: int = 0  # number of items in the ranking by these scores
    scored: tuple[tuple[int, tuple[float, ...]], ...] = ()  # leaves and log-probabilities of prompts that ran before
    boosts: Boosts | None = None
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, plan: Plan, targets: tuple[tuple[int, ...], ...]) -> ScoringPlan:
        """Score targets for another plan's prompts."""
        return cls(
            slot=plan.slot,
            task=plan.task,
            template=plan.template,
            prompts=plan.prompts,
            features=plan.features,
            targets=targets,
        )

    def parts(self, num_parts: int) -> list[ScoringPlan]:
        """Plans with about equal numbers of the prompts, in order."""
        bounds = [-(-len(self.prompts) * part // num_parts) for part in range(num_parts + 1)]
        return [self._part(slice(start, end)) for start, end in pairwise(bounds)]

    def first(self, num_prompts: int) -> ScoringPlan:
        """A plan with the first prompts only."""
        return self._part(slice(num_prompts))

    def after(self, log_probs: Sequence[tuple[float, ...]]) -> ScoringPlan:
        """The plan that is left when the first prompts have these log-probabilities."""
        num_prompts = len(log_probs)
        scored = zip(self.leaves[:num_prompts], log_probs, strict=True)
        return replace(self._part(slice(num_prompts, None)), scored=(*self.scored, *scored))

    def _part(self, part: slice) -> ScoringPlan:
        return replace(
            self, prompts=self.prompts[part], features=self.features[part], leaves=self.leaves[part], scored=()
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionPlan(ScoringPlan):
    """Scores of recommended items for prompts that lack a part each. `leaves` numbers the prompts.

    Its result is all log-probabilities instead of a ranking. It waits behind all rankings.
    """

    def all_scored(self, log_probs: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], ...]:
        """The log-probabilities of all prompts, of which these are the last."""
        return (*(each for _, each in self.scored), *log_probs)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPlan(Plan):
    """Generate text for one prompt.

    One beam: greedy at temperature 0, otherwise nucleus sampling (`top_p`) from the softmax at that temperature.
    Several beams: Hugging Face's beam search, without sampling.
    """

    max_new_tokens: int
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
