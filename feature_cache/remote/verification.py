"""Verifies the embeddings in Redis: all values are intact, none is missing, and a sample equals the source."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from feature_cache.progress import Progress
from feature_cache.remote.layout import Edition
from feature_cache.remote.link import Link, checked
from feature_cache.remote.versions import loaded_edition, put_items
from feature_cache.signing import Signing
from feature_cache.store import FeatureSource, FeatureSpace

BUCKETS_PER_BATCH = 64
MOST_NAMED = 5


@dataclass(frozen=True)
class Verified:
    """What the current edition holds, and what is wrong with it."""

    edition: Edition
    num_items: int
    num_put: int  # items put since the load, which are not compared with the source
    num_compared: int
    faults: tuple[str, ...]


@dataclass
class _Seen:
    """What has been read of an edition."""

    item_ids: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    rows: dict[str, bytes] = field(default_factory=dict)  # of the sample


async def verify(
    link: Link,
    space: FeatureSpace,
    source: FeatureSource | None,
    num_compared: int,
    progress: Progress,
    signing: Signing | None = None,
) -> Verified:
    """Read all values, and compare `num_compared` items with the source. Raises FeatureCacheError."""
    edition = await loaded_edition(link, space, signing)
    changes = await link.run("XRANGE", edition.keys.changes(edition.version), "-", "+")
    put = set(put_items(changes))
    places = {} if source is None else {each: place for place, each in enumerate(source.item_ids) if each not in put}
    sample = set(random.Random(0).sample(sorted(places), min(num_compared, len(places))))  # noqa: S311 - no secret
    seen = await _read_all(link, edition, sample, progress)
    faults = [*_count_faults(edition, seen)]
    if source is not None:
        faults += _source_faults(edition, seen, source, {each: places[each] for each in sample})
        faults += _named("of the source are missing", places.keys() - seen.item_ids)
        faults += _named("are in Redis, but not in the source", seen.item_ids - set(source.item_ids) - put)
    return Verified(edition, len(seen.item_ids), len(put), len(sample), tuple(faults))


async def _read_all(link: Link, edition: Edition, sample: Collection[str], progress: Progress) -> _Seen:
    seen = _Seen()
    for begin in range(0, edition.num_buckets, BUCKETS_PER_BATCH):
        buckets = range(begin, min(begin + BUCKETS_PER_BATCH, edition.num_buckets))
        contents = checked(await link.run_all([("HGETALL", edition.bucket_key(bucket)) for bucket in buckets]))
        for bucket, content in zip(buckets, contents, strict=True):
            _take(edition, bucket, content, sample, seen)
        progress("reading embeddings", buckets[-1] + 1, edition.num_buckets)
    return seen


def _take(edition: Edition, bucket: int, content: Mapping[bytes, bytes], sample: Collection[str], seen: _Seen) -> None:
    for name, value in content.items():
        item_id = name.decode(errors="replace")
        row = edition.codec.row_of(item_id, value)
        if row is None or edition.bucket_of(item_id) != bucket:
            seen.broken.append(item_id)
            continue
        seen.item_ids.add(item_id)
        if item_id in sample:
            seen.rows[item_id] = row


def _count_faults(edition: Edition, seen: _Seen) -> list[str]:
    signature = "" if edition.signing is None else ", without a valid signature"
    what = f"have values that are truncated, of another encoder{signature}, or in the wrong bucket"
    faults = _named(what, seen.broken)
    num_found = len(seen.item_ids) + len(seen.broken)
    if num_found != edition.num_items:
        faults.append(f"{num_found} items are present, but {edition.num_items} were loaded and put")
    return faults


def _source_faults(edition: Edition, seen: _Seen, source: FeatureSource, places: Mapping[str, int]) -> list[str]:
    names = [each for each in places if each in seen.rows]
    if not names:
        return []
    values = edition.codec.encode(names, source.rows(np.array([places[each] for each in names])))
    rows = [edition.codec.row_of(each, value) for each, value in zip(names, values, strict=True)]
    different = [each for each, row in zip(names, rows, strict=True) if seen.rows[each] != row]
    return _named(f"of {len(names)} compared differ from the source", different)


def _named(what: str, item_ids: Collection[str]) -> list[str]:
    if not item_ids:
        return []
    named = ", ".join(map(repr, sorted(item_ids)[:MOST_NAMED]))
    return [f"{len(item_ids)} items {what}: {named}{', …' if len(item_ids) > MOST_NAMED else ''}"]
