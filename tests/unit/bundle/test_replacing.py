"""Whatever writes a file that a service may serve replaces it; the old file stays whole for whoever has it open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.bundle.catalog import Catalog
from model.bundle.documents import write_json
from model.bundle.features import ItemFeatures, write_features
from model.bundle.tensors import write_tensors
from model.bundle.users import Users

ROWS = torch.ones(1, 4).numpy()
WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, {"a": 1}),
    "tensors": lambda path: write_tensors(path, {"a": torch.ones(3)}),
    "catalog": Catalog.from_rows([{"item_id": "a", "index": "1"}]).write,
    "users": Users.from_rows([{"user_id": "a", "index": "1"}]).write,
    "features": lambda path: write_features(path, ItemFeatures(("a",), ROWS)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_replaced_and_not_overwritten(name: str, tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"before")
    link.hardlink_to(path)
    with path.open("rb") as opened:
        WRITERS[name](path)
        assert opened.read() == b"before"
    assert link.read_bytes() == b"before"
    assert path.read_bytes() != b"before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]
