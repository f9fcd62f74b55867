"""Checks whether Redis stores embeddings in its compact form."""

from __future__ import annotations

from redis.exceptions import RedisError

from feature_cache.remote.layout import Edition
from feature_cache.remote.link import Link

PARAMETER = "hash-max-listpack-value"


async def advice(link: Link, edition: Edition) -> str:
    """What to set on the server if it does not pack buckets; empty if it does, or if that is not known."""
    try:
        found = await link.run("OBJECT", "ENCODING", edition.bucket_key(0))
        if found is None or found in (b"listpack", b"ziplist"):
            return ""
    except RedisError:
        return ""
    return (
        f"note: embeddings take about 1.3 times their size in Redis, because {PARAMETER} is below"
        f" {edition.codec.value_bytes}; set `{PARAMETER} 8192` in redis.conf and load again for 1.12 times"
    )
