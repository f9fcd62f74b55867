"""Lock that lets one load run at a time; it expires soon after its holder has died."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Self

from feature_cache.errors import RedisUnavailableError
from feature_cache.remote.link import FAULTS, Link

LIFE_S = 60

_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class LoadLock:
    """Held within a block. Raises RedisUnavailableError if another load holds it."""

    def __init__(self, link: Link, key: str) -> None:
        self._link = link
        self._key = key
        self._owner = secrets.token_hex(8)

    async def __aenter__(self) -> Self:
        if not await self._link.run("SET", self._key, self._owner, "NX", "EX", LIFE_S):
            raise RedisUnavailableError(
                f"another load of these embeddings is running, or was killed less than {LIFE_S} s ago; wait for it, or"
                f" delete the key {self._key}"
            )
        return self

    async def hold(self) -> None:
        """Renew the lock before each step. Raises RedisUnavailableError if it has been lost."""
        if not await self._link.run("EVAL", _RENEW, 1, self._key, self._owner, LIFE_S * 1000):
            raise RedisUnavailableError(
                "the load lost its lock, because it paused for too long or another load took over; the served version"
                " has not changed, so load again"
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._link.run("EVAL", _RELEASE, 1, self._key, self._owner)
        except FAULTS:
            if error is None:  # else the first error matters; the lock expires by itself
                raise
