"""A journal file that is damaged or cannot be used is neither taken for an empty one nor forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.planning.runtime import Runtime
from service.errors import JournalError
from service.settings.settings import Settings
from tests.service.live import bundle_of, ids_of, live_settings, shop_of


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    bundle_of(folder / "first", 1)
    return folder


async def test_an_item_out_of_stock_stays_so_before_and_after_a_damaged_line(bundles: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    settings = live_settings(bundles, journal=str(path))
    async with shop_of(settings) as shop:
        first, _, second, *_ = ids_of(await shop.ask())
        for item_id in (first, "item-30", second):
            await shop.patch(deactivate=[item_id])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"kind", b"kin?") + lines[2])

    for _ in range(2):  # a change and a restart do not end the warning
        async with shop_of(settings) as shop:
            assert not {first, second} & set(ids_of(await shop.ask(k=30)))
            (problem,) = (await shop.client.get("/health/ready")).json()["degraded"]
            assert "has lines that cannot be read, whose changes are not served: 2;" in problem
            await shop.patch(activate=["item-31"])
            assert (await shop.admin("GET", "/domains"))["journal"]["problems"] == [problem]
    assert lines[1].replace(b"kind", b"kin?") in path.read_bytes()


async def test_a_journal_that_cannot_be_used_ends_the_start_before_a_bundle_is_loaded(
    bundles: Path, tmp_path: Path
) -> None:
    def never(_: Settings) -> Runtime:
        raise AssertionError

    for path in (tmp_path, tmp_path / "none" / "journal"):
        with pytest.raises(JournalError, match=rf"the journal {path} .* set VIP5_JOURNAL to "):
            async with shop_of(live_settings(bundles, journal=str(path)), never):
                pass


async def test_a_journal_file_has_nothing_to_resolve(bundles: Path, tmp_path: Path) -> None:
    async with shop_of(live_settings(bundles, journal=str(tmp_path / "journal"))) as shop:
        problem = await shop.admin("POST", "/journal/resolve", 409, json={"keep": "served"})
        assert problem["code"] == "operation_conflict"
        assert "this journal is of the kind 'file'" in problem["detail"]
        await shop.admin("POST", "/journal/resolve", 422, json={"keep": "both"})


async def test_a_journal_whose_snapshot_is_damaged_ends_the_start(bundles: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"snapshot {garbage\n")
    with pytest.raises(JournalError, match=f"line 1 of the journal {path} is damaged"):
        async with shop_of(live_settings(bundles, journal=str(path))):
            pass
    assert path.read_bytes() == b"snapshot {garbage\n"


async def test_a_version_that_failed_to_load_is_reported_until_the_roles_are_changed(
    tmp_path: Path,
) -> None:
    for seed, name in enumerate(("first", "second", "third"), start=1):
        bundle_of(tmp_path / name, seed)
    settings = live_settings(tmp_path, journal=str(tmp_path / "journal"))
    async with shop_of(settings) as shop:
        await shop.load("second", activate=True)
    (tmp_path / "second").rename(tmp_path / "aside")

    async with shop_of(settings) as shop:
        told = (await shop.client.get("/health/ready")).json()["degraded"]
        assert "the domain toys is not served as the journal says" in told[0]
        await shop.patch(deactivate=["item-1"])
        assert (await shop.client.get("/health/ready")).json()["degraded"] == told, "a change of items mends no roles"
        await shop.load("third", activate=True)
        assert (await shop.client.get("/health/ready")).json()["degraded"] == []
