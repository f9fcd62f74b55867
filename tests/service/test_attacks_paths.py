"""Answers say which file is at fault, but not where on this machine it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.errors import IntegrityError
from service.http.api_keys import new_key
from service.http.app_state import state_of
from service.http.private_paths import PrivatePaths
from service.versions import version_loader
from tests.service.live import bundle_of, live_settings, shop_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle_of(tmp_path / "secret" / "first", 1)
    (tmp_path / "secret" / "keys.jsonl").write_text(new_key("shop").line + "\n")
    return tmp_path / "secret"


@pytest.mark.parametrize("content", [b"", b"no key\n", None])
async def test_readiness_names_the_keys_file_but_not_its_folder(folder: Path, content: bytes | None) -> None:
    keys = folder / "keys.jsonl"
    async with shop_of(live_settings(folder, api_keys_file=keys)) as shop:
        if content is None:
            keys.unlink()
        else:
            keys.write_bytes(content)
        answer = (await shop.client.get("/health/ready")).json()
        domain = (await shop.client.get("/v2/models/toys/ready")).json()

    assert "keys.jsonl" in answer["degraded"][0]
    assert str(folder) not in str((answer, domain))


async def test_a_refused_load_names_the_bundle_but_not_its_folder(folder: Path) -> None:
    shutil.copytree(folder / "first", folder / "second")
    (folder / "second" / "manifest.json").unlink()
    async with shop_of(live_settings(folder)) as shop:
        problem = await shop.load("second", 422)

    assert "second" in problem["detail"]
    assert str(folder) not in str(problem)


@pytest.mark.parametrize("spelling", ["as it is", "through a link"])
async def test_what_a_library_says_of_a_file_is_cleared_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    (tmp_path / "link").symlink_to(folder)
    root = folder if spelling == "as it is" else tmp_path / "link"

    def refuse(opened: Path, *_: object) -> None:
        raise IntegrityError(f"[Errno 5] Input/output error: '{opened}/domains/toys/adapter.safetensors'")

    shutil.copytree(folder / "first", folder / "second")
    monkeypatch.setattr(version_loader, "open_domain", refuse)
    async with shop_of(live_settings(root)) as shop:
        problem = await shop.load("second", 422)

    assert problem["detail"] == "[Errno 5] Input/output error: 'second/domains/toys/adapter.safetensors'"


async def test_faults_of_the_journal_are_cleared_for_administrators(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop_of(live_settings(folder)) as shop:
        replica = state_of(shop.app).service.administration.replica
        monkeypatch.setitem(replica.progress.faults, "toys", f"the file {folder}/first.journal.jsonl is gone")
        journal = (await shop.admin("GET", "/domains"))["journal"]
        ready = (await shop.client.get("/health/ready")).json()

    assert journal["problems"] == ready["degraded"] == ["the file first.journal.jsonl is gone"]


def test_only_the_folders_of_the_settings_are_cleared() -> None:
    hide = PrivatePaths([Path("/srv/bundles"), Path("/srv/bundles/shop"), Path("/")]).hide

    assert hide("/srv/bundles/shop/manifest.json and /srv/bundles/x") == "manifest.json and x"
    assert hide("the folder /srv/bundles, '/srv/bundles/shop'") == "the folder bundles, 'shop'"
    assert hide("/srv/bundles2/x and /srv/bundles.old") == "/srv/bundles2/x and /srv/bundles.old"
    assert PrivatePaths([]).hide("/srv/bundles") == "/srv/bundles"
    assert hide("the path '/recommend/other' does not exist; GET /openapi.json lists all paths") == (
        "the path '/recommend/other' does not exist; GET /openapi.json lists all paths"
    )
