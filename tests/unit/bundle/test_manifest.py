from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from model.bundle.manifest import MOST_IMAGE_BYTES, check_domain_name, read_manifest, verify_files, write_manifest
from tests.tiny import tiny_bundle
from tests.unit.bundle.refusals import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path, ("toys", "games"))


def relist(root: Path, name: str, path: str) -> None:
    """List `path` in the manifest in the place of `name`."""
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["files"][path] = manifest["files"].pop(name)
    (root / "manifest.json").write_text(json.dumps(manifest))


def test_an_untouched_bundle_verifies(root: Path) -> None:
    manifest = verify_files(root)
    assert manifest.domains == ("games", "toys")
    assert manifest.hash == hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()


def test_the_same_content_gives_the_same_hash(root: Path, tmp_path: Path) -> None:
    again = tiny_bundle(tmp_path / "again", ("toys", "games"))
    other = tiny_bundle(tmp_path / "other", ("toys",))
    assert read_manifest(again).hash == read_manifest(root).hash
    assert read_manifest(other).hash != read_manifest(root).hash


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "domains/toys/catalog.parquet").unlink()
    with refused("bundle_integrity", "domains/toys/catalog.parquet is missing; copy the bundle again"):
        verify_files(root)


def test_a_truncated_file_is_named(root: Path) -> None:
    path = root / "backbone/model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with refused(
        "bundle_integrity", f"model.safetensors has {len(content) - 1} bytes, the manifest says {len(content)}"
    ):
        verify_files(root)


def test_a_flipped_bit_is_found(root: Path) -> None:
    path = root / "domains/games/adapter.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with refused("bundle_integrity", "domains/games/adapter.safetensors was modified: its sha256 is"):
        verify_files(root)


def test_a_file_that_is_not_listed_is_named(root: Path) -> None:
    (root / "domains/toys/notes.txt").write_text("hello")
    with refused("bundle_integrity", "domains/toys/notes.txt is not in manifest.json; remove it"):
        verify_files(root)


@pytest.mark.parametrize(
    "path", ["../outside.json", "/etc/passwd", "domains/../../outside", "domains\\..\\outside", ".."]
)
def test_a_path_that_leaves_the_bundle_is_refused(root: Path, path: str) -> None:
    relist(root, "domains/toys/users.parquet", path)
    with refused("bundle_integrity", f"manifest.json lists {path!r}, which is outside the bundle"):
        verify_files(root)


@pytest.mark.parametrize(
    "path",
    ["run.py", "domains/toys/code.pkl", "domains/.toys/users.parquet", "backbone//model.safetensors", "manifest.json"],
)
def test_only_the_files_of_a_bundle_have_a_place(root: Path, path: str) -> None:
    relist(root, "domains/toys/users.parquet", path)
    with refused("bundle_integrity", f"{path} does not belong in a bundle"):
        verify_files(root)


def test_a_domain_may_bring_its_pictures(root: Path) -> None:
    picture = root / "domains/toys/images/toys/1.webp"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    write_manifest(root)
    verify_files(root)
    picture.write_bytes(b"another")
    with refused("bundle_integrity", "domains/toys/images/toys/1.webp was modified"):
        verify_files(root)


def test_a_picture_of_a_bundle_has_a_limited_size(root: Path) -> None:
    picture = root / "domains/toys/images/1.webp"
    picture.parent.mkdir()
    with picture.open("wb") as file:
        file.truncate(MOST_IMAGE_BYTES + 1)
    write_manifest(root)
    with refused("bundle_integrity", f"the limit is {MOST_IMAGE_BYTES}"):
        verify_files(root)


def test_a_needed_file_that_is_not_listed_is_named(root: Path) -> None:
    (root / "domains/toys/domain.json").unlink()
    manifest = json.loads((root / "manifest.json").read_text())
    del manifest["files"]["domains/toys/domain.json"]
    (root / "manifest.json").write_text(json.dumps(manifest))
    with refused("bundle_integrity", "manifest.json does not list domains/toys/domain.json"):
        verify_files(root)


def test_a_link_out_of_the_bundle_is_refused(root: Path, tmp_path: Path) -> None:
    path = root / "domains/toys/users.parquet"
    path.rename(tmp_path / "users.parquet")
    path.symlink_to(tmp_path / "users.parquet")
    with refused("bundle_integrity", "domains/toys/users.parquet is a link to a file outside the bundle"):
        verify_files(root)


def test_a_linked_folder_out_of_the_bundle_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "domains/toys").rename(tmp_path / "toys")
    (root / "domains/toys").symlink_to(tmp_path / "toys")
    with refused("bundle_integrity", "is a link to a file outside the bundle"):
        verify_files(root)


def test_a_link_within_the_bundle_is_as_good_as_its_file(root: Path) -> None:
    (root / "domains/toys/users.parquet").unlink()
    (root / "domains/toys/users.parquet").symlink_to(root / "domains/games/users.parquet")
    assert verify_files(root).domains == ("games", "toys")


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with refused("bundle_integrity", "has no manifest.json, so it is not a bundle"):
        verify_files(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_refused(root: Path, version: object) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**manifest, "format_version": version}))
    with refused("invalid_bundle", f"format_version is {version!r}, but this program reads 1"):
        verify_files(root)


@pytest.mark.parametrize("files", [None, [], {"backbone/config.json": 3}, {"backbone/config.json": {"sha256": "x"}}])
def test_a_manifest_of_another_form_is_refused(root: Path, files: object) -> None:
    (root / "manifest.json").write_text(json.dumps({"format_version": 1, "files": files}))
    with pytest.raises(Exception, match=r"manifest\.json") as raised:
        verify_files(root)
    assert raised.value.code in ("bundle_integrity", "invalid_bundle")  # type: ignore[attr-defined]  # a Vip5Error


def test_the_manifest_lists_no_file_twice_and_not_itself(root: Path) -> None:
    write_manifest(root)
    listed = [str(path) for path in verify_files(root).files]
    assert listed == sorted(set(listed))
    assert "manifest.json" not in listed


@pytest.mark.parametrize("name", ["toys", "Toys-2_b", "0", "a" * 64])
def test_plain_names_name_a_domain(name: str) -> None:
    check_domain_name(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "a b", "ä", "a" * 65, "toys\n"])
def test_names_that_are_no_folder_or_label_are_refused(name: str) -> None:
    with refused("invalid_bundle", "cannot name a domain"):
        check_domain_name(name)
