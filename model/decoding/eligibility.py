"""Which leaves of a trie a request may return.

Every node covers an interval [lo, hi) of leaves. The number of eligible leaves below a node is a difference of two
prefix sums, minus the excluded leaves in the interval. A new constraint either becomes part of the base mask, which
requests with the same filter share, or of the lists of a single request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LeafMask:
    """A set of leaves as a mask and its prefix sum. Shared by all requests with the same filter."""

    is_member: NDArray[np.bool_]  # [N]
    cumulative: NDArray[np.int32]  # [N + 1], cumulative[i] = members among the first i leaves
    key: bytes = b""  # names the filter among those of one version of a domain; empty: all active items

    @classmethod
    def of(cls, is_member: NDArray[np.bool_], key: bytes = b"") -> LeafMask:
        cumulative = np.zeros(len(is_member) + 1, dtype=np.int32)
        np.cumsum(is_member, out=cumulative[1:], dtype=np.int32)
        return cls(is_member=is_member, cumulative=cumulative, key=key)

    @property
    def num_members(self) -> int:
        return int(self.cumulative[-1])

    @property
    def num_bytes(self) -> int:
        return self.is_member.nbytes + self.cumulative.nbytes


@dataclass(frozen=True, eq=False)
class Eligibility:
    """The leaves that one request may return.

    Either the members of `base` without `excluded`, or, if `included` is given, exactly those leaves (`base` and the
    exclusions are already applied). Both lists are sorted and unique, and `excluded` contains members of `base` only.
    """

    base: LeafMask
    excluded: NDArray[np.int32]
    included: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, base: LeafMask, *, exclude: Iterable[int] = (), include: Iterable[int] | None = None) -> Eligibility:
        """Build from leaf numbers in any order; repetitions are allowed."""
        excluded = _members(exclude, base)
        if include is None:
            return cls(base=base, excluded=excluded)
        included = np.setdiff1d(_members(include, base), excluded, assume_unique=True)
        return cls(base=base, excluded=excluded[:0], included=included)

    @property
    def num_eligible(self) -> int:
        if self.included is not None:
            return len(self.included)
        return self.base.num_members - len(self.excluded)

    def admits(self, leaves: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Eligibility of leaf numbers [R], which may be out of range: [R]."""
        if self.included is not None:
            return _are_among(leaves, self.included)
        is_member, numbers = self.base.is_member, leaves.tolist()
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(is_member):
            is_leaf = (leaves >= 0) & (leaves < len(is_member))
            return is_leaf & is_member[np.where(is_leaf, leaves, 0)] & ~_are_among(leaves, self.excluded)
        admitted: NDArray[np.bool_] = is_member[leaves]
        if len(self.excluded) and not set(self.excluded.tolist()).isdisjoint(numbers):
            admitted &= ~_are_among(leaves, self.excluded)
        return admitted

    def mask(self) -> NDArray[np.bool_]:
        """Eligibility of every leaf: [N]."""
        if self.included is not None:
            is_eligible = np.zeros_like(self.base.is_member)
            is_eligible[self.included] = True
            return is_eligible
        is_eligible = self.base.is_member.copy()
        is_eligible[self.excluded] = False
        return is_eligible


def _members(leaves: Iterable[int], base: LeafMask) -> NDArray[np.int32]:
    is_member = base.is_member.item
    return np.array([leaf for leaf in sorted(set(leaves)) if is_member(leaf)], dtype=np.int32)


def _are_among(leaves: NDArray[np.int64], ordered: NDArray[np.int32]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(leaves), dtype=np.bool_)
    places = np.searchsorted(ordered, leaves).clip(max=len(ordered) - 1)
    are_among: NDArray[np.bool_] = ordered[places] == leaves
    return are_among
