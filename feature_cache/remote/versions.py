"""Versions of a domain's embeddings in Redis: the current one, a list of all, and removing one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from feature_cache.errors import NotLoadedError
from feature_cache.remote.layout import Edition, EditionError, SpaceKeys
from feature_cache.remote.link import Link, Reply, checked
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace

KEYS_PER_COMMAND = 500


@dataclass(frozen=True)
class Version:
    """One version in Redis; `edition` is None if its record cannot be read."""

    version: str
    state: str  # loading, complete, unreadable
    is_current: bool
    started_at: str
    edition: Edition | None


async def current_edition(link: Link, space: FeatureSpace, signing: Signing | None = None) -> Edition | None:
    """The edition that is served, if any. Raises EditionError if it is of another encoder or width."""
    record = await link.run("HGETALL", SpaceKeys(space).current)
    return Edition.parse(space, record, signing) if record else None


async def loaded_edition(link: Link, space: FeatureSpace, signing: Signing | None = None) -> Edition:
    """The edition that is served. Raises NotLoadedError and EditionError."""
    edition = await current_edition(link, space, signing)
    if edition is None:
        raise NotLoadedError(
            f"Redis holds no embeddings of {space.domain} by {space.encoder}; load them with `vip5 features load`"
        )
    return edition


async def find_dim(link: Link, domain: str, encoder: str) -> int:
    """Width of the edition that is served. Raises NotLoadedError."""
    dim = await link.run("HGET", SpaceKeys(FeatureSpace(domain, encoder, 0)).current, "dim")
    if dim is None:
        raise NotLoadedError(f"Redis holds no embeddings of {domain} by {encoder}; load them with `vip5 features load`")
    return int(dim)


async def list_versions(link: Link, space: FeatureSpace) -> list[Version]:
    """All versions, oldest first, including incomplete ones."""
    keys = SpaceKeys(space)
    entries = await link.run("HGETALL", keys.versions)
    current = await link.run("HGET", keys.current, "version")
    found = []
    for name, text in entries.items():
        try:
            version = name.decode()
        except UnicodeDecodeError:  # no load wrote it
            continue
        state, started_at = _times_of(text)
        try:
            edition = Edition.from_json(space, text)
        except EditionError:  # for example of another width
            edition = None
        found.append(Version(version, state, name == current, started_at, edition))
    return sorted(found, key=lambda each: each.started_at)


async def drop_version(link: Link, space: FeatureSpace, version: str) -> None:
    """Remove a version; if it is the current one, Redis serves none until the next load. Raises NotLoadedError."""
    keys = SpaceKeys(space)
    entry = await link.run("HGET", keys.versions, version)
    if entry is None:
        known = ", ".join(each.version for each in await list_versions(link, space)) or "none"
        raise NotLoadedError(f"Redis holds no version {version!r} of {space.domain}'s embeddings; it holds {known}")
    if await link.run("HGET", keys.current, "version") == version.encode():
        await link.run("DEL", keys.current)
    edition = _edition_of(space, entry)
    for begin in range(0, edition.num_buckets if edition else 0, KEYS_PER_COMMAND):
        assert edition is not None
        end = min(begin + KEYS_PER_COMMAND, edition.num_buckets)
        checked(await link.run_all([("UNLINK", edition.bucket_key(bucket)) for bucket in range(begin, end)]))
    await link.run("UNLINK", keys.changes(version))
    await link.run("HDEL", keys.versions, version)


def put_items(changes: Reply) -> list[str]:
    """The items that were put, of entries of the stream of changes; those that name none are left out."""
    found = []
    for _, fields in changes:
        with suppress(KeyError, TypeError, ValueError):
            found.append(fields[b"item_id"].decode())
    return found


def _times_of(text: bytes) -> tuple[str, str]:
    """State and start of a version, for the list of versions."""
    try:
        record = json.loads(text)
        return str(record["state"]), str(record["started_at"])
    except (KeyError, TypeError, ValueError):
        return "unreadable", ""


def _edition_of(space: FeatureSpace, text: bytes) -> Edition | None:
    """The edition of a record; None if it cannot be read, so that its values cannot be found."""
    try:
        # The version may be of another width than the space, and the names of keys do not depend on it.
        dim = int(json.loads(text)["edition"]["dim"])
        return Edition.from_json(FeatureSpace(space.domain, space.encoder, dim), text)
    except (EditionError, KeyError, TypeError, ValueError):
        return None
