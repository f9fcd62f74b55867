"""Fetches the embeddings of a plan's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from model.engine.plans import Plan
from model.planning.domain import ServedDomain
from model.planning.images import image_rows, with_features
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


def hidden_rows(domain: ServedDomain, item_ids: Sequence[str]) -> frozenset[int]:
    """Catalog rows of the items whose images a request hides from the model."""
    rows = (domain.catalog.row_of(item_id) for item_id in item_ids)
    return frozenset(row for row in rows if row is not None)
