"""The stages that every request passes, whatever it asks for: its domain, its images, its deadline.

Knows no web framework.
"""

# I images of a prompt, U distinct items of a request, D width of an embedding

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.planning.domain import ServedDomain
from model.planning.plans import Degradation
from model.prompts.prompt import Prompt
from service.versions.domain_version import DomainVersion


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


async def fetch_features(version: DomainVersion, prompts: Sequence[Prompt]) -> PromptFeatures:
    """Fetch the embeddings of all images of all prompts in one round trip."""
    domain = version.domain
    catalog_rows = list(dict.fromkeys(row for prompt in prompts for row in prompt.image_items))
    if not catalog_rows:
        empty = np.zeros((0, domain.spec.layout.feature_dim), dtype=np.float32)
        return PromptFeatures(rows=[empty for _ in prompts], num_items=0, num_missing=0)
    item_ids = [domain.catalog.item_ids[row] for row in catalog_rows]
    batch = await version.features.get_many(domain.name, item_ids)  # [U, D]
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
