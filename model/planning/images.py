"""The images of a plan's prompts and their features."""

# I images of a prompt, U distinct images of a plan, D width of a feature

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.degradation import Degradation, DegradationKind
from model.engine.plans import Plan, SharedFeatures
from model.planning.domain import ServedDomain
from model.prompts.prompt import Prompt

P = TypeVar("P", bound=Plan)


def image_rows(plan: Plan, domain: ServedDomain) -> list[int]:
    """Distinct catalog rows of the items whose images are in the prompts: [U]. Images that were cut off are not."""
    if len(plan.prompts) == 1:
        return list(dict.fromkeys(_shown(plan.prompts[0], domain)))
    return list(dict.fromkeys(row for prompt in plan.prompts for row in _shown(prompt, domain)))


def with_features(
    plan: P,
    domain: ServedDomain,
    features: NDArray[np.floating],
    is_present: NDArray[np.bool_],
    shortfall: str = "",
) -> P:
    """The plan with features [U, D] of its `image_rows`; they must be zero where `is_present` [U] is false.

    Missing features are noted as a degradation. `shortfall` is the reason if a store could not be read in time.
    """
    if len(plan.prompts) == 1 and len(_shown(plan.prompts[0], domain)) == len(features):  # each image once, in order
        plan = plan.with_features((features,))
    else:
        place_of = {row: place for place, row in enumerate(image_rows(plan, domain))}
        places = [
            np.array([place_of[row] for row in _shown(prompt, domain)], dtype=np.int64) for prompt in plan.prompts
        ]
        plan = plan.with_features(SharedFeatures(features, places))
    num_missing = len(is_present) - int(np.count_nonzero(is_present))
    if not num_missing:
        return plan
    detail = f"{num_missing} of {len(is_present)} items of the prompt had no image embedding"
    reason = f": {shortfall}" if shortfall else ""
    return plan.degraded_by(Degradation(DegradationKind.MISSING_FEATURES, detail + reason))


def without_images(plan: P, domain: ServedDomain, hidden: Sequence[Collection[int]]) -> P:
    """The plan with features, of which each prompt sees zeros for the images of the items `hidden` (catalog rows)."""
    features = plan.features
    if len(features) == 1 and not isinstance(features, SharedFeatures):
        features = SharedFeatures(features[0], [np.arange(len(features[0]))])
    if not isinstance(features, SharedFeatures) or not any(hidden):
        return plan
    zeros = len(features.rows)
    rows = np.concatenate([features.rows, np.zeros_like(features.rows[:1])])
    places = [
        np.array(
            [
                zeros if row in unseen else place
                for row, place in zip(_shown(prompt, domain), own.tolist(), strict=True)
            ],
            dtype=np.int64,
        )
        for prompt, own, unseen in zip(plan.prompts, features.places, hidden, strict=True)
    ]
    return plan.with_features(SharedFeatures(rows, places))


def _shown(prompt: Prompt, domain: ServedDomain) -> tuple[int, ...]:
    if not prompt.is_truncated:
        return prompt.image_items
    return prompt.image_items[: prompt.num_images_shown(domain.spec.layout.visual_tokens)]
