"""Fetches the embeddings of a plan's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from model.degradation import Degradation
from model.engine.plans import Plan
from model.planning.arguments import known_rows
from model.planning.domain import ServedDomain
from model.planning.images import image_rows, with_features, without_images
from service.versions.domain_version import DomainVersion

P = TypeVar("P", bound=Plan)


async def fetch_features(version: DomainVersion, plan: P) -> P:
    """The plan with the embeddings of all its images, fetched in one call. Missing ones are noted as a degradation."""
    domain = version.domain
    rows = image_rows(plan, domain)
    if not rows:
        return plan
    batch = await version.features.get_many([domain.catalog.item_ids[row] for row in rows])
    return with_features(plan, domain, batch.features, batch.is_present, batch.shortfall)


def with_masked(plan: P, domain: ServedDomain, item_ids: Sequence[str]) -> P:
    """The plan without the images that a request hides from the model. Unknown items are noted as a degradation."""
    notes: list[Degradation] = []
    hidden = frozenset(known_rows(domain, item_ids, "mask_images", notes))
    return without_images(plan, domain, [hidden] * len(plan.prompts)).degraded_by(*notes)
