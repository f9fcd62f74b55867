"""A process that holds some of many domains: what it serves is what the journal and the directory say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from model.bundle.manifest import read_manifest
from model.errors import UnknownDomainError
from model.planning.runtime import Runtime
from service.answering.service import load
from service.errors import NotReadyError
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from service.versions.held_domains import HeldDomains
from service.versions.journal import Update
from service.versions.state import DomainState, VersionRef
from tests.service.conftest import client_of
from tests.service.live import HeldEngine, Shop, bundle_of, live_settings, shop_of


def ref_of(folder: Path, name: str) -> VersionRef:
    return VersionRef(name, read_manifest(folder / name).hash, "toys")


@asynccontextmanager
async def holding_shop(settings: Settings) -> AsyncIterator[tuple[Shop, HeldDomains, HeldEngine]]:
    engines: list[HeldEngine] = []

    def loader(settings: Settings) -> Runtime:
        runtime = load(settings)
        engines.append(HeldEngine(runtime))
        return replace(runtime, engine=engines[0])

    app = create_app(settings, loader)
    state_of(app).holds_all = False
    async with client_of(app) as client:
        domains = state_of(app).service.administration.replica
        assert isinstance(domains, HeldDomains)
        domains.directory = {"toys": ref_of(settings.bundle.parent, "second")}
        yield Shop(app, client), domains, engines[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for seed, name in enumerate(("first", "second"), start=1):
        bundle_of(tmp_path / name, seed)
    return live_settings(tmp_path)


async def test_a_domain_is_served_while_it_is_held_as_the_directory_says(settings: Settings, tmp_path: Path) -> None:
    plain = live_settings(tmp_path).model_copy(update={"bundle": tmp_path / "second", "journal": str(tmp_path / "j")})
    async with shop_of(plain) as other:
        expected = await other.scores()
    async with holding_shop(settings) as (shop, domains, _):
        await shop.is_unknown("toys")
        await domains.hold("toys")
        await domains.hold("toys")
        assert await shop.scores() == expected
        await domains.let_go("toys")
        await shop.is_unknown("toys")
        await shop.until_slots(0)
        with pytest.raises(UnknownDomainError):
            await domains.hold("others")


async def test_changes_are_kept_in_mind_while_a_domain_is_not_held(settings: Settings) -> None:
    async with holding_shop(settings) as (shop, domains, _):
        await domains.hold("toys")
        await shop.patch(deactivate=["item-3"])
        await domains.let_go("toys")
        await shop.patch(404, deactivate=["item-4"])
        assert (await shop.load("first", 409))["code"] == "operation_conflict"
        changed = domains.state("toys")
        further = replace(changed, revision=changed.revision + 1, catalog_revision=7)
        await domains._apply(Update(0, {"toys": further, "unheard": DomainState(revision=1)}))
        await shop.is_unknown("toys")
        await domains.hold("toys")
        assert shop.revision() == 7
        assert not shop.catalog("toys").is_active[2]


async def test_requests_that_run_complete_when_their_domain_is_let_go(settings: Settings) -> None:
    async with holding_shop(settings) as (shop, domains, engine):
        await domains.hold("toys")
        running = await engine.hold(shop)
        vacated = len(engine.vacated)
        await domains.let_go("toys")
        await shop.is_unknown("toys")
        assert len(engine.vacated) == vacated
        engine.gate.set()
        assert len((await running)["items"]) == 5
        await shop.until_slots(0)


async def test_a_domain_that_cannot_be_loaded_can_be_later(settings: Settings, tmp_path: Path) -> None:
    async with holding_shop(settings) as (shop, domains, _):
        (tmp_path / "second").rename(tmp_path / "elsewhere")
        with pytest.raises(NotReadyError, match=r"could not be loaded: .* there is no bundle 'second'"):
            await domains.hold("toys")
        assert domains.held == set()
        (tmp_path / "elsewhere").rename(tmp_path / "second")
        await asyncio.gather(domains.hold("toys"), domains.hold("toys"))
        assert await shop.scores()
        assert domains.problems == []


async def test_another_directory_changes_what_is_served(settings: Settings, tmp_path: Path) -> None:
    async with holding_shop(settings) as (shop, domains, _):
        await domains.hold("toys")
        before = await shop.scores()
        own_hash = state_of(shop.app).service.administration.own_hash
        domains.directory = {"toys": VersionRef("", own_hash, "toys")}
        await domains.hold("toys")
        assert await shop.scores() != before


async def test_without_domains_a_process_is_ready(settings: Settings) -> None:
    async with holding_shop(settings) as (shop, _, _):
        answer: httpx.Response = await shop.client.get("/health/ready")
        assert answer.status_code == 200
