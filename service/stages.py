"""The stages that every request passes, whatever it asks for: its domain, its images, the lanes of the engine.

Knows no web framework.
"""

# I images of a prompt, U distinct items of a request, D width of an embedding

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_cache.store import FeatureStore
from model.engine.domain import ServedDomain
from model.engine.plans import Degradation
from model.engine.protocol import (
    Engine,
    GeneratedText,
    OnToken,
    Ranking,
    RankingWork,
    ScoringWork,
    TextWork,
    Timings,
)
from model.errors import UnknownDomainError
from model.prompts.prompt import Prompt
from service.batching.job import EngineCall
from service.batching.lane import Lane
from service.metrics import Metrics
from service.settings import QueueLimits


class EngineCalls:
    """The engine's methods in the one form that lanes call."""

    def __init__(self, engine: Engine) -> None:
        def rank(rows: Sequence[RankingWork], _: OnToken, /) -> tuple[list[Ranking], Timings]:
            return engine.rank(rows)

        def score(rows: Sequence[ScoringWork], _: OnToken, /) -> tuple[list[tuple[float, ...]], Timings]:
            return engine.score(rows)

        def generate(rows: Sequence[TextWork], on_token: OnToken, /) -> tuple[list[GeneratedText], Timings]:
            return engine.generate(rows, on_token)

        self.rank: EngineCall[RankingWork, Ranking] = rank
        self.score: EngineCall[ScoringWork, tuple[float, ...]] = score
        self.generate: EngineCall[TextWork, GeneratedText] = generate


@dataclass(frozen=True)
class Epoch:
    """What is served, as one immutable whole; a request holds on to it to the end."""

    domains: Mapping[str, ServedDomain]
    engine: EngineCalls
    features: FeatureStore

    def domain(self, name: str) -> ServedDomain:
        """Raises UnknownDomainError naming what is served."""
        try:
            return self.domains[name]
        except KeyError:
            served = ", ".join(sorted(self.domains)) or "none"
            raise UnknownDomainError(
                f"the domain {name!r} is not served; served are: {served}", field="domain"
            ) from None


class Lanes:
    """One lane for items, one for text, so that an explanation never holds up a recommendation."""

    def __init__(self, limits: QueueLimits, metrics: Metrics) -> None:
        self.ranking = Lane("ranking", limits, metrics)
        self.text = Lane("text", limits, metrics)
        metrics.watch_lanes(
            num_running=lambda: self.ranking.num_running + self.text.num_running,
            num_waiting=lambda: self.ranking.num_waiting + self.text.num_waiting,
        )

    def start(self) -> None:
        self.ranking.start()
        self.text.start()

    async def close(self, timeout_s: float) -> None:
        await asyncio.gather(self.ranking.close(timeout_s), self.text.close(timeout_s))


@dataclass(frozen=True, eq=False)
class PromptFeatures:
    """Image embeddings of a plan's prompts, one array [I, D] each, and how many items had none."""

    rows: list[NDArray[np.float32]]
    num_items: int
    num_missing: int
    shortfall: str = ""  # why items that may well have one are missing

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        if not self.num_missing:
            return ()
        detail = f"{self.num_missing} of {self.num_items} items of the prompt had no image embedding"
        reason = f": {self.shortfall}" if self.shortfall else ""
        return (Degradation("missing_features", detail + reason),)


async def fetch_features(epoch: Epoch, domain: ServedDomain, prompts: Sequence[Prompt]) -> PromptFeatures:
    """Fetch the embeddings of all images of all prompts in one round trip."""
    catalog_rows = list(dict.fromkeys(row for prompt in prompts for row in prompt.image_items))
    if not catalog_rows:
        empty = np.zeros((0, domain.spec.layout.feature_dim), dtype=np.float32)
        return PromptFeatures(rows=[empty for _ in prompts], num_items=0, num_missing=0)
    item_ids = [domain.catalog.item_ids[row] for row in catalog_rows]
    batch = await epoch.features.get_many(domain.name, item_ids)  # [U, D]
    num_missing = len(item_ids) - int(batch.is_present.sum())
    place_of = {row: place for place, row in enumerate(catalog_rows)}
    rows = [batch.features[[place_of[row] for row in prompt.image_items]] for prompt in prompts]
    return PromptFeatures(rows, num_items=len(item_ids), num_missing=num_missing, shortfall=batch.shortfall)


def untrained(domain: ServedDomain) -> tuple[Degradation, ...]:
    if domain.spec.trained:
        return ()
    return (Degradation("untrained_model", f"the weights of {domain.name} were never tuned; its answers mean nothing"),)


def deadline_in(duration_s: float) -> float:
    """The deadline on the clock of time.monotonic."""
    return time.monotonic() + duration_s
