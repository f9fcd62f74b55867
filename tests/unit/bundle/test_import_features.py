"""Image embeddings are imported from folders and files, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures, write_features
from model.bundle.importers.features import read_features
from model.bundle.joins import Names, match
from model.datasets.faults import Faults
from model.datasets.feature_folders import read_feature_folders
from model.progress import no_progress
from tests.tiny import tiny_catalog
from tests.unit.bundle.refusals import refused

CATALOG = tiny_catalog(5)


def vector(seed: int, dtype: type[np.floating] = np.float32) -> NDArray[np.floating]:
    return np.random.default_rng(seed).standard_normal(4).astype(dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of the items 5, 2, 3 and of one that is not in the catalog."""
    for number in (5, 2, 3, 77):
        np.save(tmp_path / f"item-{number}.npy", vector(number))
    (tmp_path / "readme.txt").write_text("not a feature")
    return tmp_path


def test_a_folder_gives_the_items_of_the_catalog_in_its_order(folder: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    found = read_features(folder, CATALOG, lambda *step: steps.append(step))
    assert found.item_ids == ("item-2", "item-3", "item-5")
    np.testing.assert_array_equal(found.features, [vector(2), vector(3), vector(5)])
    assert steps == [("reading features", number, 3) for number in (1, 2, 3)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_file_with_ids_gives_the_items_of_the_catalog_in_its_order(tmp_path: Path, dtype: type[np.floating]) -> None:
    rows = np.stack([vector(n, dtype) for n in (5, 77, 1)])
    save_file({"features": rows}, tmp_path / "all.safetensors")
    (tmp_path / "all.ids.txt").write_text("item-5\nitem-77\nitem-1\n")
    found = read_features(tmp_path / "all.safetensors", CATALOG)
    assert found.item_ids == ("item-1", "item-5")
    assert found.features.dtype == dtype
    np.testing.assert_array_equal(found.features, [vector(1, dtype), vector(5, dtype)])


def test_a_file_of_a_bundle_s_own_form_needs_no_ids_beside_it(tmp_path: Path) -> None:
    rows = np.stack([vector(n, np.float16) for n in (5, 77, 1)])
    write_features(tmp_path / "own.safetensors", ItemFeatures(("item-5", "item-77", "item-1"), rows))
    found = read_features(tmp_path / "own.safetensors", CATALOG)
    assert found.item_ids == ("item-1", "item-5")
    np.testing.assert_array_equal(found.features, rows[[2, 0]])


def test_a_file_says_which_encoder_made_its_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    write_features(path, ItemFeatures(("item-5",), vector(5)[None], encoder="rn50"))
    assert read_features(path, CATALOG).encoder == "rn50"
    write_features(path, ItemFeatures(("item-5",), vector(5)[None]))
    assert read_features(path, CATALOG).encoder is None


def test_ids_are_cut_at_line_ends_only(tmp_path: Path) -> None:
    catalog = Catalog.from_rows([{"item_id": "a\u2028b", "index": "1"}, {"item_id": "c", "index": "2"}])
    save_file({"features": np.stack([vector(1), vector(2)])}, tmp_path / "all.safetensors")
    (tmp_path / "all.ids.txt").write_bytes("c\r\na\u2028b".encode())
    assert read_features(tmp_path / "all.safetensors", catalog).item_ids == ("a\u2028b", "c")
    (tmp_path / "all.ids.txt").write_bytes(b"\xff\n")
    with refused("invalid_bundle", "all.ids.txt is not UTF-8"):
        read_features(tmp_path / "all.safetensors", catalog)


def test_features_of_no_item_of_the_catalog_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", vector(1))
    with refused("invalid_bundle", "has no file <item_id>.npy for any item of the catalog"):
        read_features(tmp_path, CATALOG)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), np.float32), "item-3.npy (float32 (2, 4)): the array is not one vector of floats"),
        (np.zeros(4, np.int64), "item-3.npy (int64 (4,)): the array is not one vector of floats"),
        (np.zeros(4, "V2"), "item-3.npy (|V2 (4,), perhaps bfloat16, which numpy cannot store; save it as float32)"),
        (
            np.zeros(5, np.float32),
            "item-3.npy (5 wide, most are 4 wide): the feature has a different width than the others",
        ),
        (np.full(4, np.nan, np.float32), "item-3.npy: the feature has values that are NaN or infinite"),
        (np.array([{"a": 1}], dtype=object), "item-3.npy: the file is not a readable array"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(folder: Path, array: NDArray[np.generic], message: str) -> None:
    np.save(folder / "item-3.npy", array, allow_pickle=True)
    with refused("invalid_bundle", message):
        read_features(folder, CATALOG)


@pytest.mark.parametrize("shape", [b"(99999999999999999999,)", b"(-1,)", b"(4,4**9,)", b"('a',)", b"(True,)"])
def test_an_array_of_an_impossible_shape_is_refused(folder: Path, shape: bytes) -> None:
    path = folder / "item-3.npy"
    np.save(path, np.zeros(4, np.float32))
    content = path.read_bytes()
    gap = len(shape) - len(b"(4,)")
    path.write_bytes(content.replace(b"(4,), }" + b" " * gap, shape + b", }"))
    with refused("invalid_bundle", "item-3.npy"):
        read_features(folder, CATALOG)


def test_a_broken_archive_of_arrays_is_refused(folder: Path) -> None:
    (folder / "item-3.npy").write_bytes(b"PK\x03\x04" + bytes(50))
    with refused("invalid_bundle", "item-3.npy: the file is not a readable array"):
        read_features(folder, CATALOG)


def test_the_first_file_does_not_decide_the_width(folder: Path) -> None:
    np.save(folder / "item-1.npy", np.zeros(9, np.float32))
    with refused("invalid_bundle", "item-1.npy (9 wide, most are 4 wide): the feature has a different width"):
        read_features(folder, CATALOG)
    faults = Faults()
    assert read_feature_folders(folder, CATALOG, faults, no_progress).item_ids == ("item-2", "item-3", "item-5")
    assert faults.places == {
        "the feature has a different width than the others": ["item-1.npy (9 wide, most are 4 wide)"]
    }


def test_widths_of_which_none_is_the_most_common_are_refused(folder: Path) -> None:
    for number in (1, 2):
        np.save(folder / f"item-{number}.npy", np.zeros(9, np.float32))
    with refused("invalid_bundle", "2 embeddings are 9 wide (item-2.npy), and 2 are 4 wide (item-5.npy)"):
        read_features(folder, CATALOG)


def test_types_of_a_folder_become_the_widest(folder: Path) -> None:
    np.save(folder / "item-3.npy", vector(3, np.float16))
    assert read_features(folder, CATALOG).features.dtype == np.float32


def test_folders_within_a_folder_are_read_by_the_same_rules(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    np.save(folder / "deep" / "er" / "item-1.npy", vector(1))
    assert read_features(folder, CATALOG).item_ids == ("item-1", "item-2", "item-3", "item-5")


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    rows = torch.from_numpy(np.stack([vector(1), vector(2)])).bfloat16()
    save_torch({"features": rows}, tmp_path / "all.safetensors")
    (tmp_path / "all.ids.txt").write_text("item-1\nitem-2\n")
    found = read_features(tmp_path / "all.safetensors", CATALOG)
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, rows.float().numpy())


@pytest.mark.parametrize(
    "ids", ["\ufeffitem-1\ncaf\u00e9\n", "item-1 \r\n cafe\u0301\t\r\n\r\n"], ids=["bom", "blanks and forms"]
)
def test_ids_that_look_alike_meet(tmp_path: Path, ids: str) -> None:
    catalog = Catalog.from_rows({"item_id": item, "index": item} for item in ("item-1", "caf\u00e9", "no"))
    save_file({"features": np.stack([vector(1), vector(2)])}, tmp_path / "all.safetensors")
    (tmp_path / "all.ids.txt").write_bytes(ids.encode())
    notices: list[str] = []
    found = read_features(tmp_path / "all.safetensors", catalog, notice=notices.append)
    assert found.item_ids == ("item-1", "caf\u00e9")
    assert notices == ["2 of 3 items have an embedding, 1 does not: 'no'"]


def test_a_file_named_exactly_goes_before_one_that_looks_alike(tmp_path: Path) -> None:
    catalog = Catalog.from_rows([{"item_id": "caf\u00e9", "index": "1"}, {"item_id": "x", "index": "2"}])
    for name, seed in (("cafe\u0301", 1), ("caf\u00e9", 2)):
        np.save(tmp_path / f"{name}.npy", vector(seed))
    faults = Faults()
    found = read_feature_folders(tmp_path, catalog, faults, no_progress)
    np.testing.assert_array_equal(found.features, [vector(2)])
    assert faults.places == {"another folder has a different feature of the item": ["cafe\u0301.npy"]}


def test_ids_of_one_form_are_told_apart_or_not_at_all() -> None:
    names = Names(["caf\u00e9", "cafe\u0301"])
    assert [names.find(name) for name in ("caf\u00e9", "cafe\u0301", "caf\u00e9 ")] == ["caf\u00e9", "cafe\u0301", None]
    assert match([" a", "a", "b", "b "], ["a", "b", "c"]) == ({"a": 1, "b": 2}, [" a", "b "])


def test_what_is_left_over_on_both_sides_is_said(folder: Path) -> None:
    notices: list[str] = []
    read_features(folder, CATALOG, notice=notices.append)
    assert notices == [
        "3 of 5 items have an embedding, 2 do not: 'item-1', 'item-4'; 1 file matches no item: 'item-77.npy'"
    ]


def test_double_precision_becomes_single(tmp_path: Path) -> None:
    np.save(tmp_path / "item-1.npy", vector(1, np.float64)[None])
    found = read_features(tmp_path, CATALOG)
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, [vector(1)])


@pytest.mark.parametrize(
    ("tensors", "ids", "message"),
    [
        ({"features": np.zeros((2, 4), np.float32)}, None, "all.safetensors needs all.ids.txt beside it"),
        ({"images": np.zeros((2, 4), np.float32)}, "a\nb\n", "all.safetensors has no tensor features; it has images"),
        (
            {"features": np.zeros((2, 4), np.float32)},
            "item-1\n",
            "features has shape (2, 4) for the 1 item ids of all.ids.txt",
        ),
        (
            {"features": np.zeros(2, np.float32)},
            "a\nb\n",
            "features has shape (2,) for the 2 item ids of all.ids.txt",
        ),
        (
            {"features": np.zeros((2, 4), np.int8)},
            "a\nb\n",
            "all.safetensors: features is of type I8",
        ),
        ({"features": np.zeros((2, 4), np.float32)}, "a\na\n", "all.ids.txt: line 2 repeats item 'a'"),
        ({"features": np.zeros((2, 4), np.float32)}, "a\nb\n", "none of the 2 embeddings is of an item in the catalog"),
    ],
)
def test_a_file_of_features_that_breaks_a_rule_is_refused(
    tmp_path: Path, tensors: dict[str, NDArray[np.generic]], ids: str | None, message: str
) -> None:
    save_file(tensors, tmp_path / "all.safetensors")
    if ids is not None:
        (tmp_path / "all.ids.txt").write_text(ids)
    with refused("invalid_bundle", message):
        read_features(tmp_path / "all.safetensors", CATALOG)


@pytest.mark.parametrize("header", [b"{'descr': '<f4', (", b"{'descr': '<f4\x00'}", b"['", b"{'shape': (1 << 60,)"])
def test_an_array_whose_header_is_no_python_is_refused(folder: Path, header: bytes) -> None:
    """numpy parses headers as Python, and raises what Python's parser raises."""
    (folder / "item-3.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with refused("invalid_bundle", "item-3.npy"):
        read_features(folder, tiny_catalog(3))
