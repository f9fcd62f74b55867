from __future__ import annotations

from pathlib import Path

import pytest

from feature_cache.encoding.opening import TorchSource
from feature_cache.encoding.towers import Encoder
from tests.clips import tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def encoder(clip_folder: Path) -> Encoder:
    return TorchSource(clip_folder, "tiny").load()
