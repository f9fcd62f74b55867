"""Shapes that searches are captured for, and which of them a batch takes."""

# B rows, S source length, I images, K beams, E listed leaves

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from model.errors import EngineError


@dataclass(frozen=True, order=True)
class Bucket:
    """One shape. `is_mixed` has room for a domain of its own in each row; else all rows are of one."""

    num_rows: int
    num_tokens: int
    num_beams: int
    num_listed: int
    is_mixed: bool

    def covers(self, other: Bucket) -> bool:
        """Whether what fits the other fits this one."""
        mine, theirs = astuple(self), astuple(other)
        return all(one >= another for one, another in zip(mine, theirs, strict=True))

    @property
    def cost(self) -> int:
        """Rows through the network, roughly: tokens read and beams decoded."""
        return self.num_rows * (self.num_tokens + 4 * self.num_beams)

    def to_json(self) -> dict[str, int | bool]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> Bucket:
        """Read what `to_json` gave. Raises EngineError for anything else."""
        names = [each.name for each in fields(cls)]
        if not isinstance(stored, dict) or sorted(stored) != sorted(names):
            raise EngineError(f"{stored!r} is no bucket; it needs exactly {', '.join(names)}")
        sizes = [stored[name] for name in names[:-1]]
        if not all(type(size) is int and size > 0 for size in sizes) or type(stored["is_mixed"]) is not bool:
            raise EngineError(f"{stored!r} is no bucket; sizes are numbers above 0, is_mixed is true or false")
        return cls(**stored)


def astuple(bucket: Bucket) -> tuple[int, ...]:
    return (bucket.num_rows, bucket.num_tokens, bucket.num_beams, bucket.num_listed, bucket.is_mixed)


@dataclass(frozen=True)
class Ladder:
    """The sizes that buckets are made of, ascending; rows are limited where beams or tokens are many."""

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    tokens: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    beams: tuple[int, ...] = (10, 20, 50, 100, 256)
    listed: tuple[int, ...] = (64, 1024)
    max_beams: int = 5120  # of all rows together
    max_tokens: int = 32768  # likewise

    def holds(self, need: Bucket) -> bool:
        """Whether there is a step for each size; what is beyond runs uncaptured."""
        return (
            need.num_tokens <= self.tokens[-1]
            and need.num_beams <= self.beams[-1]
            and need.num_listed <= self.listed[-1]
            and need.num_rows <= self.max_rows(need)
        )

    def bucket(self, need: Bucket) -> Bucket:
        """The smallest bucket that covers a need; sizes beyond the ladder become powers of two."""
        return replace(
            need,
            num_rows=_step(self.rows, need.num_rows),
            num_tokens=_step(self.tokens, need.num_tokens),
            num_beams=_step(self.beams, need.num_beams),
            num_listed=_step(self.listed, need.num_listed),
        )

    def max_rows(self, need: Bucket) -> int:
        """How many rows of these sizes may run together; at least the smallest step."""
        sized = self.bucket(need)
        limit = min(self.max_beams // sized.num_beams, self.max_tokens // sized.num_tokens)
        return max([rows for rows in self.rows if rows <= limit], default=self.rows[0])

    def default_buckets(self, num_beams: int = 20) -> list[Bucket]:
        """What is captured where nothing was measured: usual prompts at every number of rows, largest first."""
        usual = [tokens for tokens in self.tokens if tokens <= 256] or [self.tokens[0]]
        needs = [
            Bucket(rows, tokens, num_beams, self.listed[0], is_mixed=False) for rows in self.rows for tokens in usual
        ]
        return sorted({self.bucket(need) for need in needs if self.holds(need)}, key=_cost, reverse=True)


def cheapest_cover(buckets: Iterable[Bucket], need: Bucket, *, at_most: int) -> Bucket | None:
    """The cheapest of the buckets that covers a need at a cost of `at_most`."""
    return min((one for one in buckets if one.cost <= at_most and one.covers(need)), key=_cost, default=None)


def _cost(bucket: Bucket) -> int:
    return bucket.cost


def _step(sizes: Sequence[int], needed: int) -> int:
    return next((size for size in sizes if size >= needed), 1 << max(needed - 1, 0).bit_length())
