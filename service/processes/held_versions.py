"""The versions that a worker has, and the leases that stand for the worker's requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.versions.domain_version import DomainVersion, Lease


@dataclass
class _Held:
    version: DomainVersion
    placement: Lease
    rankings: Lease | None = None

    def release(self) -> None:
        self.placement.release()
        if self.rankings is not None:
            self.rankings.release()


class HeldVersions:
    """The versions of one worker by their numbers. Used on the event loop only."""

    def __init__(self, holder: str) -> None:
        """`holder` names the worker to those who wait for it, while it is not known which of its requests they are."""
        self._holder = holder
        self._held: dict[int, _Held] = {}
        self._is_answering = False

    def __contains__(self, number: int) -> bool:
        return number in self._held

    @property
    def versions(self) -> list[DomainVersion]:
        return [each.version for each in self._held.values()]

    def get(self, number: int) -> DomainVersion | None:
        found = self._held.get(number)
        return None if found is None else found.version

    def add(self, number: int, version: DomainVersion) -> None:
        """Keep a version's slot until the worker forgets the version."""
        held = self._held[number] = _Held(version, self._lease(version, is_ranking=False))
        if self._is_answering:
            held.rankings = self._lease(version, is_ranking=True)

    def begin_answering(self) -> None:
        """The worker may answer requests: from now on changes of the catalog wait for its rankings."""
        self._is_answering = True
        for held in self._held.values():
            held.rankings = self._lease(held.version, is_ranking=True)

    def settle(self, number: int) -> None:
        """No ranking of the worker uses a version any more. Raises KeyError."""
        if (rankings := self._held[number].rankings) is not None:
            rankings.release()

    def forget(self, number: int) -> None:
        """Nothing of the worker uses a version any more. Raises KeyError."""
        self._held.pop(number).release()

    def forget_all(self) -> None:
        """The worker is gone."""
        for held in self._held.values():
            held.release()
        self._held.clear()

    def note(self, requests: Mapping[int, int], rankings: Mapping[int, Sequence[str]]) -> None:
        """Numbers of requests in progress, and the ids of rankings that use superseded versions, by version."""
        for number, held in self._held.items():
            held.placement.num_requests = requests.get(number, 0)
            if held.rankings is not None:
                held.rankings.holders = rankings.get(number) or (self._holder,)

    def _lease(self, version: DomainVersion, *, is_ranking: bool) -> Lease:
        lease = Lease(version, "stable", is_ranking=is_ranking, holder=self._holder)
        lease.num_requests = 0
        return lease
