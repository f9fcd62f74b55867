"""Layout of embeddings in Redis: the names of keys, and the record of the current edition.

    vip5:{toys:vitb32}:current          hash: the edition that is served; one script switches to another
    vip5:{toys:vitb32}:versions         hash: version -> its record as JSON, including incomplete ones
    vip5:{toys:vitb32}:changes:VERSION  stream: items put since the edition was loaded, with the revision as id
    vip5:{toys:vitb32}:loading          lock of the running load
    vip5:{toys:vitb32:VERSION:S}:B      hash: item id -> value, for the items of bucket B, in slice S

A bucket holds about 24 items, so that Redis stores it as one packed listpack. A slice is a group of buckets in one slot
of a cluster, so that one command can read many buckets; a single server needs one slice only.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote

from feature_cache.codec import DTYPES, Codec, DType
from feature_cache.errors import FeatureCacheError
from feature_cache.signing import Signing
from feature_cache.store import FeatureSpace

PREFIX = "vip5"
BUCKET_BYTES = 25_000


class EditionError(FeatureCacheError):
    """A record in Redis that cannot be read, or is of another encoder or width."""


@dataclass(frozen=True)
class SpaceKeys:
    """Keys of one domain and encoder. All but the buckets share a slot, so that scripts may use them together."""

    space: FeatureSpace

    @cached_property
    def _tag(self) -> str:
        # Quoting keeps the braces and colons that structure a key out of names.
        return f"{quote(self.space.domain, safe='')}:{quote(self.space.encoder, safe='')}"

    @property
    def current(self) -> str:
        return f"{PREFIX}:{{{self._tag}}}:current"

    @property
    def versions(self) -> str:
        return f"{PREFIX}:{{{self._tag}}}:versions"

    @property
    def loading(self) -> str:
        return f"{PREFIX}:{{{self._tag}}}:loading"

    def changes(self, version: str) -> str:
        return f"{PREFIX}:{{{self._tag}}}:changes:{version}"

    def bucket(self, version: str, slice_: int, bucket: int) -> str:
        return f"{PREFIX}:{{{self._tag}:{version}:{slice_}}}:{bucket}"


@dataclass(frozen=True)
class Edition:
    """One complete set of embeddings of a domain, and its layout in Redis."""

    space: FeatureSpace
    version: str
    dtype: DType
    num_buckets: int
    num_slices: int
    num_items: int
    revision: int  # number of items put since the load
    signing: Signing | None = field(default=None, compare=False)

    @classmethod
    def plan(
        cls,
        space: FeatureSpace,
        version: str,
        dtype: DType,
        num_items: int,
        num_slices: int,
        signing: Signing | None = None,
    ) -> Edition:
        """Plan the layout of `num_items` items."""
        value_bytes = Codec(space.encoder, dtype, space.dim).value_bytes
        per_bucket = max(4, min(64, BUCKET_BYTES // value_bytes))
        num_buckets = max(1, -(-num_items // per_bucket))
        return cls(space, version, dtype, num_buckets, min(num_slices, num_buckets), num_items, 0, signing)

    @classmethod
    def parse(cls, space: FeatureSpace, fields: Mapping[bytes, bytes], signing: Signing | None = None) -> Edition:
        """Read the hash `current`. Raises EditionError."""
        try:
            record = {name.decode(): value.decode() for name, value in fields.items()}
            return cls._of(space, record, signing)
        except (KeyError, ValueError) as error:
            raise EditionError(
                f"the record of {space.domain}'s embeddings in Redis cannot be read ({error!r}); load them again"
            ) from error

    @classmethod
    def from_json(cls, space: FeatureSpace, text: bytes) -> Edition:
        """Read an entry of the hash `versions`. Raises EditionError."""
        try:
            return cls._of(space, json.loads(text)["edition"])
        except (KeyError, TypeError, ValueError) as error:
            raise EditionError(
                f"a version of {space.domain}'s embeddings in Redis has a record that cannot be read ({error!r})"
            ) from error

    @classmethod
    def _of(cls, space: FeatureSpace, record: Mapping[str, str | int], signing: Signing | None = None) -> Edition:
        found = (str(record["encoder"]), int(record["dim"]))
        if found != (space.encoder, space.dim):
            raise EditionError(
                f"Redis holds embeddings of {space.domain} by {found[0]}, {found[1]} wide, but the model reads those by"
                f" {space.encoder}, {space.dim} wide; load those"
            )
        if record["dtype"] not in DTYPES:
            raise ValueError(f"dtype {record['dtype']!r}")
        numbers = [int(record[name]) for name in ("num_buckets", "num_slices", "num_items", "revision")]
        if min(numbers[:2]) < 1 or min(numbers) < 0:
            raise ValueError(f"sizes {numbers}")
        num_buckets, num_slices, num_items, revision = numbers
        dtype: DType = "float16" if record["dtype"] == "float16" else "float32"
        return cls(space, str(record["version"]), dtype, num_buckets, num_slices, num_items, revision, signing)

    @property
    def record(self) -> dict[str, str | int]:
        """Fields of the hash `current`."""
        return {
            "version": self.version,
            "dtype": self.dtype,
            "num_buckets": self.num_buckets,
            "num_slices": self.num_slices,
            "num_items": self.num_items,
            "revision": self.revision,
            "encoder": self.space.encoder,
            "dim": self.space.dim,
        }

    @cached_property
    def codec(self) -> Codec:
        space = self.space
        context = (space.domain, space.encoder, str(space.dim), self.dtype, self.version)
        signer = None if self.signing is None else self.signing.signer("features", *context)
        return Codec(space.encoder, self.dtype, space.dim, signer)

    @cached_property
    def keys(self) -> SpaceKeys:
        return SpaceKeys(self.space)

    def bucket_of(self, item_id: str) -> int:
        return zlib.crc32(item_id.encode()) % self.num_buckets

    def bucket_key(self, bucket: int) -> str:
        return self.keys.bucket(self.version, bucket % self.num_slices, bucket)

    def bucket_keys(self, item_ids: Sequence[str]) -> list[str]:
        """For each item the key of the bucket that holds it."""
        return [self.bucket_key(self.bucket_of(item_id)) for item_id in item_ids]
