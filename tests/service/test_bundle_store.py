"""Bundles of a store: /admin loads them by hash or as `latest`, and VIP5_BUNDLE may be a store's URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model.bundle.exchange.place import StorePlace
from model.bundle.exchange.push import push
from model.bundle.exchange.store import BundleStore
from service.settings.loading import SettingsError
from service.settings.served_bundle import load_with_bundle
from service.settings.settings import Settings
from tests.commands import run
from tests.service.live import TOKEN, Shop, bundle_of, live_settings, shop_of


@pytest.fixture
def pushed(tmp_path: Path) -> list[str]:
    """Hashes of three bundles, all but the first of which are in the store; the third is the latest."""
    store = BundleStore(StorePlace.parse(store_of(tmp_path)))
    roots = [bundle_of(tmp_path / name, seed) for seed, name in enumerate(("first", "second", "third"), start=1)]
    return [push(root, store).bundle for root in roots[1:]]


def store_of(folder: Path) -> str:
    return f"file://{folder}/store"


@pytest.fixture
async def shop(pushed: list[str], tmp_path: Path) -> AsyncIterator[Shop]:
    settings = live_settings(tmp_path, bundle_store=store_of(tmp_path), journal=str(tmp_path / "journal.jsonl"))
    async with shop_of(settings.model_copy(update={"bundles_root": tmp_path / "pulled"})) as shop:
        yield shop


async def test_a_bundle_of_the_store_is_loaded_by_its_hash_and_as_the_latest(shop: Shop, pushed: list[str]) -> None:
    before = await shop.scores()
    await shop.load(pushed[0], activate=True)
    one = await shop.scores()
    await shop.load("latest", activate=True)
    body = await shop.admin("GET", "/domains/toys")
    assert {each["bundle"] for each in body["versions"]} >= {pushed[1]}  # a name that stays true
    assert len({str(before), str(one), str(await shop.scores())}) == 3


async def test_what_the_store_lacks_is_refused_and_serving_goes_on(shop: Shop) -> None:
    before = await shop.scores()
    problem = await shop.load("a" * 64, 502)
    assert problem["code"] == "bundle_store"
    assert f"has no bundle {'a' * 64}; push it first" in problem["detail"]
    assert (await shop.load("other", 404))["code"] == "unknown_bundle"
    assert await shop.scores() == before


def test_a_setting_that_is_a_url_is_pulled(pushed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", store_of(tmp_path))
    monkeypatch.setenv("VIP5_BUNDLES_ROOT", str(tmp_path / "pulled"))
    monkeypatch.setenv("VIP5_ADMIN_TOKEN", TOKEN)
    settings = load_with_bundle({})
    assert settings.bundle == tmp_path / "pulled" / pushed[1]
    assert settings.admin_options.bundle_store == StorePlace(store_of(tmp_path))
    again = load_with_bundle({"bundle": f"{store_of(tmp_path)}#{pushed[0][:10]}"})
    assert again.bundle == tmp_path / "pulled" / pushed[0]
    # Changes belong to the store's service, whichever bundle is its latest.
    assert again.journal_options.path == settings.journal_options.path
    assert settings.journal_options.path.parent == tmp_path / "pulled"
    assert again.history_options.path == settings.history_options.path
    assert settings.history_options.path.parent == tmp_path / "pulled"


def test_what_is_set_beside_a_bundle_that_is_a_url_stays(
    pushed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIP5_BUNDLES_ROOT", str(tmp_path / "pulled"))
    monkeypatch.setenv("VIP5_BUNDLE_STORE", "s3://models/more")
    monkeypatch.setenv("VIP5_HISTORY_FILE", str(tmp_path / "histories"))
    settings = load_with_bundle({"bundle": store_of(tmp_path)})
    assert settings.bundle == tmp_path / "pulled" / pushed[1]
    assert settings.admin_options.bundle_store == StorePlace("s3://models/more")
    assert settings.history_options.path == tmp_path / "histories"


def test_a_store_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIP5_BUNDLE_STORE", "s3://")
    with pytest.raises(
        SettingsError, match=r"VIP5_BUNDLE_STORE\) is 's3://': .* write a URL such as s3://bucket/bundles"
    ):
        load_with_bundle({"bundle": tmp_path})


def test_pulled_bundles_are_in_the_users_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = Settings(bundle=tmp_path, bundle_store="s3://models/shop")
    assert settings.admin_options.bundles_root == tmp_path / "vip5-serve" / "bundles"
    assert tmp_path / "vip5-serve" / "bundles" in settings.private_folders
    assert Settings(bundle=tmp_path).admin_options.bundles_root is None


def test_the_commands_push_and_pull(pushed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bundle", "push", tmp_path / "copies", "--bundle", tmp_path / "second") == 0
    sent = capsys.readouterr().out
    assert sent.startswith("pushed ")
    assert f"bundle {pushed[0]}, now the latest" in sent
    assert run("bundle", "pull", f"{tmp_path / 'copies'}#{pushed[0][:8]}", "--to", tmp_path / "bundles") == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "bundles" / pushed[0]))
    assert run("bundle", "pull", tmp_path / "nowhere", "--to", tmp_path / "bundles") == 1
    assert "has no latest bundle" in capsys.readouterr().err
    assert run("bundle", "pull", "s3://", "--to", tmp_path / "bundles") == 2
    assert "'s3://' is no store of bundles; write a URL" in capsys.readouterr().err
    options = ("--bundle", tmp_path / "second", "--if-latest", pushed[0][:8])
    assert run("bundle", "push", tmp_path / "copies", *options) == 2
    assert "not the hash of a bundle; write all of its 64 digits" in capsys.readouterr().err
