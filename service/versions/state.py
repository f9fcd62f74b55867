"""The state of a domain in the journal, and the entries that change it. Knows no engine and no files.

Applying a domain's entries in order to an empty state, or the entries after a snapshot to the snapshot, gives the state
to serve. Field names are part of the journal's format (`formats.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from model.bundle.changes import CatalogChanges
from model.planning.boosts import NO_FACTORS, BoostFactors

OWN_BUNDLE = ""
MAX_IDEMPOTENCY_KEYS = 256


@dataclass(frozen=True)
class VersionRef:
    """One domain of one bundle. `bundle` is its folder below the configured root, empty for the service's own."""

    bundle: str
    bundle_hash: str
    domain: str

    @property
    def version(self) -> str:
        """The short name in the API and in metrics."""
        return f"{self.bundle_hash[:12]}:{self.domain}"


@dataclass(frozen=True)
class Canary:
    """A version for a share (0 to 1) of the users, chosen by a salted hash."""

    ref: VersionRef
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    salt: str


@dataclass(frozen=True)
class Roles:
    """The loaded versions of a domain by role."""

    stable: VersionRef | None = None
    previous: VersionRef | None = None
    loaded: VersionRef | None = None  # serves no requests yet
    canary: Canary | None = None
    shadow: VersionRef | None = None

    @property
    def assigned(self) -> Iterator[tuple[str, VersionRef]]:
        """Names of the assigned roles, with their versions."""
        canary = None if self.canary is None else self.canary.ref
        every = (
            ("stable", self.stable),
            ("previous", self.previous),
            ("loaded", self.loaded),
            ("canary", canary),
            ("shadow", self.shadow),
        )
        return ((name, ref) for name, ref in every if ref is not None)

    @property
    def refs(self) -> tuple[VersionRef, ...]:
        """The distinct versions."""
        return tuple(dict.fromkeys(ref for _, ref in self.assigned))

    def without(self, ref: VersionRef) -> Roles:
        """The roles without this version as loaded, canary or shadow."""
        return replace(
            self,
            loaded=None if self.loaded == ref else self.loaded,
            canary=None if self.canary is not None and self.canary.ref == ref else self.canary,
            shadow=None if self.shadow == ref else self.shadow,
        )

    def swapped(self, ref: VersionRef) -> Roles:
        """The roles after a version becomes stable; the former stable one is kept for rollback."""
        return replace(self.without(ref), stable=ref, previous=self.stable or self.previous)


@dataclass(frozen=True)
class DomainState:
    """`revision` counts all entries, `catalog_revision` those that change the catalog or its embeddings.

    Until roles are assigned (`has_roles`), the domain is served from the service's own bundle.
    """

    roles: Roles = field(default_factory=Roles)
    has_roles: bool = False
    revision: int = 0
    catalog_revision: int = 0
    changes: CatalogChanges = field(default_factory=CatalogChanges)
    features: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Base64 of float32, by feature space and item."""
    keys: tuple[tuple[str, int], ...] = ()
    """Recent idempotency keys with the resulting catalog revisions."""
    boosts: BoostFactors = NO_FACTORS
    """Of all requests, unless they decline them; the release before did not write them."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """What was changed under recent idempotency keys; the release before did not write it."""

    def revision_of(self, key: str | None) -> int | None:
        """The catalog revision that a recent change with this idempotency key resulted in."""
        return None if key is None else dict(self.keys).get(key)

    def is_taken(self, entry: ItemsEntry) -> bool:
        """Whether a recent change with the entry's idempotency key was another change."""
        digest = None if entry.key is None else self.digests.get(entry.key)
        return digest is not None and digest != content_digest(entry)

    def with_key(self, entry: ItemsEntry) -> DomainState:
        """The state that remembers the entry's idempotency key, if it has one."""
        if entry.key is None:
            return self
        keys = (*self.keys, (entry.key, self.catalog_revision))[-MAX_IDEMPOTENCY_KEYS:]
        digests = {**self.digests, entry.key: content_digest(entry)}
        return replace(self, keys=keys, digests={key: digests[key] for key, _ in keys if key in digests})


@dataclass(frozen=True)
class RolesEntry:
    """Assigns roles to versions; without any role the domain is unloaded."""

    domain: str
    revision: int
    action: str
    roles: Roles
    kind: Literal["roles"] = "roles"


@dataclass(frozen=True)
class CatalogEntry:
    """Changes the catalog, and embeddings of added items, as a FeaturesEntry does."""

    domain: str
    revision: int
    changes: CatalogChanges
    key: str | None = None
    kind: Literal["catalog"] = "catalog"
    space: str = ""
    features: Mapping[str, str] = field(default_factory=dict)
    """Base64 of float32, by item."""
    asked: str = ""
    """The digest of what was asked for, if identifiers were chosen in addition."""


@dataclass(frozen=True)
class FeaturesEntry:
    """Replaces embeddings of items; `space` is the name of their image encoder and their width."""

    domain: str
    revision: int
    space: str
    rows: Mapping[str, str]
    """Base64 of float32, by item."""
    key: str | None = None
    kind: Literal["features"] = "features"


@dataclass(frozen=True)
class BoostsEntry:
    """Replaces the domain's boosts; the release before skips these entries."""

    domain: str
    revision: int
    boosts: BoostFactors
    key: str | None = None
    kind: Literal["boosts"] = "boosts"


ItemsEntry: TypeAlias = CatalogEntry | FeaturesEntry | BoostsEntry
"""Changes what is ranked, which rankings in progress are waited for."""
AnyEntry: TypeAlias = RolesEntry | ItemsEntry
Entry: TypeAlias = Annotated[AnyEntry, Field(discriminator="kind")]
States: TypeAlias = Mapping[str, DomainState]

ENTRIES: TypeAdapter[AnyEntry] = TypeAdapter(Entry)
STATES: TypeAdapter[dict[str, DomainState]] = TypeAdapter(dict[str, DomainState])


def apply_entry(state: DomainState, entry: AnyEntry) -> DomainState:
    """The state after an entry."""
    if isinstance(entry, RolesEntry):
        if not entry.roles.refs:
            return DomainState(has_roles=True, revision=entry.revision, catalog_revision=state.catalog_revision)
        return replace(state, roles=entry.roles, has_roles=True, revision=entry.revision)
    state = replace(state, revision=entry.revision, catalog_revision=state.catalog_revision + 1).with_key(entry)
    if isinstance(entry, CatalogEntry):
        state = replace(state, changes=state.changes.then(entry.changes))
        return _with_features(state, entry.space, entry.features) if entry.features else state
    if isinstance(entry, BoostsEntry):
        return replace(state, boosts=entry.boosts)
    return _with_features(state, entry.space, entry.rows)


def _with_features(state: DomainState, space: str, rows: Mapping[str, str]) -> DomainState:
    return replace(state, features={**state.features, space: {**state.features.get(space, {}), **rows}})


def content_digest(entry: ItemsEntry) -> str:
    """Equal for entries that change the same, whatever their revisions and keys are."""
    if isinstance(entry, CatalogEntry) and entry.asked:
        return entry.asked
    content = ENTRIES.dump_python(entry, mode="json", exclude={"domain", "revision", "key", "asked"})
    if isinstance(entry, CatalogEntry) and not entry.features:  # as releases that knew no such fields
        content = {name: value for name, value in content.items() if name not in {"space", "features"}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
