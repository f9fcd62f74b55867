"""Buckets: the shapes that searches are captured for, and the choice of one for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from model.errors import EngineError

_NUM_SIZES = 4  # the first fields of a bucket
_NUM_REQUIRED = 5


@dataclass(frozen=True, order=True)
class Bucket:
    """Upper limits of a batch. With `is_mixed` each row may have its own domain; otherwise all rows share one.

    With `is_exact` products are in float32, of which an engine with narrower ones can prove nothing. Searches without
    boosts have no patches, and none of the work for them.
    """

    num_rows: int
    num_tokens: int  # of the longest prompt
    num_beams: int
    num_listed: int  # leaves in the longest list of included or excluded items
    is_mixed: bool
    is_exact: bool = False
    num_patches: int = 0  # of the row with the most, with a place for padding; 0 without boosts

    def covers(self, other: Bucket) -> bool:
        """Whether every batch that fits the other bucket fits this one."""
        mine, theirs = astuple(self), astuple(other)
        is_alike = (self.is_exact, self.is_boosted) == (other.is_exact, other.is_boosted)
        return is_alike and all(one >= another for one, another in zip(mine, theirs, strict=True))

    @property
    def is_boosted(self) -> bool:
        return self.num_patches > 0

    @property
    def cost(self) -> int:
        """Estimated work: tokens to encode and beams to decode."""
        return self.num_rows * (self.num_tokens + 4 * self.num_beams)

    def to_json(self) -> dict[str, int | bool]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> Bucket:
        """Inverse of `to_json`. Raises EngineError for invalid input."""
        names = [each.name for each in fields(cls)]
        required = names[:_NUM_REQUIRED]  # the others have defaults
        if not isinstance(stored, dict) or not set(required) <= set(stored) <= set(names):
            raise EngineError(f"{stored!r} is not a bucket; it must have exactly the keys {', '.join(required)}")
        sizes = [stored[name] for name in names[:_NUM_SIZES]]
        flags = [stored[name] for name in ("is_mixed", "is_exact") if name in stored]
        patches = stored.get("num_patches", 0)
        if (
            not all(type(size) is int and size > 0 for size in sizes)
            or not all(type(flag) is bool for flag in flags)
            or not (type(patches) is int and patches >= 0)
        ):
            raise EngineError(f"{stored!r} is not a bucket; sizes must be integers above 0, is_mixed true or false")
        return cls(**stored)


def astuple(bucket: Bucket) -> tuple[int, ...]:
    sizes = (bucket.num_rows, bucket.num_tokens, bucket.num_beams, bucket.num_listed)
    return (*sizes, bucket.is_mixed, bucket.num_patches)


@dataclass(frozen=True)
class Ladder:
    """Allowed sizes of buckets, ascending. `max_beams` and `max_tokens` limit the rows of large buckets."""

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    tokens: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    beams: tuple[int, ...] = (10, 20, 50, 100, 256)
    listed: tuple[int, ...] = (64, 1024)
    patches: tuple[int, ...] = (256, 4096)
    max_beams: int = 5120  # total of all rows
    max_tokens: int = 32768  # total of all rows

    def holds(self, need: Bucket) -> bool:
        """Whether all sizes are within the ladder; larger searches run uncaptured."""
        return (
            need.num_tokens <= self.tokens[-1]
            and need.num_beams <= self.beams[-1]
            and need.num_listed <= self.listed[-1]
            and need.num_patches <= self.patches[-1]
            and need.num_rows <= self.max_rows(need)
        )

    def bucket(self, need: Bucket) -> Bucket:
        """Round sizes up to the ladder; sizes beyond it become powers of two."""
        return replace(
            need,
            num_rows=_step(self.rows, need.num_rows),
            num_tokens=_step(self.tokens, need.num_tokens),
            num_beams=_step(self.beams, need.num_beams),
            num_listed=_step(self.listed, need.num_listed),
            num_patches=_step(self.patches, need.num_patches) if need.is_boosted else 0,
        )

    def max_rows(self, need: Bucket) -> int:
        """Largest number of rows with these sizes; at least the ladder's smallest."""
        sized = self.bucket(need)
        limit = min(self.max_beams // sized.num_beams, self.max_tokens // sized.num_tokens)
        return max([rows for rows in self.rows if rows <= limit], default=self.rows[0])

    def default_buckets(self, num_beams: int = 20) -> list[Bucket]:
        """Buckets to capture by default: common prompt lengths with every number of rows, largest first."""
        usual = [tokens for tokens in self.tokens if tokens <= 256] or [self.tokens[0]]
        needs = [
            Bucket(rows, tokens, num_beams, self.listed[0], is_mixed=False) for rows in self.rows for tokens in usual
        ]
        return sorted({self.bucket(need) for need in needs if self.holds(need)}, key=_cost, reverse=True)


def cheapest_cover(buckets: Iterable[Bucket], need: Bucket, *, at_most: int) -> Bucket | None:
    """The cheapest bucket that covers a need and costs `at_most`; None if there is none."""
    return min((one for one in buckets if one.cost <= at_most and one.covers(need)), key=_cost, default=None)


def _cost(bucket: Bucket) -> int:
    return bucket.cost


def _step(sizes: Sequence[int], needed: int) -> int:
    return next((size for size in sizes if size >= needed), 1 << max(needed - 1, 0).bit_length())
