"""Captured searches on torch's meta device: a budget of launches, and nothing that the host would have to wait for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.launches import Launches, count_launches
from model.engine.captured.buckets import Bucket

BUDGET = 880
BY_PART = {  # one row, 64 tokens, 20 beams, four steps, six layers each
    "encoder layers": 6 * 13,
    "decoder layers": 4 * 6 * 21,
    "search": 202,
    "embedding": 37,
    "beam tree": 10,
    "buffers": 10,
    "head": 8,
    "decoder, rest": 8,
    "memory": 6,
    "banks": 2,
    "encoder, rest": 2,
}
USUAL = Bucket(1, 64, 20, 64, is_mixed=False)


def test_no_part_of_a_search_launches_more_than_its_budget() -> None:
    parts = count_launches(USUAL).parts
    assert {part: number for part, number in parts.items() if number > BY_PART.get(part, 0)} == {}
    assert sum(parts.values()) <= BUDGET


@pytest.mark.parametrize("bucket", [Bucket(32, 64, 20, 64, is_mixed=False), Bucket(1, 512, 50, 64, is_mixed=False)])
def test_larger_batches_launch_as_many_kernels_or_few_more(bucket: Bucket) -> None:
    assert count_launches(bucket).total <= BUDGET + 10


def test_rows_of_several_domains_cost_the_shared_weights_alone() -> None:
    mixed = count_launches(Bucket(32, 64, 20, 64, is_mixed=True)).total
    assert mixed <= BUDGET + 3 * (2 * 6 + 4 * 3 * 6)  # per adapter, three operators more


@pytest.mark.parametrize(
    ("is_mixed", "is_exact", "listed", "rows"), [*itertools.product([False, True], [False, True], [1, 1024], [1, 8])]
)
def test_a_search_of_any_bucket_never_reads_back(*, is_mixed: bool, is_exact: bool, listed: int, rows: int) -> None:
    launches = count_launches(Bucket(rows, 32, 10, listed, is_mixed=is_mixed, is_exact=is_exact))
    assert launches.total > 100
    assert launches.reads == []


@pytest.mark.parametrize("asks", [lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.sum().item()])
def test_a_read_would_be_seen(asks: Callable[[Tensor], object]) -> None:
    with Launches() as launches:
        asks(torch.ones(3))
    assert launches.reads
