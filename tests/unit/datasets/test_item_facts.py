from __future__ import annotations

from collections.abc import Mapping

import pytest

from model.datasets.faults import Faults
from model.datasets.item_facts import ItemFacts
from model.datasets.values import Fields


def fields(record: Mapping[str, object]) -> Fields:
    return Fields(record, Faults(), "i.jsonl:1")


@pytest.mark.parametrize(
    ("categories", "category", "names"),
    [
        ([["Toys", "Dolls", "Large"], ["Toys", "Games"]], "Dolls", ("Toys", "Dolls", "Large", "Games")),
        (["Toys", "Dolls"], "Dolls", ("Toys", "Dolls")),
        ([["Toys"], ["Games"]], "Toys", ("Toys", "Games")),
        ([[], ["Toys", " "]], "Toys", ("Toys",)),
        ([["Toys", 7, None, {}], "stray"], "7", ("Toys", "7")),
        ("Toys", None, ()),
        (None, None, ()),
        ([], None, ()),
    ],
)
def test_a_category_is_the_second_level_of_the_first_path(
    categories: object, category: str | None, names: tuple[str, ...]
) -> None:
    facts = ItemFacts.of_record(fields({"categories": categories}))
    assert (facts.category, facts.categories) == (category, names)


def test_a_records_own_category_counts_more() -> None:
    assert ItemFacts.of_record(fields({"category": "own", "categories": [["a", "b"]]})).category == "own"


def test_texts_are_one_line_without_entities_or_as_found() -> None:
    record = fields({"title": " Cats &amp;\n Dogs ", "brand": "", "imUrl": "http://a.jpg"})
    assert ItemFacts.of_record(record) == ItemFacts("Cats & Dogs", "http://a.jpg")
    assert ItemFacts.of_record(record, clean=str).title == "Cats &amp; Dogs"
