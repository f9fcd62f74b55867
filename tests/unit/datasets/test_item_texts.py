"""The texts of items whose words their vectors count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.bundle.catalog import Catalog
from model.datasets.item_texts import item_texts
from model.datasets.item_vectors import Weights, item_vectors
from model.errors import DatasetError
from tests.unit.datasets.test_indexing import dataset_of

CATALOG = Catalog.from_rows(
    [
        {
            "item_id": "a",
            "index": "1",
            "title": "Red Lacquer",
            "categories": ["Beauty", "Nail Polish"],
            "brand": "O.P.I",
        },
        {"item_id": "b", "index": "2", "title": None, "categories": ["Creams & Oils"], "brand": None},
        {"item_id": "c", "index": "3", "title": "Balm", "categories": None, "brand": ""},
    ]
)


def test_values_of_columns_follow_the_title_as_single_words() -> None:
    assert item_texts(CATALOG, ["categories", "brand"]) == [
        "Red Lacquer Beauty Nail_Polish O_P_I",
        "Creams_Oils",
        "Balm",
    ]
    assert item_texts(CATALOG, []) == ["Red Lacquer", "", "Balm"]


def test_a_column_that_is_missing_or_has_no_texts_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"no column 'colour'; their columns of texts are .*categories.*brand"):
        item_texts(CATALOG, ["colour"])
    with pytest.raises(DatasetError, match="'active' has values of type bool"):
        item_texts(CATALOG, ["active"])


def test_items_of_one_category_are_alike_though_their_titles_share_no_word() -> None:
    kinds = [("rings", "dolls")[row % 2] for row in range(12)]
    dataset = dataset_of([list(range(12))], 12)
    rows = [
        {"item_id": f"i{row}", "index": f"x{row}", "title": f"name{row} nameless", "categories": ["all", kind]}
        for row, kind in enumerate(kinds)
    ]
    dataset = replace(dataset, catalog=Catalog.from_rows(rows))
    every = np.ones(12, dtype=np.bool_)

    def likeness(*columns: str) -> tuple[float, float]:
        """The mean cosine of items of one kind, and of different kinds."""
        vectors = item_vectors(dataset, Weights(0, 1, 0, columns), 0, every, 0).vectors
        cosines = vectors @ vectors.T
        same = np.equal.outer(kinds, kinds)
        return float(cosines[same & ~np.eye(12, dtype=bool)].mean()), float(cosines[~same].mean())

    within, between = likeness()
    assert abs(within - between) < 0.1
    within, between = likeness("categories")
    assert within > between + 0.2
