"""The embedded store reads the rows asked for and marks what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from feature_cache.embedded import EmbeddedStore, FeatureFile
from feature_cache.errors import FeatureFileError
from feature_cache.store import NoObserver


def write(path: Path, features: NDArray[np.generic], item_ids: list[str]) -> Path:
    encoded = [item_id.encode() for item_id in item_ids]
    save_file(
        {
            "features": np.ascontiguousarray(features),
            "id_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
            "id_offsets": np.cumsum([0, *map(len, encoded)], dtype=np.int64),
        },
        path,
    )
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
async def test_rows_come_in_the_order_asked_for_and_missing_ones_are_zero_and_marked(
    tmp_path: Path, dtype: type[np.floating]
) -> None:
    features = np.arange(12, dtype=dtype).reshape(4, 3)
    path = write(tmp_path / "f.safetensors", features, ["a", "bé", "", "d"])
    store = EmbeddedStore(FeatureFile.open(path), 3, NoObserver())

    batch = await store.get_many(["d", "x", "bé", "d"])

    assert batch.features.dtype == np.float32
    np.testing.assert_array_equal(batch.features, [[9, 10, 11], [0, 0, 0], [3, 4, 5], [9, 10, 11]])
    assert batch.is_present.tolist() == [True, False, True, True]


async def test_without_a_file_there_is_nothing() -> None:
    batch = await EmbeddedStore(None, 5, NoObserver()).get_many(["a", "b"])

    assert batch.features.shape == (2, 5)
    assert not batch.is_present.any()


async def test_no_items_give_an_empty_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", np.ones((1, 3), dtype=np.float32), ["a"])

    store = EmbeddedStore(FeatureFile.open(path), 3, NoObserver())

    assert (await store.get_many([])).features.shape == (0, 3)


def test_another_width_than_the_models_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", np.ones((1, 3), dtype=np.float32), ["a"])

    with pytest.raises(FeatureFileError, match="embeddings are 3 wide, but the model reads 4"):
        EmbeddedStore(FeatureFile.open(path), 4, NoObserver())


def test_a_row_too_few_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", np.ones((1, 3), dtype=np.float32), ["a", "b"])

    with pytest.raises(FeatureFileError, match="a row for each id"):
        FeatureFile.open(path)


def test_an_item_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", np.ones((2, 3), dtype=np.float32), ["a", "a"])

    with pytest.raises(FeatureFileError, match="stands twice"):
        FeatureFile.open(path)


def test_integers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.safetensors", np.ones((1, 3), dtype=np.int64), ["a"])

    with pytest.raises(FeatureFileError, match="I64"):
        FeatureFile.open(path)


def test_offsets_that_do_not_cover_the_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file(
        {
            "features": np.ones((1, 3), dtype=np.float32),
            "id_bytes": np.frombuffer(b"abc", dtype=np.uint8),
            "id_offsets": np.array([0, 2], dtype=np.int64),
        },
        path,
    )

    with pytest.raises(FeatureFileError, match="end at the length of id_bytes"):
        FeatureFile.open(path)


def test_ids_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file(
        {
            "features": np.ones((1, 3), dtype=np.float32),
            "id_bytes": np.array([0xFF], dtype=np.uint8),
            "id_offsets": np.array([0, 1], dtype=np.int64),
        },
        path,
    )

    with pytest.raises(FeatureFileError, match="not UTF-8"):
        FeatureFile.open(path)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)

    with pytest.raises(FeatureFileError, match="not a file of image embeddings"):
        FeatureFile.open(path)
