"""Bundles that are made to do harm are refused by /admin before they are read, and change nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.bundle import manifest
from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures, load_features, write_features
from model.bundle.manifest import write_manifest
from model.bundle.tables import MOST_TABLE_BYTES, read_bundled_parquet
from model.errors import CatalogError
from tests.service.live import Shop, bundle_of, live_settings, shop_of
from tests.tiny import tiny_catalog

DOMAIN = Path("domains/toys")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    bundle_of(folder / "first", 1)
    bundle_of(folder / "second", 2)
    return folder


@pytest.fixture
def bundles(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "bundles"))


@pytest.fixture
async def shop(bundles: Path) -> AsyncIterator[Shop]:
    async with shop_of(live_settings(bundles)) as shop:
        before = await shop.ask()
        yield shop
        assert (await shop.ask())["items"] == before["items"]
        assert list(await shop.versions()) == ["stable"]


async def refusal(shop: Shop, code: str, *, bundle: str = "second", status: int = 422) -> str:
    problem = await shop.load(bundle, status, activate=True)
    assert problem["code"] == code, problem
    detail: str = problem["detail"]
    return detail


async def test_a_name_is_never_a_path(shop: Shop) -> None:
    names = ("../second", "..", ".", "second/../second", "/etc", "second/", "a\\b", "%2e%2e", "second\x00", "~")
    for name in names:
        await refusal(shop, "unknown_bundle", bundle=name, status=404)
    for name in ("", "x" * 129):
        await refusal(shop, "invalid_input", bundle=name)


async def test_a_link_leads_nowhere_outside(shop: Shop, bundles: Path) -> None:
    outside = shutil.copytree(bundles / "second", bundles.parent / "outside")
    (bundles / "linked").symlink_to(outside)
    (bundles / "looped").symlink_to(bundles / "looped")

    await refusal(shop, "unknown_bundle", bundle="linked", status=404)
    await refusal(shop, "unknown_bundle", bundle="looped", status=404)


@pytest.mark.parametrize(
    "path",
    ["manifest.json", "backbone/config.json", DOMAIN / "catalog.parquet", DOMAIN / "adapter.safetensors", DOMAIN],
)
async def test_a_file_that_is_a_link_out_of_the_bundle_is_not_followed(
    shop: Shop, bundles: Path, path: str | Path
) -> None:
    outside = Path(shutil.move(bundles / "second" / path, bundles.parent / "elsewhere"))
    (bundles / "second" / path).symlink_to(outside)

    assert "link to a file outside the bundle" in await refusal(shop, "bundle_integrity")


async def test_a_manifest_cannot_name_a_file_outside(shop: Shop, bundles: Path) -> None:
    file = bundles / "second" / "manifest.json"
    content = json.loads(file.read_text())
    for path in ("../outside", "/etc/passwd", "domains/toys/../../../x", "domains\\toys\\x", "run.py"):
        listed = content["files"] | {path: {"sha256": "0" * 64, "size": 1}}
        file.write_text(json.dumps(content | {"files": listed}))
        await refusal(shop, "bundle_integrity")


async def test_a_manifest_that_explodes_is_refused(shop: Shop, bundles: Path) -> None:
    deep = (b"[" * 1_000_000, b'{"files": ' * 100_000)
    for content in (*deep, b"\xff", b"null", b'{"format_version": 1, "files": NaN}', b'{"format_version": 1}'):
        (bundles / "second" / "manifest.json").write_bytes(content)
        await refusal(shop, "bundle_integrity" if content.endswith(b"1}") else "invalid_bundle")


async def test_a_pipe_in_the_place_of_a_file_does_not_hang(shop: Shop, bundles: Path) -> None:
    for name in ("manifest.json", "domains/toys/catalog.parquet"):
        shutil.copytree(bundles / "first", bundles / "piped", dirs_exist_ok=True)
        (bundles / "piped" / name).unlink()
        os.mkfifo(bundles / "piped" / name)
        await refusal(shop, "bundle_integrity", bundle="piped")
        shutil.rmtree(bundles / "piped")


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_embeddings_that_the_network_cannot_take_are_refused(shop: Shop, bundles: Path, value: float) -> None:
    """Served, they left recommendations without items and explanations with status 500."""
    file = bundles / "second" / DOMAIN / "features.safetensors"
    found = load_features(file)
    rows = found.features.copy()
    rows[3, 2] = value
    write_features(file, ItemFeatures(found.item_ids, rows, found.encoder))
    write_manifest(bundles / "second")

    assert f"{found.item_ids[3]!r} has values that are NaN or infinite" in await refusal(shop, "invalid_bundle")


@pytest.mark.parametrize("path", ["manifest.json", "backbone/tokenizer.json", DOMAIN / "domain.json"])
async def test_a_file_beyond_its_limit_is_not_read(
    shop: Shop, bundles: Path, path: str | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with a hole is as large as it says, and costs its maker nothing."""
    file = bundles / "second" / path
    most = manifest.MOST_BYTES[file.name]
    if file.name != "manifest.json":
        listed = json.loads((bundles / "second/manifest.json").read_text())
        listed["files"][str(path)]["size"] = most + 1
        (bundles / "second/manifest.json").write_text(json.dumps(listed))
    os.truncate(file, most + 1)
    monkeypatch.setattr(manifest, "file_record", None)  # hashing one would fail

    assert f"has {most + 1} bytes, the limit is {most}" in await refusal(shop, "bundle_integrity")


def test_every_file_of_a_bundle_has_a_limit() -> None:
    places = (*manifest._BACKBONE_FILES, *manifest._DOMAIN_FILES, *manifest._OPTIONAL_DOMAIN_FILES)

    assert {Path(place).name for place in places} | {"manifest.json"} == set(manifest.MOST_BYTES)


async def test_tensors_of_other_shapes_than_the_spec_says_are_refused(shop: Shop, bundles: Path) -> None:
    file = bundles / "second" / DOMAIN / "domain.json"
    spec = json.loads(file.read_text())
    spec["layout"]["bottleneck"] = 2**40  # tensors of that size would not fit anywhere, and are not made
    file.write_text(json.dumps(spec))
    write_manifest(bundles / "second")

    await refusal(shop, "invalid_bundle")


def bomb(path: Path, *, lists: bool) -> int:
    """A catalog that unpacks to more than is read; its size in bytes."""
    num_rows = MOST_TABLE_BYTES // (1 << 20) + 1
    text = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array(["x" * (1 << 20)]))
    column = pa.ListArray.from_arrays(pa.array(range(num_rows + 1), pa.int32()), text) if lists else text
    names = [str(number) for number in range(num_rows)]
    pq.write_table(pa.table({"item_id": names, "index": names, "story": column}), path, compression="zstd")
    return path.stat().st_size


@pytest.mark.parametrize("lists", [False, True])
async def test_a_catalog_that_unpacks_without_end_is_refused(shop: Shop, bundles: Path, *, lists: bool) -> None:
    num_bytes = bomb(bundles / "second" / DOMAIN / "catalog.parquet", lists=lists)
    write_manifest(bundles / "second")

    detail = await refusal(shop, "invalid_catalog")

    assert num_bytes < 200_000
    assert f"the limit is {MOST_TABLE_BYTES}" in detail


def test_zeros_that_are_packed_well_are_refused_by_what_the_file_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "zeros.parquet"
    pq.write_table(pa.table({"a": ["x" * 1_000_000 + str(n) for n in range(20)]}), file, compression="zstd")
    monkeypatch.setattr("model.bundle.tables.MOST_TABLE_BYTES", 10_000_000)
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.read", None)  # reading it would fail

    assert file.stat().st_size < 100_000
    with pytest.raises(CatalogError, match="zeros unpacks to 20"):
        read_bundled_parquet(file, "zeros")


def test_what_is_read_packed_is_the_table_that_was_written(tmp_path: Path) -> None:
    catalog = tiny_catalog()
    catalog.write(tmp_path / "catalog.parquet")

    assert Catalog.read(tmp_path / "catalog.parquet").table.equals(catalog.table)
    assert read_bundled_parquet(tmp_path / "catalog.parquet", "it").schema == catalog.table.schema
