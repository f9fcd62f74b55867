"""Buffers of the captured engine for catalogs and filters that come and go; buckets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.eligibility import LeafMask
from model.decoding.nodes import rows_at
from model.decoding.trie import Trie
from model.engine.captured.buckets import Bucket, Ladder, cheapest_cover
from model.engine.captured.catalog import DeviceCatalog
from model.engine.captured.options import read_buckets
from model.engine.captured.spans import SpanAllocator
from model.errors import EngineError

CPU = torch.device("cpu")


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_taken_spans_never_overlap_and_all_room_comes_back(asked: list[tuple[bool, int]]) -> None:
    spans, taken = SpanAllocator(20), list[tuple[int, int]]()
    for gives_back, size in asked:
        if gives_back and taken:
            spans.free(*taken.pop(size % len(taken)))
        elif (start := spans.allocate(size)) is not None:
            taken.append((start, size))
        else:
            spans.grow(spans.capacity + size)
        places = [place for start, length in taken for place in range(start, start + length)]
        assert len(places) == len(set(places)) == spans.num_allocated
        assert max(places, default=0) < spans.capacity
    for start, length in taken:
        spans.free(start, length)
    assert spans.allocate(spans.capacity) == 0


def test_tries_keep_their_places_when_others_come_go_and_make_the_buffers_grow() -> None:
    catalog = DeviceCatalog(CPU)
    tries = {slot: _trie(40 * (slot + 1), seed=slot) for slot in range(4)}
    for slot, trie in tries.items():
        catalog.put(slot, trie)
    roots = {slot: catalog.root(slot) for slot in tries}
    catalog.drop(1)
    before = catalog.arrays
    catalog.put(7, _trie(3000, seed=9))
    assert catalog.arrays is not before
    for slot in (0, 2, 3):
        assert catalog.root(slot) == roots[slot]
        _assert_holds(catalog, slot, tries[slot])
    _assert_holds(catalog, 7, catalog.trie(7))


def test_a_trie_in_the_place_of_another_moves_no_buffer() -> None:
    catalog = DeviceCatalog(CPU)
    catalog.put(0, _trie(50, seed=1))
    arrays = catalog.arrays
    for seed in range(30):
        catalog.put(0, _trie(50, seed=seed))
    _assert_holds(catalog, 0, catalog.trie(0))
    assert catalog.arrays is arrays


def test_a_filter_is_uploaded_once_and_its_room_is_used_again_when_nothing_refers_to_it() -> None:
    catalog = DeviceCatalog(CPU)
    kept = LeafMask.of(np.ones(1000, dtype=np.bool_))
    place = catalog.offset(kept)
    assert catalog.offset(kept) == place
    arrays = catalog.arrays
    for _ in range(20):
        catalog.offset(LeafMask.of(np.zeros(1500, dtype=np.bool_)))
    assert catalog.arrays is arrays
    assert catalog.num_filters == 1
    sums = arrays.cumulative[place : place + 1001]
    assert torch.equal(sums, torch.from_numpy(kept.cumulative))


def test_every_leaf_of_a_trie_finds_a_number_before_any_filter_is_there() -> None:
    catalog = DeviceCatalog(CPU)
    catalog.put(0, _trie(9000, seed=0))
    assert len(catalog.arrays.cumulative) > 9000


def test_room_for_children_serves_every_trie_in_powers_of_two() -> None:
    catalog = DeviceCatalog(CPU)
    wide, deep = _build([(token,) for token in range(2, 9)]), _build([(2, 3, 4, 5), (2, 3)])
    catalog.put(0, wide)
    assert catalog.max_children(3) == (8, 4)
    catalog.put(1, deep)
    assert catalog.max_children(3) == (8, 4, 2, 1, 1)
    catalog.drop(0)
    assert catalog.max_children(3) == (1, 1, 2, 1, 1)


def test_the_bucket_of_a_need_is_the_next_step_of_each_size() -> None:
    ladder = Ladder()
    need = Bucket(3, 55, 20, 7, is_mixed=False)
    assert ladder.bucket(need) == Bucket(4, 64, 20, 64, is_mixed=False)
    assert ladder.holds(need)
    assert ladder.bucket(Bucket(1, 2000, 300, 5000, is_mixed=True)) == Bucket(1, 2048, 512, 8192, is_mixed=True)
    assert not ladder.holds(Bucket(1, 55, 300, 7, is_mixed=False))


def test_rows_are_limited_where_beams_or_tokens_are_many() -> None:
    ladder = Ladder(max_beams=640, max_tokens=4096)
    assert ladder.max_rows(Bucket(1, 32, 10, 1, is_mixed=False)) == 64
    assert ladder.max_rows(Bucket(1, 512, 10, 1, is_mixed=False)) == 8
    assert ladder.max_rows(Bucket(1, 32, 1000, 1, is_mixed=False)) == 1


def test_the_cheapest_cover_within_reach_is_taken() -> None:
    need = Bucket(3, 60, 20, 7, is_mixed=False)
    near, far = Bucket(4, 64, 20, 64, is_mixed=True), Bucket(128, 64, 20, 64, is_mixed=False)
    narrow = Bucket(4, 64, 10, 64, is_mixed=False)
    assert cheapest_cover([far, narrow, near], need, at_most=need.cost * 2) == near
    assert cheapest_cover([far, narrow], need, at_most=need.cost * 2) is None


def test_all_default_buckets_are_on_the_ladder_largest_first() -> None:
    ladder = Ladder(max_beams=640)
    buckets = ladder.default_buckets()
    assert buckets == sorted(set(buckets), key=lambda bucket: -bucket.cost)
    assert all(ladder.holds(bucket) and ladder.bucket(bucket) == bucket for bucket in buckets)
    assert max(bucket.num_rows for bucket in buckets) == 32


def test_buckets_come_back_from_a_file_as_they_were_written(tmp_path: Path) -> None:
    bucket = Bucket(2, 64, 20, 64, is_mixed=True)
    path = tmp_path / "buckets.json"
    path.write_text(json.dumps({"buckets": [bucket.to_json()]}), encoding="utf-8")
    assert read_buckets(path) == (bucket,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list `buckets`"),
        ('{"buckets": [{"num_rows": 1}]}', "is not a bucket; it must have exactly the keys num_rows"),
        (
            '{"buckets": [{"num_rows": 0, "num_tokens": 1, "num_beams": 1, "num_listed": 1, "is_mixed": true}]}',
            "sizes must be integers above 0",
        ),
    ],
)
def test_a_file_without_buckets_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "buckets.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=reason):
        read_buckets(path)


def _assert_holds(catalog: DeviceCatalog, slot: int, trie: Trie) -> None:
    root = catalog.root(slot)
    nodes = rows_at(catalog.arrays.nodes, torch.arange(root, root + trie.num_nodes).unsqueeze(0))
    assert torch.equal(nodes.tokens[0], torch.from_numpy(trie.token))
    assert torch.equal(nodes.intervals[0], torch.from_numpy(np.stack([trie.leaf_lo, trie.leaf_hi], axis=1)))
    assert torch.equal(nodes.first_children[0] - root, torch.from_numpy(trie.first_child[:-1]))
    assert torch.equal(nodes.end_children[0] - root, torch.from_numpy(trie.first_child[1:]))


def _trie(num_items: int, seed: int) -> Trie:
    generator = np.random.default_rng(seed)
    rows = np.unique(generator.integers(2, 60, (num_items, 4)), axis=0)
    return _build([tuple(int(token) for token in row) for row in rows])


def _build(items: list[tuple[int, ...]]) -> Trie:
    flat = np.array([token for item in items for token in item], dtype=np.int64)
    offsets = np.cumsum([0, *(len(item) for item in items)], dtype=np.int64)
    return Trie.build(flat, offsets, eos_id=1)
