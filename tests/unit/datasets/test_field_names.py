from __future__ import annotations

from model.datasets.field_names import FieldNames

KEYS = ("item_id", "item", "asin")


def test_fields_are_known_by_names_that_differ_in_case_and_separators_only() -> None:
    names = FieldNames(["item_id", "imUrl"])
    assert names.named({"Item ID": 1, "imURL": 2}) == {"item_id": 1, "imUrl": 2}
    assert names.named({"ITEM-ID": 1, "item_id": 2}) == {"item_id": 2}
    assert names.description() == ""


def test_names_that_are_not_read_are_told_those_with_a_meaning_first() -> None:
    names = FieldNames([*KEYS, "title"], ignored=["related"], required=[KEYS])
    names.named({"size": 1, "sku": 2, "related": 3, "name": 4})
    assert names.description() == (
        "'sku', 'name', 'size' are not read; 'sku' may be meant for 'item_id', 'name' may be meant for 'title': rename "
        "the columns that are to be read"
    )


def test_what_is_there_already_is_not_suggested() -> None:
    names = FieldNames([*KEYS, "title"], required=[KEYS])
    names.named({"asin": 1, "sku": 2, "title": 3, "name": 4})
    assert names.description() == "'sku', 'name' are not read"
    names.named({"title": 3, "sku": 4})
    assert "'sku' may be meant for 'item_id'" in names.description()


def test_only_the_first_of_many_names_are_listed() -> None:
    names = FieldNames(["title"])
    names.named({f"field{number}": number for number in range(10)})
    assert names.description().endswith("'field7' and 2 more are not read")
