"""Changes the served versions: prepares a change, appends it to the journal, and only then applies it to requests.

Runs on the event loop; slow work runs in threads. Changes of one domain are serialised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.observability.metrics import Metrics
from service.versions.agreement import wait_for_all
from service.versions.change_turns import ChangeTurns
from service.versions.item_changes import ItemChanges
from service.versions.journal import Kept
from service.versions.membership import Membership
from service.versions.replica import Replica
from service.versions.role_changes import RoleChanges

if TYPE_CHECKING:
    from service.versions.version_loader import VersionLoader  # imports torch, which a worker does not


class Administration:
    """The operations of /admin. Each is atomic: if it raises, nothing has changed."""

    def __init__(
        self,
        replica: Replica,
        loader: VersionLoader,
        metrics: Metrics,
        membership: Membership,
        *,
        can_put_features: bool,
        wait_s: float,
    ) -> None:
        """`can_put_features` is false where embeddings are in Redis; `wait_s` limits each wait for others."""
        self.replica = replica
        self.membership = membership
        self._loader = loader
        self.turns = ChangeTurns(replica, wait_s)
        self.roles = RoleChanges(replica, loader, metrics, self.turns)
        self.items = ItemChanges(replica, loader, self.turns, can_put_features=can_put_features)

    @property
    def num_slots(self) -> int:
        """Allocated slots of the engine, including those that are about to be freed."""
        return self._loader.slots.num_allocated

    @property
    def own_hash(self) -> str:
        """Of the bundle that the service started with."""
        return self._loader.sources.runtime.bundle_hash

    async def resolve_journal(self, keep: Kept) -> None:
        """Decide which of two histories of the journal all replicas follow.

        Raises OperationConflictError, RevisionConflictError and JournalError.
        """
        await self.replica.resolve(keep)

    async def wait_for_all(self, name: str | None, timeout_s: float | None) -> None:
        """Return when all live replicas serve what this one serves of a domain, or of all domains.

        Raises ReplicasDifferError.
        """
        await wait_for_all(self.membership, self.replica.target(name), timeout_s or self.turns.wait_s)
