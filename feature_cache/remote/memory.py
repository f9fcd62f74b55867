"""What embeddings cost a Redis in memory, and what would make them cost less."""

from __future__ import annotations

from redis.exceptions import RedisError

from feature_cache.remote.layout import Edition
from feature_cache.remote.link import Link

PARAMETER = "hash-max-listpack-value"


async def advice(link: Link, edition: Edition) -> str:
    """What to set on the server, if it keeps buckets unpacked; empty if it packs them, or does not tell."""
    try:
        found = await link.run("OBJECT", "ENCODING", edition.bucket_key(0))
        if found is None or found in (b"listpack", b"ziplist"):
            return ""
    except RedisError:
        return ""
    return (
        f"note: Redis keeps each embedding in about 1.3 times its size, since {PARAMETER} is below"
        f" {edition.codec.value_bytes}; with `{PARAMETER} 8192` in redis.conf, and another load, it is 1.12 times"
    )
