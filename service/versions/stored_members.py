"""The replicas' keys in Redis and the atomic steps on them. Knows nothing of what replicas say.

Keys are `vip5:{ID}:replicas` (a hash: what each replica says of itself, by its id) and `vip5:{ID}:leases` (a sorted set
of the ids by their last heartbeat, in milliseconds of Redis' own clock, so that replicas' clocks need not agree).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feature_cache.remote.link import Link

MAX_LISTED = 1_000
"""Replicas that are listed, the latest heard of first."""

_NOW = """
local replicas, leases = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# id, content, milliseconds after which a replica is forgotten
_BEAT = (
    _NOW
    + """
local forget_ms = tonumber(ARGV[3])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now - forget_ms)) do
  redis.call('ZREM', leases, id)
  redis.call('HDEL', replicas, id)
end
redis.call('HSET', replicas, ARGV[1], ARGV[2])
redis.call('ZADD', leases, now, ARGV[1])
redis.call('PEXPIRE', replicas, forget_ms)
redis.call('PEXPIRE', leases, forget_ms)
return 1
"""
)

# milliseconds after which a replica is forgotten, most replicas
_LIST = (
    _NOW
    + """
local found = {}
local ids = redis.call('ZREVRANGEBYSCORE', leases, '+inf', now - tonumber(ARGV[1]), 'LIMIT', 0, tonumber(ARGV[2]))
for _, id in ipairs(ids) do
  local content = redis.call('HGET', replicas, id)
  if content then
    found[#found + 1] = id
    found[#found + 1] = math.max(0, now - tonumber(redis.call('ZSCORE', leases, id)))
    found[#found + 1] = content
  end
end
return found
"""
)

# id
_LEAVE = "redis.call('HDEL', KEYS[1], ARGV[1]) return redis.call('ZREM', KEYS[2], ARGV[1])"


@dataclass(frozen=True)
class StoredMember:
    """What is stored of a replica, and the age of its last heartbeat."""

    id: str
    age_s: float
    content: bytes


class StoredMembers:
    """All methods raise one of FAULTS."""

    def __init__(self, link: Link, service_id: str, forget_s: float) -> None:
        """Replicas that were not heard of for `forget_s` are dropped."""
        self._link = link
        self._keys = tuple(f"vip5:{{{service_id}}}:{part}" for part in ("replicas", "leases"))
        self._forget_ms = round(forget_s * 1000)

    async def beat(self, member_id: str, content: bytes) -> None:
        """Renew a replica's lease, and store what it says."""
        await self._link.run("EVAL", _BEAT, 2, *self._keys, member_id, content, self._forget_ms)

    async def listed(self) -> Sequence[StoredMember]:
        flat = await self._link.run("EVAL", _LIST, 2, *self._keys, self._forget_ms, MAX_LISTED)
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return [StoredMember(found.decode(errors="replace"), int(age) / 1000, text) for found, age, text in triples]

    async def leave(self, member_id: str) -> None:
        await self._link.run("EVAL", _LEAVE, 2, *self._keys, member_id)
