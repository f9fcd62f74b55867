from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.bundle.catalog import TRAINING_INTERACTIONS, Catalog
from model.bundle.columns import Scalar
from model.errors import InputError
from tests.tiny import tiny_catalog
from tests.unit.bundle.refusals import refused


def rows_of(catalog: Catalog, **where: tuple[Scalar, ...]) -> list[int]:
    return [int(row) for row in np.flatnonzero(catalog.mask(where))]


def test_columns_come_back_as_they_were_given(tmp_path: Path) -> None:
    tiny_catalog(20).write(tmp_path / "catalog.parquet")
    catalog = Catalog.read(tmp_path / "catalog.parquet")
    assert len(catalog) == 20
    assert catalog.item_ids == tuple(f"item-{number}" for number in range(1, 21))
    assert catalog.indices == tuple(str(number) for number in range(1, 21))
    assert catalog.titles[5:7] == ("toy number 6", None)
    assert catalog.images[0] == "images/1.png"
    assert [row + 1 for row in np.flatnonzero(~catalog.is_active)] == [10, 20]
    assert catalog.attributes(4) == {"category": "puzzles", "price": 1.25, "tags": ("new", "red")}


def test_columns_that_may_be_absent_have_defaults() -> None:
    catalog = Catalog.from_rows([{"item_id": 1, "index": 11}, {"item_id": 2, "index": 12}])
    assert catalog.item_ids == ("1", "2")
    assert catalog.indices == ("11", "12")
    assert catalog.titles == (None, None)
    assert catalog.images == (None, None)
    assert catalog.is_active.all()
    assert catalog.attributes(0) == {}


def test_a_missing_active_means_active() -> None:
    catalog = Catalog.from_rows([{"item_id": n, "index": n, "active": v} for n, v in enumerate([True, False, None])])
    assert catalog.is_active.tolist() == [True, False, True]


def test_rows_are_found_by_item() -> None:
    catalog = tiny_catalog(20)
    assert catalog.row_of("item-20") == 19
    assert catalog.row_of("item-21") is None


CATALOG = Catalog.from_rows(
    [
        {"item_id": "a", "index": "1", "category": "x", "size": 1, "price": 1.0, "new": True, "tags": ["p", "q"]},
        {"item_id": "b", "index": "2", "category": "y", "size": 2, "price": 2.5, "new": False, "tags": []},
        {"item_id": "c", "index": "3", "category": None, "size": None, "price": None, "new": None, "tags": None},
        {"item_id": "d", "index": "4", "category": "x", "size": 3, "price": 2.0, "new": True, "tags": ["q", "q"]},
    ]
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"category": ("x",)}, [0, 3]),
        ({"category": ("x", "y")}, [0, 1, 3]),
        ({"category": ()}, []),
        ({"category": ("z",)}, []),
        ({"size": (1, 3)}, [0, 3]),
        ({"price": (2,)}, [3]),
        ({"price": (2.5, 1.0)}, [0, 1]),
        ({"new": (False,)}, [1]),
        ({"tags": ("q",)}, [0, 3]),
        ({"tags": ("p", "z")}, [0]),
        ({"category": ("x",), "tags": ("p",)}, [0]),
    ],
)
def test_a_filter_admits_the_items_that_have_one_of_the_values(
    where: dict[str, tuple[Scalar, ...]], rows: list[int]
) -> None:
    assert rows_of(CATALOG, **where) == rows


@given(
    st.lists(st.lists(st.sampled_from("pqrs"), max_size=4) | st.none(), min_size=1, max_size=12),
    st.lists(st.sampled_from("pqrst"), max_size=3),
)
def test_a_list_matches_if_any_of_its_elements_does(lists: list[list[str] | None], wanted: list[str]) -> None:
    kind = pa.list_(pa.string())
    names = pa.array([str(row) for row in range(len(lists))])
    # In two chunks, as large tables have them.
    tags = pa.chunked_array([pa.array(lists[:3], kind), pa.array(lists[3:], kind)])
    catalog = Catalog.from_table(pa.table({"item_id": names, "index": names, "tags": tags}), "it")
    expected = [row for row, tags in enumerate(lists) if tags and set(tags) & set(wanted)]
    assert rows_of(catalog, tags=tuple(wanted)) == expected


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("category", 1, "where.category: 1 has the wrong type; the column has strings"),
        ("size", 1.0, "where.size: 1.0 has the wrong type; the column has integers"),
        ("size", True, "where.size: True has the wrong type"),
        ("price", "1", "where.price: '1' has the wrong type; the column has numbers"),
        ("new", 1, "where.new: 1 has the wrong type; the column has booleans"),
        ("tags", 1, "where.tags: 1 has the wrong type; the column has strings"),
        ("size", 2**70, "where.size: a value is out of range"),
        ("price", 10**400, "where.price: a value is out of range"),
        ("category", "\ud800", "where.category: a value is out of range"),
    ],
)
def test_a_value_of_another_type_is_refused(column: str, value: Scalar, message: str) -> None:
    with refused("invalid_input", message):
        CATALOG.mask({column: (value,)})


@pytest.mark.parametrize("column", ["colour", "item_id", "title", "active", ""])
def test_a_column_that_cannot_be_filtered_by_is_refused_naming_those_that_can(column: str) -> None:
    message = f"the catalog has no column {column!r} to filter by; choose from: category, size, price, new, tags"
    with refused("unknown_column", message):
        CATALOG.mask({column: ("x",)})
    with pytest.raises(InputError) as raised:
        CATALOG.mask({column: ("x",)})
    assert raised.value.field == f"where.{column}"


def test_searching_finds_titles_and_items_in_any_case_page_by_page() -> None:
    catalog = tiny_catalog(120)
    assert catalog.search("NUMBER 11", 0, 3) == ([10, 109, 110], 9)
    assert catalog.search("number 11", 8, 3) == ([117], 9)
    assert catalog.search("item-77", 0, 3) == ([76], 1)
    assert catalog.search("item-.7", 0, 3) == ([], 0)
    assert catalog.search("  ", 118, 5) == ([118, 119], 120)
    assert catalog.search("x", 500, 5) == ([], 0)
    assert catalog.search("\ud800", 0, 5) == ([], 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the catalog has no items"),
        ([{"item_id": "a"}], "the catalog has no column index; its columns are item_id"),
        ([{"index": "a"}], "the catalog has no column item_id"),
        ([{"item_id": "a", "index": "1"}, {"item_id": "b"}], "the catalog: row 2 has no index"),
        ([{"item_id": " ", "index": "1"}], "the catalog: row 1 has no item_id"),
        ([{"item_id": "a", "index": "1"}] * 2, "the catalog: item_id 'a' occurs in 2 rows; it must be unique"),
        ([{"item_id": "a", "index": 1.5}], "the catalog: column index has type double; it must be strings"),
        ([{"item_id": "a", "index": "1", "title": ["t"]}], "column title has type list<item: string>"),
        (
            [{"item_id": "a", "index": "1", "active": "yes"}],
            "column active has type string; it must be boolean",
        ),
        ([{"item_id": "a", "index": "1", "size": {"w": 1}}], "column size has type struct<w: int64>"),
        ([{"item_id": "a", "index": "1", "paths": [["x"]]}], "column paths has type list<item: list<item: string>>"),
        ([{"item_id": "a", "index": 1}, {"item_id": "b", "index": "x"}], "a column has values of different types"),
    ],
)
def test_a_catalog_that_breaks_a_rule_is_refused(rows: list[dict[str, object]], message: str) -> None:
    with refused("invalid_catalog", message):
        Catalog.from_rows(rows)


def test_columns_of_any_width_are_stored_in_one_type() -> None:
    table = pa.table(
        {
            "item_id": pa.array(["a", "b"], pa.large_string()),
            "index": pa.array(["1", "2"]).dictionary_encode(),
            "size": pa.array([1, 2], pa.uint8()),
            "price": pa.array([1.5, None], pa.float32()),
            "tags": pa.array([["x"], None], pa.large_list(pa.large_string())),
            "empty": pa.nulls(2),
        }
    )
    catalog = Catalog.from_table(table, "it")
    assert [str(catalog.table.schema.field(name).type) for name in catalog.attribute_columns] == [
        "int64",
        "double",
        "list<item: string>",
        "string",
    ]
    assert catalog.attributes(1) == {"size": 2, "price": None, "tags": None, "empty": None}


def test_ids_that_pandas_made_floats_are_whole_numbers() -> None:
    catalog = Catalog.from_table(pa.table({"item_id": [7.0, 8.0], "index": pa.array([1.0, 2.0], pa.float32())}), "it")
    assert (catalog.item_ids, catalog.indices) == (("7", "8"), ("1", "2"))
    with refused("invalid_catalog", "column item_id has type double; it must be strings (9007199254740992.0 is no id)"):
        Catalog.from_table(pa.table({"item_id": [2.0**53], "index": ["1"]}), "it")


def test_a_whole_number_that_does_not_fit_is_refused() -> None:
    table = pa.table({"item_id": ["a"], "index": ["1"], "size": pa.array([2**63], pa.uint64())})
    with refused("invalid_catalog", "it: column size of type uint64 cannot be stored as int64"):
        Catalog.from_table(table, "it")


def test_numbers_of_training_interactions_are_kept_but_not_shown(tmp_path: Path) -> None:
    catalog = Catalog.from_rows([{"item_id": "a", "index": "1", "size": 2}, {"item_id": "b", "index": "2", "size": 3}])
    counted = catalog.counted(np.array([0, 7]))
    assert counted.counted(np.array([1, 8])).table.column(TRAINING_INTERACTIONS).to_pylist() == [1, 8]
    counted.write(tmp_path / "catalog.parquet")
    read = Catalog.read(tmp_path / "catalog.parquet")
    assert read.table.column(TRAINING_INTERACTIONS).to_pylist() == [0, 7]
    assert read.attribute_columns == ("size",)
    assert read.attributes(1) == {"size": 3}
    with refused("unknown_column", "choose from: size"):
        read.mask({TRAINING_INTERACTIONS: (7,)})


def test_a_column_of_that_name_with_something_else_is_refused() -> None:
    with refused("invalid_catalog", "column training_interactions has type string; it must be the whole numbers of"):
        Catalog.from_rows([{"item_id": "a", "index": "1", TRAINING_INTERACTIONS: "many"}])
