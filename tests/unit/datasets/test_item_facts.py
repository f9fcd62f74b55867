from __future__ import annotations

import pytest

from model.datasets.item_facts import ItemFacts, number_of


@pytest.mark.parametrize(
    ("categories", "category", "names"),
    [
        ([["Toys", "Dolls", "Large"], ["Toys", "Games"]], "Dolls", ("Toys", "Dolls", "Large", "Games")),
        (["Toys", "Dolls"], "Dolls", ("Toys", "Dolls")),
        ([["Toys"], ["Games"]], "Toys", ("Toys", "Games")),
        ([[], ["Toys", " "]], "Toys", ("Toys",)),
        ([["Toys", 7, None], "stray"], "Toys", ("Toys",)),
        ("Toys", None, ()),
        (None, None, ()),
        ([], None, ()),
    ],
)
def test_a_category_is_the_second_level_of_the_first_path(
    categories: object, category: str | None, names: tuple[str, ...]
) -> None:
    facts = ItemFacts.of_record({"categories": categories})
    assert (facts.category, facts.categories) == (category, names)


def test_a_records_own_category_counts_more() -> None:
    assert ItemFacts.of_record({"category": "own", "categories": [["a", "b"]]}).category == "own"


def test_texts_are_one_line_without_entities_or_as_found() -> None:
    record = {"title": " Cats &amp;\n Dogs ", "brand": "", "imUrl": "http://a.jpg", "price": "9.99"}
    assert ItemFacts.of_record(record) == ItemFacts("Cats & Dogs", "http://a.jpg")
    assert ItemFacts.of_record(record, clean=str).title == "Cats &amp; Dogs"


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), (2.5, 2.5), (True, None), ("3", None), (float("nan"), None), (float("inf"), None), (10**400, None)],
)
def test_only_finite_numbers_are_numbers(value: object, number: float | None) -> None:
    assert number_of(value) == number
