"""The state of a domain as the journal knows it, and the entries that change it. Knows no engine and no files.

Folding a domain's entries, in their order, over an empty state gives what is to be served; so does a snapshot of the
state and the entries after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from model.bundle.changes import CatalogChanges

OWN_BUNDLE = ""
KEYS_KEPT = 256


@dataclass(frozen=True)
class VersionRef:
    """One domain of one bundle. `bundle` names it below the configured root; the service's own bundle has no name."""

    bundle: str
    bundle_hash: str
    domain: str

    @property
    def version(self) -> str:
        """The short name that people and metrics use."""
        return f"{self.bundle_hash[:12]}:{self.domain}"


@dataclass(frozen=True)
class Canary:
    """A version that a share (0 to 1) of the users gets, chosen by a hash that is salted."""

    ref: VersionRef
    share: float
    salt: str


@dataclass(frozen=True)
class Roles:
    """Which versions of a domain are loaded, and what each of them is for."""

    stable: VersionRef | None = None
    previous: VersionRef | None = None
    loaded: VersionRef | None = None  # waits to be given a role
    canary: Canary | None = None
    shadow: VersionRef | None = None

    @property
    def named(self) -> Iterator[tuple[str, VersionRef]]:
        """Roles that are taken, with their versions."""
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
        """All versions, each once."""
        return tuple(dict.fromkeys(ref for _, ref in self.named))

    def without(self, ref: VersionRef) -> Roles:
        """The roles when a version has none but that of being kept for a rollback."""
        return replace(
            self,
            loaded=None if self.loaded == ref else self.loaded,
            canary=None if self.canary is not None and self.canary.ref == ref else self.canary,
            shadow=None if self.shadow == ref else self.shadow,
        )

    def swapped(self, ref: VersionRef) -> Roles:
        """Another version becomes the stable one; the one before is kept for a rollback."""
        return replace(self.without(ref), stable=ref, previous=self.stable or self.previous)


@dataclass(frozen=True)
class DomainState:
    """`revision` counts all entries, `catalog_revision` those that change the catalog or its embeddings.

    As long as no roles were given, the domain is served as the service's own bundle has it.
    """

    roles: Roles = field(default_factory=Roles)
    has_roles: bool = False
    revision: int = 0
    catalog_revision: int = 0
    changes: CatalogChanges = field(default_factory=CatalogChanges)
    features: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by space, then by item: base64 of float32
    keys: tuple[tuple[str, int], ...] = ()  # idempotency keys and the catalog revisions that they led to

    def revision_of(self, key: str | None) -> int | None:
        """The catalog revision that a change with this key led to, if it was made lately."""
        return None if key is None else dict(self.keys).get(key)


@dataclass(frozen=True)
class RolesEntry:
    """Versions were given roles; no roles at all mean that the domain is served no more."""

    domain: str
    revision: int
    action: str
    roles: Roles
    kind: Literal["roles"] = "roles"


@dataclass(frozen=True)
class CatalogEntry:
    """The catalog was changed."""

    domain: str
    revision: int
    changes: CatalogChanges
    key: str | None = None
    kind: Literal["catalog"] = "catalog"


@dataclass(frozen=True)
class FeaturesEntry:
    """Embeddings of items were put; `space` names the image encoder that made them, and their width."""

    domain: str
    revision: int
    space: str
    rows: Mapping[str, str]  # by item: base64 of float32
    kind: Literal["features"] = "features"


Entry: TypeAlias = Annotated[RolesEntry | CatalogEntry | FeaturesEntry, Field(discriminator="kind")]
States: TypeAlias = Mapping[str, DomainState]

ENTRIES: TypeAdapter[RolesEntry | CatalogEntry | FeaturesEntry] = TypeAdapter(Entry)
STATES: TypeAdapter[dict[str, DomainState]] = TypeAdapter(dict[str, DomainState])


def follow(state: DomainState, entry: RolesEntry | CatalogEntry | FeaturesEntry) -> DomainState:
    """The state after an entry."""
    if isinstance(entry, RolesEntry):
        if not entry.roles.refs:
            return DomainState(has_roles=True, revision=entry.revision, catalog_revision=state.catalog_revision)
        return replace(state, roles=entry.roles, has_roles=True, revision=entry.revision)
    catalog_revision = state.catalog_revision + 1
    state = replace(state, revision=entry.revision, catalog_revision=catalog_revision)
    if isinstance(entry, CatalogEntry):
        keys = (*state.keys, (entry.key, catalog_revision))[-KEYS_KEPT:] if entry.key is not None else state.keys
        return replace(state, changes=state.changes.then(entry.changes), keys=keys)
    rows = {**state.features.get(entry.space, {}), **entry.rows}
    return replace(state, features={**state.features, entry.space: rows})
