"""Puts embeddings of single items into the current edition, and announces them to all services."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_cache.remote.layout import Edition
from feature_cache.remote.link import Link, checked
from feature_cache.remote.versions import loaded_edition
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace

CHANGES_KEPT = 100_000

# The revision is the stream's id, so the record alone tells a reader how many changes it has missed.
_ANNOUNCE = """
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'num_items', ARGV[3])
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], revision .. '-0', 'item_id', ARGV[2])
return 1
"""


async def put(
    link: Link,
    space: FeatureSpace,
    item_ids: Sequence[str],
    features: NDArray[np.floating],
    signing: Signing | None = None,
) -> Edition:
    """Put [N, D] embeddings of items; returns the edition that they are in.

    Services notice within their refresh interval. Raises NotLoadedError, EditionError and FeatureValueError.
    """
    while True:
        edition = await loaded_edition(link, space, signing)
        values = edition.codec.encode(item_ids, features)
        pairs = list(zip(item_ids, values, strict=True))
        commands = [("HSET", edition.bucket_key(edition.bucket_of(each)), each, value) for each, value in pairs]
        added = checked(await link.run_all(commands))
        if await _announce(link, edition, item_ids, added):
            return edition
        # Another edition has become current; put the items into that one.


async def _announce(link: Link, edition: Edition, item_ids: Sequence[str], added: Sequence[int]) -> bool:
    keys = edition.keys
    commands = [
        (
            "EVAL",
            _ANNOUNCE,
            2,
            keys.current,
            keys.changes(edition.version),
            edition.version,
            each,
            num_new,
            CHANGES_KEPT,
        )
        for each, num_new in zip(item_ids, added, strict=True)
    ]
    return all(checked(await link.run_all(commands)))
