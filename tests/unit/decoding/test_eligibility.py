from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.batch_eligibility import BatchEligibility
from model.decoding.eligibility import Eligibility, LeafMask


@dataclass(frozen=True)
class Asked:
    """A request's constraints on the leaves of one trie."""

    is_member: list[bool]
    exclude: list[int]
    include: list[int] | None

    def eligibility(self, base: LeafMask | None = None) -> Eligibility:
        base = base or LeafMask.of(np.array(self.is_member))
        return Eligibility.of(base, exclude=iter(self.exclude), include=self.include)

    def expected(self) -> list[bool]:
        return [
            is_member and leaf not in self.exclude and (self.include is None or leaf in self.include)
            for leaf, is_member in enumerate(self.is_member)
        ]


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    is_member = draw(st.lists(st.booleans(), min_size=1, max_size=12))
    leaves = st.lists(st.integers(0, len(is_member) - 1), max_size=8)
    return Asked(is_member, draw(leaves), draw(st.none() | leaves))


@given(asked())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_eligible_leaves_are_members_that_are_not_excluded_and_are_included(request: Asked) -> None:
    eligibility = request.eligibility()
    assert eligibility.mask().tolist() == request.expected()
    assert eligibility.num_eligible == sum(request.expected())


@given(asked())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_making_constraints_leaves_the_shared_mask_as_it_was(request: Asked) -> None:
    base = LeafMask.of(np.array(request.is_member))
    request.eligibility(base).mask()
    assert base.is_member.tolist() == request.is_member
    assert base.num_members == sum(request.is_member)
    assert base.cumulative.tolist() == [sum(request.is_member[:end]) for end in range(len(request.is_member) + 1)]


@given(st.lists(asked(), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_batch_counts_the_eligible_leaves_of_every_interval(requests: list[Asked]) -> None:
    device = BatchEligibility.of([request.eligibility() for request in requests])
    most = max(len(request.is_member) for request in requests)
    intervals = [(low, high) for low in range(most + 1) for high in range(low, most + 1)]
    bounds = np.array([
        [(min(low, len(request.is_member)), min(high, len(request.is_member))) for low, high in intervals]
        for request in requests
    ])  # fmt: skip
    counts = device.count(torch.from_numpy(bounds.astype(np.int32)))
    for request, row_bounds, row_counts in zip(requests, bounds.tolist(), counts.tolist(), strict=True):
        expected = request.expected()
        assert row_counts == [sum(expected[low:high]) for low, high in row_bounds]


def test_rows_with_the_same_mask_share_its_prefix_sum() -> None:
    shared, other = LeafMask.of(np.array([True, False, True])), LeafMask.of(np.array([True, True]))
    device = BatchEligibility.of([Eligibility.of(shared), Eligibility.of(other), Eligibility.of(shared, exclude=[2])])
    assert device.cumulative.tolist() == [0, 1, 1, 2, 0, 1, 2]
    assert device.base_offset.flatten().tolist() == [0, 4, 0]
