"""Who else serves the versions of this process: nobody, or workers that speak HTTP for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from service.versions.domain_version import DomainVersion
from service.versions.domains import Serving


class Followers(Protocol):
    """Processes that show what this one publishes. A change is prepared by all before it is made."""

    async def prepare(self, name: str, versions: Iterable[DomainVersion]) -> None:
        """Let all build these versions of a domain. Raises EngineError if one cannot; nothing has changed then."""
        ...

    def publish(self, name: str, serving: Serving) -> None:
        """Tell all which versions of a domain to use from now on."""
        ...

    async def published(self, name: str) -> None:
        """Wait until all use what was published; who does not in time is ended."""
        ...

    def discard(self, versions: Iterable[DomainVersion]) -> None:
        """Let all forget versions that were prepared and not published."""
        ...


class NoFollowers:
    """No other processes."""

    async def prepare(self, name: str, versions: Iterable[DomainVersion]) -> None:
        pass

    def publish(self, name: str, serving: Serving) -> None:
        pass

    async def published(self, name: str) -> None:
        pass

    def discard(self, versions: Iterable[DomainVersion]) -> None:
        pass
