"""Baselines against counting by hand over small random datasets."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import TrainingError
from model.evaluation.baselines import candidate_ranks, catalog_ranks, fit_baseline
from model.evaluation.held_out import HeldOut
from model.evaluation.options import EvaluationOptions
from tests.tiny import tiny_catalog
from tests.unit.evaluation.datasets import toys_dataset
from tests.unit.planning.domains import tiny_domain

NUM_ITEMS = 12
TOYS = tiny_domain(catalog=tiny_catalog(NUM_ITEMS))  # item-10, row 9, is not active
HISTORIES = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=2, max_size=6), min_size=1, max_size=8)


def held_out(histories: Sequence[Sequence[int]], **options: object) -> HeldOut:
    data = toys_dataset(histories, num_items=NUM_ITEMS)
    return HeldOut.of(data, TOYS, EvaluationOptions(**options))  # type: ignore[arg-type]  # options of each test


def popularity(histories: Sequence[Sequence[int]], _user: int, item: int) -> tuple[float, ...]:
    return (sum(history[:-2].count(item) for history in map(list, histories)),)


def co_occurrence(histories: Sequence[Sequence[int]], user: int, item: int) -> tuple[float, ...]:
    last = histories[user][-2]
    together = sum(last in history[:-2] and item in history[:-2] for history in histories) if item != last else 0
    return (together, *popularity(histories, user, item))


COUNTS = {"popularity": popularity, "co-occurrence": co_occurrence}


def counted_rank(name: str, histories: Sequence[Sequence[int]], user: int, items: Sequence[int]) -> int:
    """Place of the target among the items, by the sorting that the rules say; 0 beyond the tenth."""
    target = histories[user][-1]
    eligible = [item for item in sorted(items) if item != 9]
    ordered = sorted(eligible, key=lambda item: [-count for count in COUNTS[name](histories, user, item)])
    return ordered.index(target) + 1 if target in ordered[:10] else 0


@pytest.mark.parametrize("name", COUNTS)
@settings(max_examples=60, deadline=None)
@given(histories=HISTORIES)
def test_ranks_in_the_catalog_are_those_of_counting(name: str, histories: list[list[int]]) -> None:
    found = held_out(histories)
    expected = [counted_rank(name, histories, user, range(NUM_ITEMS)) for user in range(len(histories))]
    assert catalog_ranks(fit_baseline(name, found), found).tolist() == expected


@pytest.mark.parametrize("name", COUNTS)
@settings(max_examples=60, deadline=None)
@given(histories=HISTORIES)
def test_ranks_among_candidates_are_those_of_counting(name: str, histories: list[list[int]]) -> None:
    found = held_out(histories, num_negatives=4)
    expected = [counted_rank(name, histories, user, found.candidates(user).tolist()) for user in range(len(histories))]
    assert candidate_ranks(fit_baseline(name, found), found).tolist() == expected


def test_what_was_had_already_can_be_left_out() -> None:
    histories = [[3, 3, 3, 0, 1, 2], [3, 0, 1, 2]]
    plain, excluding = (held_out(histories, exclude_history=flag) for flag in (False, True))
    assert catalog_ranks(fit_baseline("popularity", plain), plain).tolist() == [4, 4]
    assert catalog_ranks(fit_baseline("popularity", excluding), excluding).tolist() == [1, 1]


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_held_out_teaches_nothing(name: str) -> None:
    before = held_out([[1, 2, 3, 4], [1, 2, 5, 6], [2, 1, 7, 8]])
    after = held_out([[1, 2, 3, 4], [1, 2, 5, 8], [2, 1, 7, 8]])
    one, other = fit_baseline(name, before), fit_baseline(name, after)
    assert [one.scores(user).tolist() for user in range(3)] == [other.scores(user).tolist() for user in range(3)]


def test_random_orders_differ_by_user_and_follow_from_the_seed() -> None:
    histories = [[1, 2, 3]] * 400
    ranks, again, other = (
        catalog_ranks(fit_baseline("random", found), found)
        for found in (held_out(histories), held_out(histories), held_out(histories, seed=3))
    )
    assert ranks.tolist() == again.tolist() != other.tolist()
    assert abs(float(np.mean(ranks == 1)) - 1 / 11) < 0.05


def test_a_target_that_cannot_be_returned_is_not_found() -> None:
    found = held_out([[1, 2, 9]])
    assert catalog_ranks(fit_baseline("random", found), found).tolist() == [0]


def test_sasrec_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_rectools(name: str, *others: object, **more: object) -> object:
        if name == "model.evaluation.sasrec":
            raise ModuleNotFoundError("No module named 'rectools'", name="rectools")
        return real_import(name, *others, **more)  # type: ignore[arg-type]  # hands on what it was given

    monkeypatch.setattr(builtins, "__import__", without_rectools)
    with pytest.raises(TrainingError, match=r"No module named 'rectools'\); install vip5-serve\[train,sasrec\]"):
        fit_baseline("sasrec", held_out([[1, 2, 3]]))


@pytest.mark.filterwarnings("ignore")  # the library and what it stands on warn of each other
def test_sasrec_learns_which_item_follows_which() -> None:
    pytest.importorskip("rectools", reason="RecTools needs an environment of its own")
    histories = [[start % 9, (start + 1) % 9, (start + 2) % 9, (start + 3) % 9, (start + 4) % 9] for start in range(90)]
    found = held_out(histories, num_negatives=5)
    sasrec = fit_baseline("sasrec", found)
    assert sasrec.scores(0).shape == (NUM_ITEMS,)
    assert np.isneginf(sasrec.scores(0)[[9, 10, 11]]).all()  # never seen
    assert float(np.mean(catalog_ranks(sasrec, found) == 1)) > 0.8
    assert float(np.mean(candidate_ranks(sasrec, found) == 1)) > 0.8


def decayed(histories: Sequence[Sequence[int]], user: int, item: int) -> float:
    """Cosines with the recent items of the history, counted by hand."""
    trained = [set(history[:-2]) for history in histories]
    num_users = [sum(each in history for history in trained) for each in range(NUM_ITEMS)]
    total = 0.0
    for age, bought in enumerate(reversed(histories[user][:-1][-20:])):
        together = sum(bought in history and item in history for history in trained) if bought != item else 0
        total += 0.7**age * together / ((num_users[bought] + 1) * (num_users[item] + 1)) ** 0.5
    return total + 1e-6 * num_users[item] / (max(num_users) + 1)


@settings(max_examples=40, deadline=None)
@given(histories=HISTORIES)
def test_decayed_co_occurrence_is_the_sum_of_cosines(histories: list[list[int]]) -> None:
    baseline = fit_baseline("decayed-co-occurrence", held_out(histories))
    for user in range(len(histories)):
        expected = [decayed(histories, user, item) for item in range(NUM_ITEMS)]
        np.testing.assert_allclose(baseline.scores(user), expected, rtol=1e-12, atol=1e-15)
