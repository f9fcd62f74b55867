"""GET /domains and what lies below it show what is served."""

from __future__ import annotations

import httpx
import pytest

from model.planning.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_all_domains_are_listed(shared_client: httpx.AsyncClient, runtime: Runtime) -> None:
    domains = (await shared_client.get("/domains")).json()["domains"]

    assert [domain["name"] for domain in domains] == ["toys", "words"]
    assert {domain["bundle"] for domain in domains} == {runtime.bundle_hash}


async def test_a_domain_tells_what_it_holds(shared_client: httpx.AsyncClient) -> None:
    domain = (await shared_client.get("/domains/toys")).json()

    assert domain["num_items"] == 120
    assert domain["num_active_items"] == 108
    assert domain["num_users"] == 9
    assert domain["columns"] == ["category", "price", "tags"]
    assert domain["encoder"] == {"name": "vitb32", "dim": 8}
    assert domain["visual_tokens"] == 2
    assert domain["is_trained"] is False
    assert [len(ids) for ids in domain["templates"].values()] == [9, 8, 12]
    assert domain["default_templates"] == {"sequential": "A-3", "direct": "B-5"}


async def test_a_text_only_domain_has_no_encoder(shared_client: httpx.AsyncClient) -> None:
    assert (await shared_client.get("/domains/words")).json()["encoder"] is None


async def test_pages_of_items_follow_each_other(shared_client: httpx.AsyncClient) -> None:
    pages = [
        (await shared_client.get("/domains/toys/items", params={"offset": offset, "limit": 50})).json()
        for offset in (0, 50, 100, 150)
    ]

    assert [len(page["items"]) for page in pages] == [50, 50, 20, 0]
    assert [page["offset"] for page in pages] == [0, 50, 100, 150]
    assert {page["total"] for page in pages} == {120}
    assert [item["item_id"] for page in pages for item in page["items"]] == [f"item-{n}" for n in range(1, 121)]


async def test_items_are_found_by_their_title(shared_client: httpx.AsyncClient) -> None:
    page = (await shared_client.get("/domains/toys/items", params={"q": "NUMBER 12"})).json()

    assert [item["item_id"] for item in page["items"]] == ["item-12", "item-120"]
    assert page["total"] == 2
    assert [item["is_active"] for item in page["items"]] == [True, False]


async def test_users_are_listed_and_found(shared_client: httpx.AsyncClient) -> None:
    assert (await shared_client.get("/domains/toys/users")).json()["total"] == 9
    page = (await shared_client.get("/domains/toys/users", params={"q": "ann 3"})).json()
    assert page == {"users": [{"user_id": "u3", "name": "Ann 3"}], "total": 1, "offset": 0}


@pytest.mark.parametrize("path", ["/domains/x", "/domains/x/items", "/domains/x/users", "/v2/models/x/ready"])
async def test_an_unknown_domain_is_not_found(shared_client: httpx.AsyncClient, path: str) -> None:
    response = await shared_client.get(path)

    assert response.status_code == 404
    assert response.json()["code"] == "unknown_domain"
