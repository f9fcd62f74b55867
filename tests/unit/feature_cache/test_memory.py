"""The tier in the process is bounded by bytes, keeps what is asked for often, and forgets what it must."""

from __future__ import annotations

import tracemalloc

import pytest

from feature_cache.memory import ENTRY_BYTES, ProcessTier

ROW_BYTES = 1024


def tier_of(max_entries: int, **options: float) -> ProcessTier:
    tier = ProcessTier(max_entries * (ROW_BYTES + ENTRY_BYTES), **options)
    tier.fit(ROW_BYTES)
    return tier


def found(tier: ProcessTier, token: int, *item_ids: str) -> list[bytes | None]:
    return [None if entry is None else entry.row for entry in tier.get_many(token, item_ids)]


def test_rows_are_found_by_token_and_item() -> None:
    tier = tier_of(10)
    tier.put(1, "a", b"one")
    tier.put(2, "a", b"two")

    assert found(tier, 1, "a", "b") == [b"one", None]
    assert found(tier, 2, "a") == [b"two"]
    assert found(tier, 3, "a") == [None]


def test_a_dropped_row_is_gone_and_others_stay() -> None:
    tier = tier_of(10)
    tier.put(1, "a", b"one")
    tier.put(1, "b", b"two")

    tier.drop(1, "a")
    tier.drop(1, "never there")

    assert found(tier, 1, "a", "b") == [None, b"two"]


def test_it_never_holds_more_than_its_bytes_allow() -> None:
    tier = tier_of(50)
    sizes = []
    for number in range(1000):
        tier.put(1, str(number), bytes(ROW_BYTES))
        sizes.append(len(tier))

    assert max(sizes) <= 50
    assert sizes[-1] > 40


def test_an_entry_costs_no_more_than_it_is_counted_for() -> None:
    num_entries = 2000
    tier = tier_of(num_entries)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(num_entries):
        tier.put(1, f"item-{number:08d}", bytes(ROW_BYTES))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert len(tier) > 0.9 * num_entries
    # The policy's own nodes are not Python's and not traced; 100 bytes are left for each.
    assert used / len(tier) < ROW_BYTES + ENTRY_BYTES - 100


def test_a_scan_does_not_flush_what_is_asked_for_often() -> None:
    tier = tier_of(1000)
    often = [f"hot-{number}" for number in range(500)]
    for each in often:
        tier.put(1, each, b"x")
    for _ in range(20):
        tier.get_many(1, often)

    for number in range(10_000):
        tier.get_many(1, [f"cold-{number}"])
        tier.put(1, f"cold-{number}", b"y")

    kept = [row for row in found(tier, 1, *often) if row is not None]
    assert len(kept) > 250  # a list by last use would keep none; hashes, and so collisions, differ by process


def test_what_is_known_to_be_missing_is_so_for_a_while_only() -> None:
    lasting, fleeting = tier_of(10, negative_life_s=1e9), tier_of(10, negative_life_s=0.0)
    for tier in (lasting, fleeting):
        tier.put(1, "a", None)

    (entry,) = lasting.get_many(1, ["a"])
    assert entry is not None
    assert entry.row is None
    assert fleeting.get_many(1, ["a"]) == [None]


def test_wider_rows_make_room_by_dropping_everything() -> None:
    tier = tier_of(100)
    tier.put(1, "a", b"x")

    tier.fit(ROW_BYTES)
    assert found(tier, 1, "a") == [b"x"]
    tier.fit(4 * ROW_BYTES)

    assert len(tier) == 0
    assert tier.max_entries == 100 * (ROW_BYTES + ENTRY_BYTES) // (4 * ROW_BYTES + ENTRY_BYTES)


@pytest.mark.parametrize("max_bytes", [1, ROW_BYTES])
def test_too_few_bytes_for_one_row_keep_nothing(max_bytes: int) -> None:
    tier = ProcessTier(max_bytes)
    tier.fit(ROW_BYTES)
    tier.put(1, "a", bytes(ROW_BYTES))

    assert found(tier, 1, "a") == [None]
