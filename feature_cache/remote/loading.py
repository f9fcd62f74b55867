"""Loads a new edition of embeddings into Redis, and switches to it once it is complete.

A load writes under a new version, which nobody reads until one script makes it current. A load that is killed leaves
the served edition in place, and the next one removes its remains. Items that are put during a load are carried over.
"""

# N items of the source, D width

from __future__ import annotations

import asyncio
import json
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from feature_cache.codec import DType
from feature_cache.progress import Progress
from feature_cache.remote.layout import Edition, SpaceKeys
from feature_cache.remote.link import Link, Reply, checked
from feature_cache.remote.locking import LoadLock
from feature_cache.remote.versions import current_edition, drop_version, list_versions, put_items
from feature_cache.signing import Signing
from feature_cache.store import FeatureSource, FeatureSpace

BATCH_BYTES = 2_000_000
LONGEST_BATCH_S = 30.0

# Switches only if nothing was put or switched since the loader last read the record, so that no put is lost.
_SWITCH = """
local seen = redis.call('HMGET', KEYS[1], 'version', 'revision')
if (seen[1] or '') ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return 1
"""


@dataclass(frozen=True)
class Loaded:
    """Result of a load."""

    edition: Edition
    num_carried_over: int  # items put during the load
    num_lost: int  # items put during the load that could not be carried over
    dropped: tuple[str, ...]  # older versions that were removed


@dataclass(frozen=True)
class LoadOptions:
    """Options of a load. Older versions stay for `grace_s` after the switch, until every service has noticed it."""

    dtype: DType = "float16"
    grace_s: float = 2.0
    signing: Signing | None = None


async def load(
    link: Link, space: FeatureSpace, source: FeatureSource, options: LoadOptions, progress: Progress
) -> Loaded:
    """Load all embeddings of a source. Raises FeatureCacheError, and leaves the served edition in place then."""
    keys = SpaceKeys(space)
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    planned = Edition.plan(space, version, options.dtype, len(source.item_ids), link.num_slices, options.signing)
    async with LoadLock(link, keys.loading) as lock:
        before = await current_edition(link, space, options.signing)
        await _run(link, "HSET", keys.versions, version, _entry(planned, "loading"))
        await _write(link, planned, source, lock, progress)
        edition, num_carried, num_lost = await _switch(link, planned, before, lock)
        progress("dropping older versions", 0, None)
        dropped = await _drop_others(link, space, version, options.grace_s, lock)
    return Loaded(edition, num_carried, num_lost, dropped)


async def _write(link: Link, edition: Edition, source: FeatureSource, lock: LoadLock, progress: Progress) -> None:
    """Write all items bucket by bucket, each bucket with one command."""
    item_ids, num_done = source.item_ids, 0
    for places in _batches(edition, item_ids):
        names = [item_ids[place] for place in places]
        values = edition.codec.encode(names, source.rows(places))
        buckets: dict[int, list[str | bytes]] = {}
        for name, value in zip(names, values, strict=True):
            buckets.setdefault(edition.bucket_of(name), []).extend((name, value))
        commands = [("HSET", edition.bucket_key(bucket), *pairs) for bucket, pairs in buckets.items()]
        await lock.hold()
        await _run_all(link, commands)
        num_done += len(places)
        progress("loading embeddings", num_done, len(item_ids))


def _batches(edition: Edition, item_ids: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """Places of the items in batches of whole buckets."""
    num_items = len(item_ids)
    hashes = np.fromiter((zlib.crc32(item_id.encode()) for item_id in item_ids), dtype=np.uint32, count=num_items)
    bucket_of = hashes % np.uint32(edition.num_buckets)
    order = np.argsort(bucket_of, kind="stable")
    per_batch = max(1, BATCH_BYTES // edition.codec.value_bytes)
    starts = np.flatnonzero(np.diff(bucket_of[order], prepend=-1))  # of each bucket in `order`
    begin = 0
    while begin < num_items:
        place = int(np.searchsorted(starts, begin + per_batch))
        end = int(starts[place]) if place < len(starts) else num_items
        yield order[begin:end]
        begin = end


async def _switch(link: Link, planned: Edition, before: Edition | None, lock: LoadLock) -> tuple[Edition, int, int]:
    """Make the edition current, with the items put since `before` was read."""
    keys, edition = SpaceKeys(planned.space), planned
    carried: set[str] = set()
    num_lost = 0
    while True:
        now = await current_edition(link, planned.space, planned.signing)
        if before is not None and now is not None and now.version == before.version:
            put, num_missed = await _put_between(link, before, now)
            carried_now, num_new = await _carry_over(link, now, edition, put)
            carried |= carried_now
            num_lost += num_missed + len(set(put) - carried_now)
            edition = replace(edition, num_items=edition.num_items + num_new)
        before = now
        await lock.hold()
        expected = ("", "") if now is None else (now.version, now.revision)
        record = [part for pair in edition.record.items() for part in pair]
        entry = _entry(edition, "complete")
        command = (*expected, edition.version, entry, *record)
        if await _run(link, "EVAL", _SWITCH, 2, keys.current, keys.versions, *command):
            return edition, len(carried), num_lost


async def _put_between(link: Link, before: Edition, now: Edition) -> tuple[list[str], int]:
    """Items put between two reads of a record, and the number of puts that the stream no longer holds."""
    changes = await _run(link, "XRANGE", SpaceKeys(now.space).changes(now.version), f"({before.revision}-0", "+")
    put = put_items(changes)
    return list(dict.fromkeys(put)), max(0, now.revision - before.revision - len(put))


async def _carry_over(link: Link, old: Edition, new: Edition, item_ids: Sequence[str]) -> tuple[set[str], int]:
    """Copy items into the new edition; returns those that were copied, and how many of them it did not have."""
    values = await _run_all(link, [("HGET", old.bucket_key(old.bucket_of(each)), each) for each in item_ids])
    rows = {each: old.codec.row_of(each, value) for each, value in zip(item_ids, values, strict=True)}
    names = [each for each, row in rows.items() if row is not None]
    if not names:
        return set(), 0
    features = old.codec.decode([row for row in rows.values() if row is not None])
    encoded = zip(names, new.codec.encode(names, features), strict=True)
    added = await _run_all(
        link, [("HSET", new.bucket_key(new.bucket_of(each)), each, value) for each, value in encoded]
    )
    return set(names), sum(added)


async def _drop_others(
    link: Link, space: FeatureSpace, version: str, grace_s: float, lock: LoadLock
) -> tuple[str, ...]:
    others = [found.version for found in await list_versions(link, space) if found.version != version]
    if others:
        await asyncio.sleep(grace_s)
    for other in others:
        await lock.hold()
        await drop_version(link, space, other)
    return tuple(others)


def _entry(edition: Edition, state: str) -> str:
    return json.dumps({"state": state, "started_at": datetime.now(UTC).isoformat(), "edition": edition.record})


async def _run(link: Link, *command: str | int | bytes) -> Reply:
    async with asyncio.timeout(LONGEST_BATCH_S):
        return await link.run(*command)


async def _run_all(link: Link, commands: Sequence[Sequence[str | int | bytes]]) -> Sequence[Reply]:
    async with asyncio.timeout(LONGEST_BATCH_S):
        return checked(await link.run_all(commands))
