"""Who else serves what this process serves: nobody, or workers that speak HTTP for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def tell(self, waiting_for: Mapping[str, str], *, is_draining: bool) -> None:
        """Let all accept or refuse requests as this process does, for these reasons by domain."""
        ...

    async def told(self) -> None:
        """Wait until all do as they were told last; who does not in time is ended."""
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

    def tell(self, waiting_for: Mapping[str, str], *, is_draining: bool) -> None:
        pass

    async def told(self) -> None:
        pass
