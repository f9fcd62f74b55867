"""A service under load whose domain is swapped and whose catalog is changed answers as what it names would, always."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.e2e.live import (
    admin_of,
    change,
    check_answers,
    client_of,
    live_bundles,
    live_environment,
    recomputed,
    state_of,
)
from tests.e2e.load import NUM_WORKERS, load_on
from tests.e2e.processes import serving
from tests.service.live import AUTHORIZED

NUM_SWAPS = 8
NUM_ROUNDS = 12


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundles(tmp_path_factory.mktemp("live"), ("first", "second", "third"))


async def test_swaps_under_load_fail_no_request_and_mix_no_weights(bundles: Path, tmp_path: Path) -> None:
    env = live_environment(bundles, VIP5_JOURNAL=str(tmp_path / "journal"))
    with serving(bundles / "first", env) as server:
        async with client_of(server) as client, load_on(client) as load:
            for number in range(NUM_SWAPS):
                await load.more(10)
                await change(client, "POST", "/load", bundle=("second", "third", "first")[number % 3], activate=True)
            await load.more(10)
        async with client_of(server) as client:
            async with asyncio.timeout(30):
                while (await slots(client)) > 2:  # noqa: ASYNC110  # as an operator polls
                    await asyncio.sleep(0.01)

    answers = load.answers
    assert len({answer.body["bundle"] for answer in answers if answer.status == 200}) == 3
    folders = [bundles / name for name in ("first", "second", "third")]
    check_answers(answers, await recomputed(folders, answers, tmp_path))


async def slots(client: httpx.AsyncClient) -> int:
    return int((await client.get("/admin/domains", headers=AUTHORIZED)).json()["num_slots"])


async def test_an_item_out_of_stock_is_in_no_answer_that_comes_after_the_change(bundles: Path, tmp_path: Path) -> None:
    env = live_environment(bundles, VIP5_JOURNAL=str(tmp_path / "journal"), VIP5_ADMIN_PORT="0")
    with serving(bundles / "first", env) as server:
        async with client_of(server) as client, admin_of(server) as admin, load_on(client) as load:
            await load.more(30)
            for _ in range(NUM_ROUNDS):
                item_id = load.answers[-1].body["items"][0]["item_id"]
                await change(admin, "PATCH", "/catalog", deactivate=[item_id])
                # Each worker may have an answer that was sent before the change's and is read after it.
                first = len(load.answers) + NUM_WORKERS
                await load.more(40)
                later = [each["item_id"] for answer in load.answers[first:] for each in answer.body["items"]]
                assert item_id not in later
                await change(admin, "PATCH", "/catalog", activate=[item_id])
                await load.until(lambda answer, item_id=item_id: item_id in str(answer.body["items"]))  # type: ignore[misc]
            await check_ports(client, admin)
        assert all(answer.status == 200 for answer in load.answers)
        server.process.terminate()
        assert server.process.wait(60) == 0


async def check_ports(client: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    """What is for administrators is on their port and on no other."""
    for path in ("/admin/domains", "/metrics"):
        assert (await client.get(path, headers=AUTHORIZED)).status_code == 404
        assert (await admin.get(path, headers=AUTHORIZED)).status_code == 200
    assert (await admin.get("/admin/domains")).status_code == 401
    assert (await admin.get("/domains")).status_code == 404


async def test_what_was_changed_outlives_the_process(bundles: Path, tmp_path: Path) -> None:
    env = live_environment(bundles, VIP5_JOURNAL=str(tmp_path / "journal"))
    with serving(bundles / "first", env) as server:
        async with client_of(server) as client:
            await change(client, "PATCH", "/catalog", deactivate=["item-8"])
            first = (await client.get("/domains/toys")).json()["bundle"]
            await change(client, "POST", "/load", bundle="second", activate=True)
            loaded = await change(client, "POST", "/load", bundle="third")
            version = loaded["versions"][-1]["version"]
            await change(client, "POST", "/canary", version=version, share=0.3)
            new = {"item_id": "new-1", "index": "500", "title": "a new toy"}
            await change(client, "PATCH", "/catalog", deactivate=["item-7"], set={"item-3": {"price": 9}}, add=[new])
            await change(client, "PUT", "/features", features={"new-1": [0.5] * 8})
            before = await state_of(client)
            ask = {"domain": "toys", "history": ["item-1", "new-1"], "k": 100, "user_id": "u1"}
            answer = (await client.post("/recommend/sequential", json=ask)).json()
        server.process.kill()
        server.process.wait()
    with serving(bundles / "first", env) as server:
        async with client_of(server) as client:
            assert await state_of(client) == before
            again = (await client.post("/recommend/sequential", json=ask)).json()
            assert again["items"] == answer["items"]
            assert (await client.get("/health/ready")).json()["degraded"] == []
    with serving(bundles / "first", env | {"VIP5_BUNDLES_ROOT": str(tmp_path)}) as server:
        async with client_of(server) as client:  # the bundles are gone, so what was before them is served
            domain = (await client.get("/domains/toys")).json()
            assert (domain["bundle"], domain["catalog_revision"]) == (first, 3)
            (problem,) = (await client.get("/health/ready")).json()["degraded"]
            assert "the domain toys is not served as the journal says" in problem
            assert "there is no bundle 'second'" in problem
