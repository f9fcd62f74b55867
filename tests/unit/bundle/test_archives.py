"""Checkpoints that are made to do harm are refused before torch reads them, or before their tensors are used."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from model.bundle.importers import archives
from model.bundle.importers.checkpoint import read_checkpoint
from tests.unit.bundle.refusals import refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny.pth"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_state_dicts_of_all_plain_types_are_read(path: Path, dtype: torch.dtype, *, zipped: bool) -> None:
    found = {"a": torch.ones(2, 3, dtype=dtype), "b": torch.nn.Parameter(torch.zeros(4))}
    torch.save(found, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)
    assert all(torch.equal(read[name], found[name].detach()) for name in found)


@pytest.mark.parametrize("zipped", [True, False])
def test_readers_of_other_tensors_are_out_of_reach(path: Path, *, zipped: bool) -> None:
    torch.save({"a": torch.eye(3).to_sparse()}, path, _use_new_zipfile_serialization=zipped)
    with refused("unsafe_file", "it refers to torch._utils._rebuild_sparse_tensor"):
        read_checkpoint(path)


def test_a_tensor_that_claims_more_values_than_it_has_is_refused(path: Path) -> None:
    """A file of 1 KB with 4 TiB to check."""
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    assert path.stat().st_size < 4096
    with refused("invalid_bundle", "tiny.pth: a is not a plain tensor with all its values"):
        read_checkpoint(path)


def repacked(path: Path, compression: int, *, twice: bool = False) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        if twice:
            archive.writestr(next(iter(records)), b"other")


def test_an_archive_that_unpacks_is_refused(path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, path)
    repacked(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with refused("invalid_bundle", "is compressed"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_records_of_one_name_is_refused(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path)
    repacked(path, zipfile.ZIP_STORED, twice=True)
    with refused("invalid_bundle", "records of one name"):
        read_checkpoint(path)


def test_a_pickle_beyond_its_limit_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(1)}, path)
    monkeypatch.setattr(archives, "MAX_PICKLE_BYTES", 20)
    with refused("invalid_bundle", "data.pkl has "):
        read_checkpoint(path)
