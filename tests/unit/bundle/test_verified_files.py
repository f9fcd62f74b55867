"""Files that change between their verification and their use: what was verified is what is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from model.bundle import feature_file
from model.bundle.bundle import Bundle, open_bundle, open_domain
from model.bundle.domain_files import DomainFiles
from model.bundle.layout import MANIFEST
from model.bundle.manifest import FileRecord, require_digest
from model.bundle.opened_file import OpenedFile
from model.bundle.verified_files import VerifiedFiles
from model.bundle.writer import BundleWriter
from model.errors import IntegrityError
from tests.tiny import tiny_bundle


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\x15" * size)


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(b"{}")
    path.with_name("other").replace(path)


FAULTS: tuple[Callable[[Path], None], ...] = (empty, overwrite, replace, Path.unlink)


def same(one: DomainFiles, other: DomainFiles) -> bool:
    assert one.features is not None
    assert other.features is not None
    assert one.users is not None
    assert other.users is not None
    return bool(
        one.spec == other.spec
        and one.catalog.table.equals(other.catalog.table)
        and one.users.table.equals(other.users.table)
        and all(torch.equal(one.adapter[name], tensor) for name, tensor in other.adapter.items())
        and np.array_equal(one.features.features, other.features.features)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path, num_items=20)


@pytest.fixture
def untouched(tmp_path: Path) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path / "untouched", num_items=20))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_file_that_changes_right_after_its_verification_changes_nothing(
    root: Path, untouched: Bundle, fault: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[PurePosixPath] = []

    def verify_and_change(path: PurePosixPath, record: FileRecord, sha256: str) -> None:
        require_digest(path, record, sha256)
        fault(root / path)
        changed.append(path)

    monkeypatch.setattr("model.bundle.verified_files.require_digest", verify_and_change)
    monkeypatch.setattr("model.bundle.verified_files.check_only_listed", lambda *_: None)
    found = open_bundle(root)

    assert sorted(changed) == sorted(found.manifest.files)
    assert same(found.domains["toys"], untouched.domains["toys"])
    weights = untouched.backbone.weights
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.backbone.weights.items())
    assert found.tokenizer.words("the next toy") == untouched.tokenizer.words("the next toy")


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
@pytest.mark.parametrize("fault", [empty, overwrite], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ["catalog.parquet", "features.safetensors", "adapter.safetensors", "domain.json"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    root: Path,
    untouched: Bundle,
    name: str,
    fault: Callable[[Path], None],
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It changes after it was opened, and before its first byte is read."""
    monkeypatch.setattr(feature_file, "MOST_HELD_BYTES", held_bytes)
    opened = OpenedFile.__init__

    def open_and_change(file: OpenedFile, path: Path) -> None:
        opened(file, path)
        if path.name == name:
            fault(path)

    monkeypatch.setattr(OpenedFile, "__init__", open_and_change)
    with pytest.raises(IntegrityError, match=f"domains/toys/{name} (cannot be read|was modified)"):
        open_domain(root, "toys", untouched.foundation)


def test_each_file_is_opened_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[Path] = []
    opened = OpenedFile.__init__

    def open_and_note(file: OpenedFile, path: Path) -> None:
        opened(file, path)
        paths.append(path)

    monkeypatch.setattr(OpenedFile, "__init__", open_and_note)
    bundle = open_bundle(root)
    assert sorted(paths) == sorted(root / path for path in (*bundle.manifest.files, MANIFEST))


def test_the_seals_are_of_all_files_that_a_domain_was_read_from(root: Path) -> None:
    bundle = open_bundle(root)
    seals = bundle.domains["toys"].seals
    assert {seal.path for seal in seals} == {*bundle.manifest.files, MANIFEST}


def test_a_file_that_is_taken_over_into_another_bundle_and_changes_meanwhile_is_refused(root: Path) -> None:
    before = VerifiedFiles(root).manifest.hash
    toys = open_bundle(root).domains["toys"]
    with BundleWriter(root) as writer:
        writer.add_domain(toys.spec, toys.adapter, toys.catalog)
        overwrite(root / "backbone" / "tokenizer.json")
        with pytest.raises(IntegrityError, match=r"backbone/tokenizer\.json was modified"):
            writer.seal()
    assert VerifiedFiles(root).manifest.hash == before
