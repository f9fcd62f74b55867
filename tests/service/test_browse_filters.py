"""Items are found by their attributes and by their ids, and columns tell which values there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS = "/domains/toys/items"


async def found(client: httpx.AsyncClient, **query: str | int | Sequence[str]) -> dict[str, Any]:
    response = await client.get(ITEMS, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


async def test_columns_list_their_most_frequent_values(shared_client: httpx.AsyncClient) -> None:
    columns = {each["name"]: each for each in (await shared_client.get("/domains/toys/columns")).json()["columns"]}

    assert list(columns) == ["category", "price", "tags"]
    assert {each["value"]: each["num_items"] for each in columns["category"]["values"]} == {
        "dolls": 40,
        "games": 40,
        "puzzles": 40,
    }
    assert columns["tags"]["values"] == [{"value": "new", "num_items": 60}, {"value": "red", "num_items": 24}]
    assert (len(columns["price"]["values"]), columns["price"]["num_values"]) == (50, 120)


async def test_items_are_found_by_their_attributes(shared_client: httpx.AsyncClient) -> None:
    where = json.dumps({"category": ["dolls", "games"], "tags": "red"})
    first = await found(shared_client, where=where, limit=2)
    rest = await found(shared_client, where=where, limit=50, offset=2)
    named = await found(shared_client, where=where, q="number 1")

    assert first["total"] == rest["total"] == 16
    ids = [item["item_id"] for item in first["items"] + rest["items"]]
    assert ids == [f"item-{n}" for n in range(1, 121) if n % 3 in (0, 1) and n % 5 == 0]
    assert [item["item_id"] for item in named["items"]] == ["item-10", "item-15", "item-100", "item-115", "item-120"]


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("{", "invalid_input"),
        ("[]", "invalid_input"),
        ('{"category": {"a": 1}}', "invalid_input"),
        ('{"category": NaN}', "invalid_input"),
        ('{"colour": "red"}', "unknown_column"),
        ('{"price": "cheap"}', "invalid_input"),
    ],
)
async def test_filters_that_are_none_are_refused(shared_client: httpx.AsyncClient, where: str, code: str) -> None:
    response = await shared_client.get(ITEMS, params={"where": where})

    assert (response.status_code, response.json()["code"]) == (422, code)


async def test_items_are_found_by_their_ids_in_the_order_of_the_request(shared_client: httpx.AsyncClient) -> None:
    page = await found(shared_client, item_id=["item-9", "nothing", "item-2"])

    assert [item["item_id"] for item in page["items"]] == ["item-9", "item-2"]
    assert page["total"] == 2


async def test_one_item_is_shown(shared_client: httpx.AsyncClient) -> None:
    item = (await shared_client.get(f"{ITEMS}/item-9")).json()
    missing = await shared_client.get(f"{ITEMS}/nothing")

    assert (item["item_id"], item["title"], item["is_active"]) == ("item-9", "toy number 9", True)
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_item")


async def test_a_domain_names_the_versions_that_answer(shared_client: httpx.AsyncClient) -> None:
    domain = (await shared_client.get("/domains/toys")).json()

    assert domain["roles"] == {"stable": f"{domain['bundle'][:12]}:toys"}
