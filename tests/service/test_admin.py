"""Versions of a domain come and go while it is served."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.plans import RankingPlan
from model.engine.protocol import Placement, Ranking, Timings
from model.planning.runtime import Runtime
from service.answering.service import load
from service.settings.settings import Settings
from tests.engines import DisguisedEngine
from tests.service.live import ASK, AUTHORIZED, WIDER, Shop, bundle_of, held_shop, live_settings, shop_of
from tests.service.test_bad_input import check_problem
from tests.tiny import TINY_BACKBONE


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles that share a backbone, but for `foreign` and `large`."""
    folder = tmp_path_factory.mktemp("live")
    bundle_of(folder / "first", 1)
    bundle_of(folder / "second", 2, layout=WIDER)
    bundle_of(folder / "third", 3)
    bundle_of(folder / "dolls", 4, name="dolls")
    bundle_of(folder / "foreign", 1, backbone_seed=9)
    bundle_of(folder / "large", 1, backbone=replace(TINY_BACKBONE, d_ff=32))
    return folder


@pytest.fixture
def bundles(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "bundles"))


@pytest.fixture
async def shop(bundles: Path) -> AsyncIterator[Shop]:
    async with shop_of(live_settings(bundles)) as shop:
        yield shop


async def alone(bundles: Path, name: str) -> list[float]:
    """Scores by a service that was started with a bundle."""
    async with shop_of(Settings(bundle=bundles / name, num_threads=1)) as shop:
        return await shop.scores()


async def test_without_a_token_there_is_no_admin(bundles: Path) -> None:
    async with shop_of(Settings(bundle=bundles / "first", num_threads=1)) as shop:
        response = await shop.client.get("/admin/domains", headers=AUTHORIZED)
        check_problem(response, 404, "unknown_route")
        assert "/admin/domains" not in (await shop.client.get("/openapi.json")).text


async def test_a_wrong_token_is_refused(shop: Shop) -> None:
    for given in ("", "Bearer wrong", "Bearer", "Basic open-sesame-open-sesame", "open-sesame", "Bearer ü"):
        headers = {b"Authorization": given.encode("latin-1")} if given else {}
        for method, path in (("GET", "/admin/domains"), ("POST", "/admin/domains/toys/load"), ("POST", "/admin/drain")):
            response = await shop.client.request(method, path, headers=headers)
            check_problem(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await shop.client.get("/health/ready")).status_code == 200


async def test_a_loaded_version_answers_after_the_swap_as_if_it_were_served_alone(shop: Shop, bundles: Path) -> None:
    first = await shop.ask()
    await shop.load("second")
    assert await shop.scores() == await alone(bundles, "first")
    await shop.admin("POST", "/domains/toys/swap", json={})
    second = await shop.ask()

    assert [item["score"] for item in second["items"]] == pytest.approx(await alone(bundles, "second"), abs=1e-5)
    assert first["bundle"] != second["bundle"]
    assert f'vip5_bundle_info{{domain="toys",hash="{second["bundle"]}"}} 1.0' in await shop.metrics()
    assert first["bundle"] not in await shop.metrics("vip5_bundle_info")


async def test_a_rollback_is_a_swap_back_and_can_be_undone(shop: Shop) -> None:
    await shop.admin("POST", "/domains/toys/rollback", 409)
    before = await shop.ask()
    await shop.load("second", activate=True)
    after = await shop.ask()
    assert before["bundle"] != after["bundle"]
    await shop.admin("POST", "/domains/toys/rollback")
    assert (await shop.ask())["items"] == before["items"]
    await shop.admin("POST", "/domains/toys/rollback")
    assert (await shop.ask())["items"] == after["items"]


async def test_slots_are_given_back(shop: Shop) -> None:
    for bundle in ("second", "third", "second", "first", "third"):
        await shop.load(bundle, activate=True)
        await shop.until_slots(2)
    assert sorted(await shop.versions()) == ["previous", "stable"]
    assert "num_slots" in str(await shop.admin("GET", "/domains"))


async def test_a_domain_that_was_not_there_is_loaded_and_unloaded(shop: Shop) -> None:
    await shop.admin("POST", "/domains/dolls/load", json={"bundle": "dolls"})
    check_problem(
        await shop.client.post("/recommend/sequential", json=ASK | {"domain": "dolls"}), 404, "unknown_domain"
    )
    await shop.admin("POST", "/domains/dolls/swap", json={})
    assert (await shop.ask(domain="dolls"))["domain"] == "dolls"
    await shop.admin("POST", "/domains/puppets/load", json={"bundle": "dolls", "domain": "dolls", "activate": True})
    assert (await shop.ask(domain="puppets"))["domain"] == "puppets"
    assert (await shop.client.get("/v2/models/puppets/ready")).status_code == 200
    for name in ("dolls", "puppets"):
        await shop.admin("DELETE", f"/domains/{name}", 204)
        check_problem(
            await shop.client.post("/recommend/sequential", json=ASK | {"domain": name}), 404, "unknown_domain"
        )
    await shop.until_slots(1)


async def test_a_name_that_cannot_be_one_is_refused(shop: Shop) -> None:
    for name in ("dolls%20and%20bears", "-dolls", "d" * 65):
        problem = await shop.admin("POST", f"/domains/{name}/load", 422, json={"bundle": "dolls", "domain": "dolls"})
        assert "cannot name a domain" in problem["detail"]


async def test_only_one_version_waits(shop: Shop) -> None:
    loaded = await shop.load("second")
    assert (await shop.load("third", 409))["code"] == "operation_conflict"
    await shop.admin("DELETE", "/domains/toys/load")
    assert {role for each in loaded["versions"] for role in each["roles"]} == {"stable", "loaded"}
    await shop.load("third")
    await shop.admin("POST", "/domains/toys/swap", 404, json={"version": "nonsense"})
    await shop.admin("POST", "/domains/toys/swap", 409, json={"expected": "nonsense"})
    versions = await shop.versions()
    expecting = {"version": versions["loaded"], "expected": versions["stable"]}
    await shop.admin("POST", "/domains/toys/swap", json=expecting)
    assert (await shop.versions())["stable"] == versions["loaded"]


BAD_BUNDLES = [
    ("foreign", 422, "backbone_mismatch"),
    ("large", 422, "backbone_mismatch"),
    ("nothing", 404, "unknown_bundle"),
    ("..", 404, "unknown_bundle"),
    ("../bundles/second", 404, "unknown_bundle"),
    (".hidden", 404, "unknown_bundle"),
    ("outside", 404, "unknown_bundle"),
    ("second\n", 404, "unknown_bundle"),
    ("dolls", 422, "invalid_bundle"),
]


async def test_a_bundle_that_does_not_fit_changes_nothing(shop: Shop, bundles: Path) -> None:
    (bundles.parent / "elsewhere").mkdir()
    (bundles / "outside").symlink_to(bundles.parent / "elsewhere")
    shutil.copytree(bundles / "second", bundles / ".hidden")
    before = await shop.ask()

    for bundle, status, code in BAD_BUNDLES:
        assert (await shop.load(bundle, status, activate=True))["code"] == code

    assert (await shop.ask())["items"] == before["items"]
    await shop.until_slots(1)
    assert f'vip5_reload_failures_total{{domain="toys"}} {len(BAD_BUNDLES)}.0' in await shop.metrics()
    assert 'vip5_last_reload_success{domain="toys"} 0.0' in await shop.metrics()


async def test_a_damaged_file_changes_nothing(shop: Shop, bundles: Path) -> None:
    for file in ("features.safetensors", "domain.json", "catalog.parquet", "adapter.safetensors"):
        path = bundles / "second" / "domains" / "toys" / file
        path.write_bytes(path.read_bytes()[:-1])
        problem = await shop.load("second", 422)
        assert problem["code"] == "bundle_integrity"
    assert "adapter.safetensors" in problem["detail"]  # the first that is looked at
    assert len(await shop.scores()) == 5


class FailingEngine(DisguisedEngine):
    """The real engine until it is told to fail."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine)
        self.places_fail = False
        self.failing_slots: set[int] = set()

    def place(self, slot: int, placement: Placement) -> None:
        if self.places_fail:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self._engine.place(slot, placement)

    def search(self, batch: Sequence[RankingPlan]) -> tuple[list[Ranking], Timings]:
        if self.failing_slots & {plan.slot for plan in batch}:
            raise RuntimeError("device-side assert")
        return self._engine.search(batch)


async def test_a_version_that_cannot_be_placed_or_does_not_answer_changes_nothing(bundles: Path) -> None:
    engines: list[FailingEngine] = []

    def loader(settings: Settings) -> Runtime:
        runtime = load(settings)
        engines.append(FailingEngine(runtime))
        return replace(runtime, engine=engines[0])

    async with shop_of(live_settings(bundles), loader) as shop:
        engines[0].places_fail = True
        problem = await shop.load("second", 500, activate=True)
        assert "CUDA out of memory" in problem["detail"]
        engines[0].places_fail, engines[0].failing_slots = False, {1}
        problem = await shop.load("second", 500, activate=True)
        assert problem["code"] == "engine_error"
        assert list(await shop.versions()) == ["stable"]
        await shop.until_slots(1)
        assert 'vip5_reload_failures_total{domain="toys"} 2.0' in await shop.metrics()
        engines[0].failing_slots = set()
        await shop.load("second", activate=True)
        assert 'vip5_last_reload_success{domain="toys"} 1.0' in await shop.metrics()


async def test_a_request_that_runs_ends_on_the_version_that_it_began_with(bundles: Path) -> None:
    async with held_shop(live_settings(bundles)) as (shop, engine):
        expected = await shop.ask()
        await shop.load("second")
        running = await engine.hold(shop)
        await shop.admin("POST", "/domains/toys/swap", json={})
        await shop.admin("DELETE", "/domains/toys", 204)
        for _ in range(20):  # time enough for whoever would not wait
            await shop.admin("GET", "/domains")
        assert 0 not in engine.vacated
        engine.gate.set()
        assert (await running)["items"] == expected["items"]
        await shop.until_slots(0)


async def test_drain_refuses_what_comes(shop: Shop) -> None:
    await shop.admin("POST", "/drain")
    check_problem(await shop.client.post("/recommend/sequential", json=ASK), 503, "draining")
    assert (await shop.client.get("/health/ready")).status_code == 503
