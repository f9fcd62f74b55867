"""Changes items of a domain, their embeddings and boosts; if a change raises, nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.bundle.changes import CatalogChanges, check_changes, with_added
from model.errors import UnknownItemError
from model.planning.boosts import BoostFactors, check_rules
from model.planning.merchandising import MAX_RULES, check_numbers
from service.errors import ChangeTimeoutError, OperationConflictError, RevisionConflictError
from service.versions.building import feature_to_base64, space_of
from service.versions.change_turns import ChangeTurns
from service.versions.domain_version import DomainVersion
from service.versions.new_items import Embeddings, check_width, chosen_indices, completed, with_embeddings
from service.versions.replica import Replica
from service.versions.state import BoostsEntry, CatalogEntry, DomainState, FeaturesEntry

if TYPE_CHECKING:
    from service.versions.version_loader import VersionLoader  # imports torch, which a worker does not

MAX_ATTEMPTS = 5
"""Attempts at a change that conflicts with changes by other replicas."""
MAX_NAMED = 5
"""Most requests that an error names."""

Changing = TypeVar("Changing", CatalogEntry, FeaturesEntry, BoostsEntry)


@dataclass(frozen=True)
class CatalogChange:
    """The catalog's revision after a change, and the identifiers that were chosen in it, by item."""

    revision: int
    indices: Mapping[str, str]


@dataclass(frozen=True)
class Precondition:
    """The catalog's expected revision, and an idempotency key under which a change is made at most once."""

    revision: int | None = None
    idempotency_key: str | None = None


class ItemChanges:
    """Changes items in all versions of a domain."""

    def __init__(self, replica: Replica, loader: VersionLoader, turns: ChangeTurns, *, can_put_features: bool) -> None:
        """`can_put_features` is false where embeddings are in Redis."""
        self._replica = replica
        self._loader = loader
        self._turns = turns
        self._can_put_features = can_put_features

    async def change_catalog(
        self, name: str, changes: CatalogChanges, precondition: Precondition, embeddings: Embeddings | None = None
    ) -> CatalogChange:
        """Change items in all versions, and wait for the rankings that began before.

        Added rows without an index get one of the domain's codebook; `embeddings` [F] of added items by id are stored
        with them. Raises RevisionConflictError, UnknownItemError, InputError, CatalogError and ChangeTimeoutError, and
        OperationConflictError for embeddings if those of the service are in Redis.
        """
        embeddings = embeddings or {}
        if embeddings:
            self._require_own_features()

        def entry_after(state: DomainState) -> CatalogEntry:
            entry = CatalogEntry(name, state.revision + 1, changes, precondition.idempotency_key)
            return with_embeddings(entry, self._replica.require(name), embeddings)

        async def check(version: DomainVersion, entry: CatalogEntry) -> CatalogEntry:
            complete = await completed(entry, version, embeddings)
            await asyncio.to_thread(self._check, version, complete.changes)
            return complete

        revision = await self._change_items(name, precondition, check, entry_after)
        return CatalogChange(revision, chosen_indices(self._replica.state(name).changes, changes))

    async def put_features(self, name: str, rows: Mapping[str, NDArray[np.float32]], precondition: Precondition) -> int:
        """Put embeddings of items, which override the bundle's. Returns the catalog's revision.

        Raises InputError for embeddings of the wrong width, OperationConflictError if embeddings are in Redis.
        """
        self._require_own_features()
        spec = self._replica.require(name).domain.spec

        def entry_after(state: DomainState) -> FeaturesEntry:
            texts = {item_id: feature_to_base64(row) for item_id, row in rows.items()}
            return FeaturesEntry(name, state.revision + 1, space_of(spec), texts, precondition.idempotency_key)

        async def check(version: DomainVersion, entry: FeaturesEntry) -> FeaturesEntry:
            await asyncio.to_thread(_check_rows, version, rows)
            return entry

        return await self._change_items(name, precondition, check, entry_after)

    def _require_own_features(self) -> None:
        if not self._can_put_features:
            raise OperationConflictError(
                "this service reads embeddings from Redis; put them there with `vip5 features put` or `vip5 features "
                "load`"
            )

    async def put_boosts(self, name: str, rules: BoostFactors, precondition: Precondition) -> int:
        """Replace the domain's boosts, and wait for the rankings that began before. Returns the catalog's revision.

        Raises as `change_catalog`.
        """

        async def check(version: DomainVersion, entry: BoostsEntry) -> BoostsEntry:
            check_numbers(rules, MAX_RULES, "boosts")
            await asyncio.to_thread(check_rules, rules, version.domain.boosts, version.domain.catalog)
            return entry

        def entry_after(state: DomainState) -> BoostsEntry:
            return BoostsEntry(name, state.revision + 1, rules, precondition.idempotency_key)

        return await self._change_items(name, precondition, check, entry_after)

    async def _change_items(
        self,
        name: str,
        precondition: Precondition,
        check: Callable[[DomainVersion, Changing], Awaitable[Changing]],
        entry_after: Callable[[DomainState], Changing],
    ) -> int:
        """Make one change. `check` raises for an entry that does not fit, and gives the one to be stored."""
        for attempt in range(MAX_ATTEMPTS):
            async with self._turns.exclusive(name, "a change of items"):
                version, state = self._replica.require(name), self._replica.state(name)
                entry = entry_after(state)
                if state.is_taken(entry):
                    raise OperationConflictError(
                        f"the idempotency key {precondition.idempotency_key!r} belongs to another change of {name!r}, "
                        "so nothing was changed; use a new key for each change"
                    )
                revision = state.revision_of(precondition.idempotency_key)
                if revision is not None:
                    break
                if precondition.revision not in (None, state.catalog_revision):
                    raise RevisionConflictError(
                        f"the catalog of {name!r} is at revision {state.catalog_revision}, not {precondition.revision};"
                        " get the current catalog and retry with its revision"
                    )
                entry = await check(version, entry)
                try:
                    state = await self._replica.commit(entry)
                except RevisionConflictError:
                    if attempt == MAX_ATTEMPTS - 1:
                        raise
                else:
                    revision = state.catalog_revision
                    break
            await self._replica.catch_up()
        assert revision is not None
        await self._wait_for_rankings(name, revision)
        return revision

    async def _wait_for_rankings(self, name: str, revision: int) -> None:
        """Raises ChangeTimeoutError, which names the requests that still use what was before the change."""
        try:
            async with asyncio.timeout(self._turns.wait_s):
                await self._replica.wait_superseded(name)
        except TimeoutError as error:
            holders, wait_s = self._replica.superseded_holders(name), self._turns.wait_s
            raise ChangeTimeoutError(
                f"the catalog of {name!r} is changed (revision {revision}) and answers all new requests, but "
                f"{len(holders)} that began before are not answered after {wait_s:g} s: {_listed(holders)}; "
                "repeat the change with the same idempotency_key to wait for them again"
            ) from error

    def _check(self, version: DomainVersion, changes: CatalogChanges) -> None:
        tokenizer = self._loader.sources.foundation.tokenizer
        files = version.placed.opened.files
        if changes.added:
            files = with_added(files, self._replica.state(version.domain.name).changes, tokenizer)
        check_changes(files, version.domain.catalog, changes, tokenizer)


def _listed(holders: Sequence[str]) -> str:
    more = f" and {len(holders) - MAX_NAMED} more" if len(holders) > MAX_NAMED else ""
    return f"request {', '.join(holders[:MAX_NAMED])}{more}"


def _check_rows(version: DomainVersion, rows: Mapping[str, NDArray[np.float32]]) -> None:
    dim = version.domain.spec.layout.feature_dim
    for item_id, row in rows.items():
        if version.domain.catalog.row_of(item_id) is None:
            raise UnknownItemError(f"item {item_id!r} is not in the catalog; add it first", field=f"features.{item_id}")
        check_width(item_id, row, dim, f"features.{item_id}")
