"""The domains that a replica holds under Ray's model multiplexing.

Ray's decorator decides which domain is loaded and which one leaves, the least recently used, and tells the routers of
all ingresses. This module loads and lets go, so that no domain leaves while a request needs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from model.errors import Vip5Error
from service.errors import NotReadyError
from service.versions.held_domains import HeldDomains
from service.versions.state import VersionRef

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""Also the time for which a domain that failed to load is not tried again."""

Load = Callable[[str], Awaitable["Resident"]]
Multiplex = Callable[[Load], Load]
"""Makes a function that loads only what it does not hold yet, and holds the most recently used."""


class Resident:
    """What Ray holds of a domain. Ray calls `__del__`, in a thread, when the domain is to leave."""

    def __init__(self, name: str, leave: Callable[[str], None]) -> None:
        self._name = name
        self._leave: Callable[[str], None] | None = leave
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(leave, self._name)


class Residents:
    """Loads domains when requests need them. Used on the event loop only."""

    def __init__(
        self, replica: HeldDomains, multiplex: Multiplex, load_s: float, on_change: Callable[[int], None]
    ) -> None:
        """`on_change` is told how many domains are held.

        These are at most as many as `multiplex` holds, apart from those that wait for their last requests to complete.
        """
        self._replica = replica
        self._load_s = load_s
        self._num_users: Counter[str] = Counter()
        self._listed: set[str] = set()  # what Ray holds
        self._leaving: set[str] = set()  # what Ray holds no more, and requests still use
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._failures: dict[str, tuple[float, Vip5Error]] = {}
        self._is_closed = False
        self._on_change = on_change

        async def load(name: str) -> Resident:  # Ray keeps what it holds as an attribute of this
            return await self._hold(name)

        self._load = multiplex(load)

    async def change_directory(self, directory: Mapping[str, VersionRef]) -> None:
        """Serve held domains as the directory says from now on."""
        self._replica.directory = directory
        self._failures.clear()
        for name in self._replica.held:
            if name in directory:
                try:
                    await self._replica.hold(name)
                except Vip5Error as error:  # the next request for it tries again, and says so
                    logger.warning("domain_not_held", extra={"domain": name, "reason": str(error)})
            else:
                self._leave(name)

    @asynccontextmanager
    async def used(self, name: str) -> AsyncIterator[None]:
        """Keep a domain in the block, and load it before if need be. What the directory lacks is left to the service.

        Raises NotReadyError if that takes too long, in which case loading goes on, or failed.
        """
        if name not in self._replica.directory:
            yield
            return
        self._num_users[name] += 1
        try:
            await self._require(name)
            yield
        finally:
            self._num_users[name] -= 1
            if not self._num_users[name]:
                del self._num_users[name]
                if name in self._leaving:
                    self._leave(name)

    async def close(self) -> None:
        """Stop what is loading or leaving."""
        self._is_closed = True
        tasks = [*self._loads.values(), *self._releases]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _require(self, name: str) -> None:
        if name in self._listed and name in self._replica.held:
            await self._load(name)  # at once; Ray notes that the domain is used
            return
        since, failure = self._failures.get(name, (0.0, None))
        if failure is not None and asyncio.get_running_loop().time() - since < RETRY_AFTER_S:
            raise failure
        task = self._loads.get(name)
        if task is None:
            task = self._loads[name] = asyncio.create_task(self._load_now(name))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        try:
            async with asyncio.timeout(self._load_s):
                await asyncio.shield(task)
        except TimeoutError as error:
            raise NotReadyError(
                f"the domain {name!r} is still being loaded after {self._load_s:g} s; retry later",
                retry_after_s=RETRY_AFTER_S,
            ) from error

    async def _load_now(self, name: str) -> None:
        try:
            await self._load(name)
            if name not in self._replica.held:  # Ray holds it, but it was taken from the directory meanwhile
                await self._replica.hold(name)
        except Vip5Error as error:
            self._failures[name] = (asyncio.get_running_loop().time(), error)
            raise
        finally:
            del self._loads[name]
        self._failures.pop(name, None)
        self._listed.add(name)
        self._on_change(len(self._replica.held))

    async def _hold(self, name: str) -> Resident:
        self._leaving.discard(name)
        if self._releases:
            await asyncio.gather(*self._releases)
        if name not in self._replica.held:
            await self._replica.hold(name)
        return Resident(name, self._leave)

    def _leave(self, name: str) -> None:
        if self._is_closed:
            return
        self._listed.discard(name)
        self._leaving.discard(name)
        if self._num_users[name]:
            self._leaving.add(name)
            return
        release = asyncio.create_task(self._replica.let_go(name))
        self._releases.add(release)
        release.add_done_callback(self._released)

    def _released(self, release: asyncio.Task[None]) -> None:
        self._releases.discard(release)
        self._on_change(len(self._replica.held))
        if not release.cancelled() and release.exception() is not None:
            logger.error("domain_not_released", exc_info=release.exception())
