"""features.safetensors comes back as it was written, and a file that breaks the format is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from model.bundle.catalog import Catalog
from model.bundle.column_texts import texts_of
from model.bundle.features import (
    ItemFeatures,
    check_features,
    load_features,
    places_of,
    rows_of,
    write_feature_pieces,
    write_features,
)
from model.errors import BundleError
from tests.tiny import tiny_catalog
from tests.unit.bundle.refusals import refused

CATALOG = tiny_catalog(5)
Tensors = dict[str, NDArray[np.generic]]


def rows(num_rows: int, dtype: type[np.floating] = np.float32) -> NDArray[np.floating]:
    return np.random.default_rng(num_rows).standard_normal((num_rows, 4)).astype(dtype)


def tensors_of(features: NDArray[np.generic], *item_ids: str) -> Tensors:
    encoded = [item_id.encode() for item_id in item_ids]
    return {
        "features": np.ascontiguousarray(features),
        "id_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "id_offsets": np.cumsum([0, *map(len, encoded)], dtype=np.int64),
    }


def check(path: Path) -> None:
    """As a bundle is opened."""
    check_features(load_features(path, "it", 4), CATALOG, "it")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.safetensors"


@settings(max_examples=25)
@given(
    item_ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=8),
    dtype=st.sampled_from([np.float16, np.float32]),
    encoder=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
def test_what_is_written_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, item_ids: list[str], dtype: type[np.floating], encoder: str | None
) -> None:
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    features = rows(len(item_ids), dtype)

    write_features(path, ItemFeatures(tuple(item_ids), features, encoder))

    found = load_features(path, dim=4)
    assert (found.item_ids, found.encoder, found.dim) == (tuple(item_ids), encoder, 4)
    assert found.features.dtype == dtype
    np.testing.assert_array_equal(found.features, features)
    np.testing.assert_array_equal(found.rows(np.arange(len(item_ids))[::-1]), features[::-1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("encoder", [None, "vitb32 “é”"])
def test_bytes_are_those_of_the_safetensors_library(
    path: Path, tmp_path: Path, dtype: type[np.floating], encoder: str | None
) -> None:
    item_ids, features = ("a", "Spielzeug-äöü", "", "日本"), rows(4, dtype)

    write_features(path, ItemFeatures(item_ids, features, encoder))

    save_file(tensors_of(features, *item_ids), tmp_path / "theirs", None if encoder is None else {"encoder": encoder})
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_pieces_make_one_file_that_names_the_encoder_and_its_weights(path: Path, tmp_path: Path) -> None:
    features = rows(4, np.float16)

    write_feature_pieces(path, ["a", "b", "c", "d"], [features[:1], features[1:1], features[1:]], "tiny", "0123")

    np.testing.assert_array_equal(load_features(path).features, features)
    with safe_open(path, framework="numpy") as tensors:
        assert tensors.metadata() == {"encoder": "tiny", "weights_sha256": "0123"}


def test_a_writing_that_fails_leaves_nothing_behind_and_what_was_there_in_place(path: Path) -> None:
    def fail() -> Iterator[NDArray[np.float16]]:
        yield np.ones((1, 3), dtype=np.float16)
        raise OSError(28, "No space left on device")

    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space"):
        write_feature_pieces(path, ["a", "b"], fail(), None)
    assert [each.read_bytes() for each in path.parent.iterdir()] == [b"before"]


def test_a_file_that_is_replaced_stays_readable_for_whoever_opened_it(path: Path) -> None:
    write_features(path, ItemFeatures(("a",), rows(1)))
    found = load_features(path)
    write_features(path, ItemFeatures(("a", "b"), rows(2)))
    np.testing.assert_array_equal(found.features, rows(1))


def test_a_new_file_may_be_read_by_whom_the_umask_admits(path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_features(path, ItemFeatures(("a",), rows(1)))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_rows_may_begin_anywhere_in_the_file(path: Path) -> None:
    features = rows(1)
    parts = {
        "id_bytes": ("U8", [1], b"a"),
        "features": ("F32", [1, 4], features.tobytes()),
        "id_offsets": ("I64", [2], np.array([0, 1]).tobytes()),
    }
    header, content = {}, b""
    for name, (dtype, shape, data) in parts.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(data)]}
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)

    np.testing.assert_array_equal(load_features(path).features, features)


def test_a_bundle_s_file_has_items_of_its_catalog_only(path: Path) -> None:
    write_features(path, ItemFeatures(("item-2", "item-4"), rows(2)))
    check(path)
    write_features(path, ItemFeatures(("item-2", "item-9"), rows(2)))
    with refused("invalid_bundle", "it: item 'item-9' is not in the catalog"):
        check(path)


GOOD = tensors_of(rows(2), "item-1", "item-2")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": None}, "it has no tensor features"),
        ({"id_bytes": None, "id_offsets": None}, "it has no tensor id_bytes, id_offsets"),
        ({"features": rows(3)}, "features is F32 [3, 4] for 2 item ids; it must be F16 or F32 [2, 4]"),
        ({"features": rows(2)[:, :3].copy()}, "features is F32 [2, 3] for 2 item ids; it must be F16 or F32 [2, 4]"),
        ({"features": np.array(1, np.float32)}, "features is F32 [] for 2 item ids"),
        ({"features": rows(2)[:, 0].copy()}, "features is F32 [2] for 2 item ids"),
        ({"features": rows(2)[:, :, None].copy()}, "features is F32 [2, 4, 1] for 2 item ids"),
        ({"features": rows(2).astype(np.float64)}, "features is F64 [2, 4]"),
        ({"features": np.ones((2, 4), np.int64)}, "features is I64 [2, 4]"),
        (tensors_of(rows(2), "item-1", "item-1"), "item 'item-1' has 2 rows; each item has one"),
        ({"id_offsets": np.array([0, 6], np.int64)}, "id_offsets must rise from 0 to 12, the size of id_bytes"),
        ({"id_offsets": np.array([1, 6, 12], np.int64)}, "id_offsets must rise from 0 to 12"),
        ({"id_offsets": np.array([0, 13, 12], np.int64)}, "id_offsets must rise from 0 to 12"),
        ({"id_offsets": np.zeros(0, np.int64)}, "id_offsets must rise from 0 to 12"),
        ({"id_offsets": np.array([0, 2**62, 2**63 - 1, -(2**63), -1, 12])}, "id_offsets must rise from 0 to 12"),
        ({"id_offsets": np.array(0, np.int64)}, "id_offsets I64 []; they must be U8 and I64 [F + 1]"),
        ({"id_offsets": np.array([[0, 6, 12]], np.int64)}, "id_offsets I64 [1, 3]; they must be"),
        ({"id_offsets": np.array([0, 6, 12], np.int32)}, "id_offsets I32 [3]; they must be"),
        ({"id_bytes": np.zeros(12, np.int8)}, "id_bytes is I8 and id_offsets I64 [3]; they must be"),
        (tensors_of(rows(2), "a", "b") | {"id_bytes": np.frombuffer("é".encode(), np.uint8)}, "item ids are not UTF-8"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused_by_every_reader(
    path: Path, changed: dict[str, NDArray[np.generic] | None], message: str
) -> None:
    save_file({name: each for name, each in {**GOOD, **changed}.items() if each is not None}, path)
    with refused("invalid_bundle", message):
        check(path)
    with refused("invalid_bundle", message):
        load_features(path, "it", dim=4)


@pytest.mark.parametrize(
    ("stored", "foreign"),
    [
        (b'"F32","shape":[2,4]', b'"BF16","shape":[2,8]'),
        (b'"U8","shape":[12]', b'"BF16","shape":[6]'),
        (b'"I64","shape":[3]', b'"BF16","shape":[12]'),
    ],
)
def test_types_that_numpy_does_not_have_are_refused(path: Path, stored: bytes, foreign: bytes) -> None:
    save_file(GOOD, path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = content[8:begin].replace(stored, foreign)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[begin:])
    with refused("invalid_bundle", "BF16"):
        load_features(path, "it")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", None])
def test_another_file_is_refused(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with refused("invalid_bundle", "it cannot be read"):
        load_features(path, "it")


@pytest.mark.parametrize("most_held", [0, 1 << 15])
def test_rows_and_places_of_embeddings_meet(most_held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.bundle.column_texts.MOST_HELD", most_held)
    catalog = Catalog.from_rows({"item_id": item_id, "index": item_id} for item_id in ("a", "b", "c", "é"))
    item_ids = texts_of(pa.chunked_array([["é"], ["x", "b"]], type=pa.large_string()))
    found = ItemFeatures(item_ids, np.zeros((3, 2), dtype=np.float32))
    assert rows_of(found, catalog).tolist() == [3, -1, 1]
    assert places_of(found, catalog).tolist() == [-1, 2, -1, 0]
    with pytest.raises(BundleError, match="item 'x' is not in the catalog"):
        check_features(found, catalog, "features")
    none = ItemFeatures((), np.zeros((0, 2), dtype=np.float32))
    assert places_of(none, catalog).tolist() == [-1] * 4
    check_features(none, catalog, "features")
