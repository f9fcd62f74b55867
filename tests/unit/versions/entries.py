"""Entries of a journal, for tests."""

from __future__ import annotations

from model.bundle.changes import CatalogChanges
from service.versions.state import CatalogEntry, FeaturesEntry, Roles, RolesEntry, VersionRef

FIRST = VersionRef("", "1" * 64, "toys")
SECOND = VersionRef("second", "2" * 64, "toys")
THIRD = VersionRef("third", "3" * 64, "toys")


def roles_entry(revision: int, roles: Roles, domain: str = "toys") -> RolesEntry:
    return RolesEntry(domain, revision, "swap", roles)


def stock_entry(revision: int, *item_ids: str, key: str | None = None, domain: str = "toys") -> CatalogEntry:
    return CatalogEntry(domain, revision, CatalogChanges(active=dict.fromkeys(item_ids, False)), key)


def features_entry(revision: int, **rows: str) -> FeaturesEntry:
    return FeaturesEntry("toys", revision, "vitb32/8", rows)
