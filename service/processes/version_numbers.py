"""The numbers by which the engine process names versions to workers."""

from __future__ import annotations

import itertools
from weakref import WeakKeyDictionary

from service.versions.domain_version import DomainVersion, PlacedDomain


class VersionNumbers:
    """The numbers by which versions and placed domains are named to workers."""

    def __init__(self) -> None:
        self._next = itertools.count(1)
        self._versions: WeakKeyDictionary[DomainVersion, int] = WeakKeyDictionary()
        self._placements: WeakKeyDictionary[PlacedDomain, int] = WeakKeyDictionary()

    def of_version(self, version: DomainVersion) -> int:
        if version not in self._versions:
            self._versions[version] = next(self._next)
        return self._versions[version]

    def of_placement(self, placed: PlacedDomain) -> int:
        if placed not in self._placements:
            self._placements[placed] = next(self._next)
        return self._placements[placed]
