"""A service with VIP5_TRUSTED_KEYS serves only what one of these keys signed, at every way in."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from model.bundle.layout import SIGNATURES
from model.errors import UntrustedBundleError
from service.http.app_state import state_of
from service.settings.settings import Settings
from service.versions.file_watch import FileWatch
from tests.commands import run
from tests.e2e.processes import environment
from tests.service.live import Shop, bundle_of, live_settings, shop_of
from tests.signing import key_pair, signed


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signed bundles, and their maker's keys beside them."""
    folder = tmp_path_factory.mktemp("originals")
    private, _ = key_pair(folder)
    for seed, name in enumerate(("first", "second"), start=1):
        signed(bundle_of(folder / name, seed), private)
    return folder


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "bundles"))


@pytest.fixture
def settings(folder: Path) -> Settings:
    return live_settings(folder, trusted_keys=folder / "key.pub.pem", journal=str(folder / "journal.jsonl"))


@pytest.fixture
async def shop(settings: Settings) -> AsyncIterator[Shop]:
    async with shop_of(settings) as shop:
        yield shop


def unsigned(folder: Path) -> None:
    (folder / "second" / SIGNATURES).unlink()


def signed_by_another_key(folder: Path) -> None:
    unsigned(folder)
    signed(folder / "second", key_pair(folder, "other")[0])


def signed_for_another_bundle(folder: Path) -> None:
    shutil.copyfile(folder / "first" / SIGNATURES, folder / "second" / SIGNATURES)


def without_keys(folder: Path) -> None:
    (folder / "key.pub.pem").write_bytes(b"")


async def test_a_signed_bundle_is_served_and_loaded(shop: Shop) -> None:
    before = await shop.scores()
    await shop.load("second", activate=True)
    assert await shop.scores() != before


@pytest.mark.parametrize("damage", [unsigned, signed_by_another_key, signed_for_another_bundle, without_keys])
async def test_what_no_trusted_key_signed_is_not_loaded(
    shop: Shop, folder: Path, damage: Callable[[Path], None]
) -> None:
    before, versions = await shop.scores(), await shop.versions()
    damage(folder)
    problem = await shop.load("second", 422, activate=True)
    assert problem["code"] == "untrusted_bundle"
    assert str(folder) not in problem["detail"]
    assert (await shop.scores(), await shop.versions()) == (before, versions)


@pytest.mark.parametrize("damage", [unsigned, signed_by_another_key, signed_for_another_bundle, without_keys])
async def test_a_service_does_not_start_with_what_no_trusted_key_signed(
    settings: Settings, folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    start = settings.model_copy(update={"bundle": folder / "second"})
    with pytest.raises(UntrustedBundleError):
        async with shop_of(start):
            pass


async def test_a_restart_does_not_serve_what_lost_its_signature(settings: Settings, folder: Path) -> None:
    async with shop_of(settings) as shop:
        first = await shop.scores()
        await shop.load("second", activate=True)
        second = await shop.scores()
    async with shop_of(settings) as shop:
        assert await shop.scores() == second
    unsigned(folder)
    async with shop_of(settings) as shop:
        assert await shop.scores() == first
        assert any("second is not signed" in each for each in state_of(shop.app).service.problems())


async def test_a_key_that_is_revoked_is_reported_and_the_next_load_refused(
    shop: Shop, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = FileWatch(state_of(shop.app).service.domains)
    await watch.check()
    assert watch.problems == []
    _, other = key_pair(folder, "other")
    shutil.copyfile(other, folder / "key.pub.pem")
    with caplog.at_level(logging.ERROR):
        await watch.check()
    assert "manifest.json.sig is not trusted any more" in "".join(watch.problems)
    assert [record.message for record in caplog.records] == ["bundle_file_changed"]
    assert (await shop.load("second", 422))["code"] == "untrusted_bundle"
    assert len(await shop.scores()) == 5


async def test_a_further_signature_is_no_change(shop: Shop, folder: Path) -> None:
    watch = FileWatch(state_of(shop.app).service.domains)
    signed(folder / "first", key_pair(folder, "new")[0])
    await watch.check(is_thorough=True)
    assert watch.problems == []
    (folder / "first" / SIGNATURES).write_bytes(b"{}")
    await watch.check()
    assert "manifest.json.sig is not trusted any more" in "".join(watch.problems)


async def test_without_trusted_keys_signatures_do_not_matter(folder: Path) -> None:
    (folder / "first" / SIGNATURES).write_bytes(b"anything")
    async with shop_of(live_settings(folder)) as shop:
        await shop.load("second")


def test_the_start_ends_with_one_line(folder: Path) -> None:
    unsigned(folder)
    variables = environment() | {"VIP5_TRUSTED_KEYS": str(folder / "key.pub.pem")}
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--port", "0", "--bundle"]
    done = subprocess.run([*command, folder / "second"], env=variables, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert (done.returncode, len(lines)) == (1, 1)
    assert lines[0].startswith("error: second is not signed: it has no manifest.json.sig; do not trust its source")


def test_commands_make_a_key_sign_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = bundle_of(tmp_path / "shop", 1)
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    assert run("bundle", "new-key", "--out", private) == 0
    public.write_text(capsys.readouterr().out, encoding="utf-8")
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert run("bundle", "verify", "--bundle", root, "--key", public) == 1
    assert "shop is not signed" in capsys.readouterr().err
    assert run("bundle", "sign", "--bundle", root, "--key", private) == 0
    assert run("bundle", "verify", "--bundle", root, "--key", public) == 0
    assert capsys.readouterr().out.rstrip().endswith("signed by a key of public.pem")
    assert run("bundle", "verify", "--bundle", root) == 0
    assert run("bundle", "sign", "--bundle", root, "--key", public) == 1
    assert run("bundle", "new-key", "--out", private) == 2
