"""Texts of several clients share steps and rows by their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from service.batching.shares import NOBODY, Client
from service.batching.steps import RunningShare, StepShares, may_take_row

BIG, SMALL = Client("big"), Client("small")


def shares_of(texts: Iterable[tuple[Client, int]]) -> StepShares:
    """Texts of clients with their numbers of beams; their rows are 0, 1, …"""
    shares = StepShares()
    for row, (client, num_beams) in enumerate(texts):
        shares.begin(RunningShare(row, client, num_beams, size=100 * num_beams))
    return shares


def steps_of(shares: StepShares, number: int, seconds: Callable[[int], float]) -> list[list[int]]:
    """The next steps, if one of this many rows takes this long."""
    steps = []
    for _ in range(number):
        rows = shares.choose()
        shares.record(rows, seconds(len(rows)))
        steps.append(rows)
    return steps


def test_without_others_all_texts_take_every_step() -> None:
    shares = shares_of([(NOBODY, 1)] * 60)
    assert all(len(rows) == 60 for rows in steps_of(shares, 5, float))


def test_a_client_with_one_text_beside_many_is_in_every_step_which_stay_short() -> None:
    shares = shares_of([(BIG, 1)] * 56 + [(SMALL, 1)])
    steps = steps_of(shares, 200, float)
    assert all(56 in rows for rows in steps)
    assert sum(map(len, steps)) < 3.2 * len(steps), "1.6 times the two rows that are fair"
    turns = Counter(row for rows in steps for row in rows if row != 56)
    assert len(turns) == 56
    assert max(turns.values()) - min(turns.values()) <= 2, "its own texts take turns"


def test_steps_stay_whole_where_more_rows_take_no_longer() -> None:
    shares = shares_of([(BIG, 1)] * 56 + [(SMALL, 1)])
    steps = steps_of(shares, 20, lambda _: 1.0)
    assert len(steps[-1]) == 57, "as in captured graphs"


def test_weights_divide_the_steps() -> None:
    shares = shares_of([(Client("big", 3.0), 1)] * 48 + [(SMALL, 1)] * 8)
    rows = [row for step in steps_of(shares, 300, float) for row in step]
    of_big = sum(row < 48 for row in rows)
    assert 2.5 < of_big / (len(rows) - of_big) < 3.5


def test_a_search_with_many_beams_steps_as_rarely_as_it_is_large() -> None:
    shares = shares_of([(BIG, 32), (SMALL, 1)])
    steps = steps_of(shares, 320, lambda num_rows: float(num_rows if num_rows == 1 else 33))
    assert all(1 in rows for rows in steps)
    assert 8 <= sum(0 in rows for rows in steps) <= 24


@pytest.mark.parametrize("num_before", [1, 20])
def test_the_search_of_another_client_is_next_after_the_one_that_runs(num_before: int) -> None:
    shares = shares_of([(BIG, 8)] * 30)
    for row in range(num_before):
        assert shares.choose() == [row]
        shares.end(row)
    assert shares.choose() == [num_before], "under way"
    shares.begin(RunningShare(99, SMALL, 8, size=800))
    assert shares.choose() == [num_before]
    shares.end(num_before)
    assert shares.choose() == [99]


def test_a_lone_client_leaves_rows_for_others() -> None:
    num_own = 0
    while may_take_row(BIG, num_own, 64 - num_own):
        num_own += 1
    assert 48 <= num_own < 62
    assert may_take_row(SMALL, 0, 64 - num_own)


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_few_rows_are_all_used(num_rows: int) -> None:
    assert all(may_take_row(BIG, num_own, num_rows - num_own) for num_own in range(num_rows))


def test_without_keys_all_rows_are_used() -> None:
    assert may_take_row(NOBODY, 63, 1)
