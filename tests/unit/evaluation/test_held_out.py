"""Who is asked for what."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import DatasetError, InputError
from model.evaluation.beyond_accuracy import BeyondAccuracy
from model.evaluation.held_out import HeldOut, fingerprint
from model.evaluation.options import EvaluationOptions
from model.evaluation.summary import baseline_results
from tests.tiny import tiny_catalog
from tests.unit.evaluation.datasets import toy_review, toys_dataset
from tests.unit.planning.domains import tiny_domain

HISTORIES = [[4, 5, 6, 7], [8], [1, 2, 3], [10, 11]]
TOYS = tiny_domain(catalog=tiny_catalog(120))


def held_out(dataset: object = None, **options: object) -> HeldOut:
    data = toys_dataset(HISTORIES) if dataset is None else dataset
    return HeldOut.of(data, TOYS, EvaluationOptions(**options))  # type: ignore[arg-type]  # options of each test


def test_the_last_item_is_the_target_and_all_before_it_the_history() -> None:
    test = held_out()
    assert test.users.tolist() == [0, 2, 3]
    assert (test.history(0).tolist(), test.target(0)) == ([4, 5, 6], 7)
    assert (test.history(3).tolist(), test.target(3)) == ([10], 11)


def test_validation_holds_the_last_two_back() -> None:
    validation = held_out(split="val")
    assert validation.users.tolist() == [0, 2]
    assert (validation.history(0).tolist(), validation.target(0)) == ([4, 5], 6)


def test_users_are_drawn_from_the_seed() -> None:
    dataset = toys_dataset([[n, n + 1, n + 2] for n in range(40)])
    first, again, other = (held_out(dataset, num_users=10, seed=seed).users.tolist() for seed in (1, 1, 2))
    assert first == again == sorted(set(first))
    assert len(first) == 10
    assert first != other
    assert held_out(dataset, num_users=99).users.tolist() == list(range(40))


def test_those_who_are_ranked_exactly_are_some_of_those_who_are_asked_for() -> None:
    found = held_out(toys_dataset([[n, n + 1, n + 2] for n in range(40)]), num_users=20, num_exact=5)
    assert len(found.exact_users) == 5
    assert set(found.exact_users.tolist()) < set(found.users.tolist())


def test_candidates_are_the_target_and_returnable_items_that_the_user_never_had() -> None:
    found = held_out()
    candidates = found.candidates(0)
    assert sorted(candidates.tolist()) == sorted(set(candidates.tolist()))
    assert len(candidates) == 100
    assert set(HISTORIES[0]) & set(candidates.tolist()) == {7}
    assert all(TOYS.catalog.is_active[row] for row in candidates)


def test_candidates_do_not_depend_on_who_else_is_asked_for() -> None:
    assert held_out().candidates(2).tolist() == held_out(num_users=1).candidates(2).tolist()
    assert held_out().candidates(2).tolist() != held_out(seed=1).candidates(2).tolist()


def test_the_target_has_no_place_of_its_own_among_the_candidates() -> None:
    found = held_out(toys_dataset([[1, 2, 3]] * 30))
    places = {found.candidates(user).tolist().index(3) for user in range(30)}
    assert len(places) > 10


def test_negatives_that_the_data_gives_are_taken_but_for_what_the_user_had() -> None:
    found = held_out(toys_dataset(HISTORIES, negatives={0: [20, 21, 6, 22]}))
    assert sorted(found.candidates(0).tolist()) == [7, 20, 21, 22]


def test_a_small_catalog_gives_fewer_candidates() -> None:
    toys = tiny_domain(catalog=tiny_catalog(12))  # item-10 is not active
    found = HeldOut.of(toys_dataset([[0, 1, 2]], num_items=12), toys, EvaluationOptions())
    assert len(found.candidates(0)) == 12 - 1 - 3 + 1


def small_shop(
    histories: list[list[int]], *, negatives: dict[int, list[int]] | None = None, **options: object
) -> HeldOut:
    """Twelve items, of which the one in row 9 is not active."""
    dataset = toys_dataset(histories, num_items=12, negatives=negatives)
    return HeldOut.of(dataset, tiny_domain(catalog=tiny_catalog(12)), EvaluationOptions(**options))  # type: ignore[arg-type]


def test_a_user_with_nothing_but_the_target_to_rank_is_not_asked() -> None:
    everything = list(range(12))
    all_but_the_inactive = [row for row in everything if row != 9]
    all_but_one = everything[1:]
    shop = small_shop([everything, all_but_the_inactive, all_but_one, [0, 1, 2]])
    assert [len(shop.candidates(user)) for user in range(4)] == [1, 1, 2, 9]
    assert shop.asked_users(among_candidates=True).tolist() == [2, 3]
    assert shop.asked_users(among_candidates=False).tolist() == [0, 1, 2, 3]


def test_given_negatives_that_the_user_had_or_that_are_not_active_are_none() -> None:
    shop = small_shop([[0, 1, 2], [0, 1, 2], [0, 1, 2]], negatives={0: [0, 1], 1: [9], 2: [9, 5]})
    assert shop.asked_users(among_candidates=True).tolist() == [2]


def test_a_catalog_without_the_history_may_hold_the_target_alone() -> None:
    histories = [list(range(12)), [*range(10), 11], [0, 1, 2]]
    shop = small_shop(histories, exclude_history=True, num_exact=3)
    assert shop.asked_users(among_candidates=False).tolist() == shop.exact_users.tolist() == [1, 2]


def test_results_count_the_users_that_were_not_asked() -> None:
    shop = small_shop([list(range(12)), [0, 1, 2], [3, 4, 5]])
    beyond = BeyondAccuracy.of(shop, tiny_domain(catalog=tiny_catalog(12)), None)
    sequential, direct = baseline_results(shop, beyond, "random", ("sequential", "direct"))
    assert (sequential.num_users, sequential.num_users_left_out) == (3, 0)
    assert (direct.num_users, direct.num_users_left_out, direct.num_candidates) == (2, 1, 9.0)


def test_targets_that_no_ranking_can_have_are_counted() -> None:
    histories = [[0, 1, 2], [0, 1, 9], [3, 4, 3]]  # 9 is not active
    kept, excluded = small_shop(histories), small_shop(histories, exclude_history=True)
    users = kept.users
    assert kept.num_out_of_reach(users, among_candidates=False) == 1
    assert excluded.num_out_of_reach(users, among_candidates=False) == 2
    assert excluded.num_out_of_reach(users, among_candidates=True) == 1
    beyond = BeyondAccuracy.of(excluded, tiny_domain(catalog=tiny_catalog(12)), None)
    (result,) = baseline_results(excluded, beyond, "random", ("sequential",))
    assert result.num_out_of_reach == 2


def test_nobody_left_to_ask_is_refused() -> None:
    shop = small_shop([list(range(12))])
    with pytest.raises(DatasetError, match="for none of 1 users do the candidates have an active item beside"):
        shop.asked_users(among_candidates=True)


def test_reviews_are_those_of_the_split_with_an_explanation() -> None:
    reviews = [toy_review(0), toy_review(2, split="val"), toy_review(2, explanation=None), toy_review(3)]
    assert [review.user for review in held_out(toys_dataset(HISTORIES, reviews=reviews)).reviews] == [0, 3]
    assert len(held_out(toys_dataset(HISTORIES, reviews=reviews), num_users=1).reviews) == 1


def test_items_that_the_domain_does_not_know_are_named() -> None:
    with pytest.raises(DatasetError, match="5 of 125 items of toys are not in the catalog of toys: item-121, item-122"):
        held_out(toys_dataset(num_items=125))


def test_negatives_beyond_the_catalog_are_named() -> None:
    with pytest.raises(DatasetError, match="the negatives of user 2 are items 3 to 120"):
        held_out(toys_dataset(HISTORIES, negatives={2: [3, 120]}))


def test_a_split_that_nobody_has_a_history_for_is_refused() -> None:
    with pytest.raises(DatasetError, match="no user of toys has the 3 interactions that the split val needs"):
        _ = held_out(toys_dataset([[1, 2], [3]]), split="val").users


def test_fingerprints_tell_data_apart() -> None:
    datasets = [
        toys_dataset(HISTORIES),
        toys_dataset([*HISTORIES[:3], [10, 12]]),
        toys_dataset([[4, 5, 6], [7, 8], *HISTORIES[2:]]),
        toys_dataset(HISTORIES, first_user=2),
        toys_dataset(HISTORIES, num_items=119),
        toys_dataset(HISTORIES, reviews=[toy_review(0)]),
        toys_dataset(HISTORIES, reviews=[toy_review(0, star_rating=1.0)]),
        toys_dataset(HISTORIES, negatives={0: [20]}),
    ]
    assert len({fingerprint(dataset) for dataset in datasets}) == len(datasets)
    assert fingerprint(toys_dataset(HISTORIES)) == fingerprint(datasets[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "'train' is not a split; choose from val, test"),
        ({"tasks": ("guess",)}, "'guess' is not a task"),
        ({"templates": ("A-77",)}, "'A-77' is not a template"),
        ({"baselines": ("oracle",)}, "'oracle' is not a baseline"),
        ({"num_users": 0}, "num_users is 0; it must be at least 1"),
        ({"num_beams": 9}, "num_beams is 9; it must be at least 10"),
        ({"templates": ("A-3", "B-5"), "tasks": ("direct",)}, "template A-3 is of the task sequential"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationOptions(**options)  # type: ignore[arg-type]


def test_the_random_parts_of_a_user_differ_from_another_users() -> None:
    found = held_out(toys_dataset([[1, 2, 3], [1, 2, 3]]))
    assert not np.array_equal(found.candidates(0), found.candidates(1))
