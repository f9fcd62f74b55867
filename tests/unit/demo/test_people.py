from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from demo.datasets import Shop, make_dataset, texts_of
from demo.designs import TOYS, Design, Look
from demo.people import Person, Taste
from demo.reviews import TOPICS, give_opinion

SHOP = Shop.opened(TOYS, seed=1)


@pytest.fixture(scope="module")
def people() -> tuple[Person, ...]:
    return SHOP.customers("spring", 200, seed=1)


def test_people_buy_of_the_regular_range_and_of_their_season(people: tuple[Person, ...]) -> None:
    counts = Counter(purchase.item.range for person in people for purchase in person.history)
    assert counts.keys() == {"regular", "spring"}
    assert counts["regular"] / counts.total() == pytest.approx(0.5, abs=0.05)


def test_nobody_buys_a_thing_twice(people: tuple[Person, ...]) -> None:
    for person in people:
        assert len({purchase.item.item_id for purchase in person.history}) == len(person.history) >= 3


def test_purchases_are_in_the_order_of_time(people: tuple[Person, ...]) -> None:
    for person in people:
        times = [purchase.timestamp for purchase in person.history]
        assert times == sorted(times)


def test_the_next_thing_looks_like_the_last_more_often_than_chance_has_it(people: tuple[Person, ...]) -> None:
    looks = [[purchase.item.design.look for purchase in person.history] for person in people]
    pairs = [pair for history in looks for pair in pairwise(history)]
    assert np.mean([first.colour == second.colour for first, second in pairs]) > 0.6  # of six colours
    assert np.mean([first.pattern == second.pattern for first, second in pairs]) > 0.5  # of four patterns


def test_people_of_two_seasons_have_different_ids() -> None:
    spring, summer = (SHOP.customers(season, 5, seed=1) for season in ("spring", "summer"))
    assert not {one.user_id for one in spring} & {one.user_id for one in summer}


def test_summer_s_customers_have_bought_three_things() -> None:
    lengths = [len(one.history) for one in SHOP.customers("summer", 50, seed=1)]
    assert np.mean([length == 3 for length in lengths]) > 0.9


def test_ratings_rise_with_what_is_to_ones_taste() -> None:
    taste = Taste(Look("red", "dotted", "retro"), frozenset())
    kind = TOYS.kinds[0]
    looks = [
        Look("blue", "plain", "modern"),
        Look("red", "plain", "modern"),
        Look("red", "dotted", "modern"),
        Look("red", "dotted", "retro"),
    ]
    assert [taste.rating(Design(kind, look)) for look in looks] == [2, 3, 4, 5]


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
def test_an_opinion_names_the_trait_that_it_is_about(stars: int) -> None:
    chance = random.Random(stars)
    design = Design(TOYS.kinds[2], Look("pink", "checked", "modern"))
    for _ in range(60):
        opinion = give_opinion(design, stars, chance)
        assert opinion.feature in TOPICS
        words = opinion.explanation.split()
        assert getattr(design.look, opinion.feature) in words
        others = {"pink", "checked", "modern"} - {getattr(design.look, opinion.feature)}
        assert not others & set(words)


def test_a_dataset_holds_the_histories_and_their_reviews(people: tuple[Person, ...]) -> None:
    dataset = make_dataset(SHOP, "spring", people, seed=1)
    item_ids = dataset.catalog.item_ids
    for user, person in enumerate(people):
        bought = [item_ids[row] for row in dataset.sequences.of(user)]
        assert bought == [purchase.item.item_id for purchase in person.history]
    for review in dataset.reviews:
        place = dataset.sequences.of(review.user).tolist().index(review.item)
        left = len(dataset.sequences.of(review.user)) - 1 - place
        assert review.split == {0: "test", 1: "val"}.get(left, "train")
        assert review.feature is not None
        assert review.explanation is not None
        (trait,) = dataset.catalog.table.column(review.feature)[review.item : review.item + 1].to_pylist()
        assert trait in review.explanation.split()


def test_newcomers_are_known_but_have_no_history(people: tuple[Person, ...]) -> None:
    newcomers = SHOP.customers("summer", 3, seed=1)
    dataset = make_dataset(SHOP, "spring", people, seed=1, newcomers=newcomers)
    assert len(dataset.users) == len(people) + 3
    assert dataset.users.row_of(newcomers[0].user_id) is not None
    assert all(len(dataset.sequences.of(len(people) + place)) == 0 for place in range(3))


def test_the_texts_of_a_dataset_are_all_that_prompts_and_answers_say(people: tuple[Person, ...]) -> None:
    dataset = make_dataset(SHOP, "spring", people[:5], seed=1)
    texts = set(texts_of(dataset))
    assert {people[0].name, dataset.reviews[0].explanation, dataset.reviews[0].headline, "1"} <= texts
    assert dataset.catalog.titles[0] in texts
