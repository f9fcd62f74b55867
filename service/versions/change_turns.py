"""Changes of one domain take turns: one at a time, and those that wait too long are told for what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from service.errors import ChangeTimeoutError
from service.versions.replica import Replica


class ChangeTurns:
    """The right to change a domain."""

    def __init__(self, replica: Replica, wait_s: float) -> None:
        """`wait_s` limits each wait for others."""
        self.wait_s = wait_s
        self._replica = replica
        self._changing: dict[str, str] = {}

    @asynccontextmanager
    async def exclusive(self, name: str, change: str) -> AsyncIterator[None]:
        """The exclusive right to change a domain. Raises ChangeTimeoutError, which names the other change."""
        async with AsyncExitStack() as locked:
            try:
                async with asyncio.timeout(self.wait_s):
                    await locked.enter_async_context(self._replica.lock(name))
            except TimeoutError as error:
                other = self._changing.get(name, "a change in the journal")
                raise ChangeTimeoutError(
                    f"{other} of {name!r} has been in progress for more than {self.wait_s:g} s; nothing has changed, "
                    "so repeat this one later"
                ) from error
            self._changing[name] = change
            try:
                yield
            finally:
                del self._changing[name]
