"""What is said of columns of catalogs and users that a bundle does not know."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from model.bundle.catalog import Catalog
from model.bundle.likely_names import likely_name
from model.bundle.users import Users
from tests.unit.bundle.refusals import refused

FREE = ["item_id", "title", "image", "price", "user_id", "timestamp", "rating"]


@pytest.mark.parametrize(
    ("name", "likely"),
    [
        *(
            (name, "item_id")
            for name in ("sku", "asin", "product_id", "article_id", "parent_asin", "Item-ID", "itm_id")
        ),
        *((name, "title") for name in ("name", "product_name", "Product Name", "prod_name", "titel")),
        *((name, "user_id") for name in ("user", "customer_id", "CustomerID", "visitorid")),
        *((name, "timestamp") for name in ("ts", "time", "date", "t_dat", "created_at", "timestmp")),
        ("stars", "rating"),
        ("colour", None),
    ],
)
def test_common_names_are_known_for_what_they_mean(name: str, likely: str | None) -> None:
    assert likely_name(name, FREE) == likely


def test_a_catalog_without_ids_is_refused_with_what_was_meant() -> None:
    with refused("invalid_catalog", "'sku' may be meant for 'item_id': rename the columns"):
        Catalog.from_rows([{"sku": "a", "index": "1"}])


def test_users_with_other_columns_are_refused_with_what_was_meant() -> None:
    with refused("invalid_catalog", "keep only user_id, index and name. 'user_name' may be meant for 'name'"):
        Users.from_rows([{"user_id": "a", "index": "1", "user_name": "Ann"}])


def test_decimals_of_a_catalog_are_numbers() -> None:
    table = pa.table({"item_id": ["a"], "index": ["1"], "price": [Decimal("4.99")]})
    assert Catalog.from_table(table, "the catalog").attributes(0) == {"price": 4.99}
