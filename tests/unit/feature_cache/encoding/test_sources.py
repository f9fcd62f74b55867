"""Folders and catalogs say which pictures are to be encoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.sources import Fault, Picture, PictureError, list_folder, list_items, local_path


def test_letters_that_macos_decomposes_are_composed_in_ids_and_left_in_paths(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301 .png").touch()
    assert list_folder(tmp_path).pictures == (Picture("caf\u00e9", "cafe\u0301 .png"),)


def test_a_folder_lists_its_pictures_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.1.webp", "labels.csv", "a.jpg.part"):
        (tmp_path / name).touch()
    listing = list_folder(tmp_path)
    assert listing.pictures == (Picture("a", "a.JPG"), Picture("b", "b.png"), Picture("c.1", "c.1.webp"))
    assert listing.faults == ()


def test_a_second_picture_of_an_item_is_a_fault(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    listing = list_folder(tmp_path)
    assert listing.pictures == (Picture("a", "a.jpg"),)
    assert listing.faults == (Fault("a", "a.png", "the item has another picture, a.jpg"),)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    with pytest.raises(EncodingError, match="holds no pictures"):
        list_folder(tmp_path)


def test_items_without_a_picture_are_faults() -> None:
    listing = list_items([("a", "a.jpg"), ("b", None), ("c", "  "), ("d", " https://shop.example/d.jpg ")])
    assert listing.pictures == (Picture("a", "a.jpg"), Picture("d", "https://shop.example/d.jpg"))
    assert [fault.item_id for fault in listing.faults] == ["b", "c"]


def test_a_catalog_without_any_picture_is_refused() -> None:
    with pytest.raises(EncodingError, match="no item of the catalog names a picture"):
        list_items([("a", None)])


@pytest.mark.parametrize(
    ("location", "is_remote"), [("https://x/a", True), ("HTTP://x/a", True), ("http.jpg", False), ("ftp://x/a", False)]
)
def test_http_addresses_are_remote(location: str, *, is_remote: bool) -> None:
    assert Picture("a", location).is_remote is is_remote


@pytest.mark.parametrize("location", ["a.jpg", "sub/a.jpg", "sub/../a.jpg", "..a.jpg"])
def test_paths_below_the_root_are_read(location: str, tmp_path: Path) -> None:
    assert local_path(Picture("a", location), tmp_path).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("../a.jpg", "leads out"),
        ("sub/../../a.jpg", "leads out"),
        ("/etc/passwd", "leads out"),
        ("file:///etc/passwd", "neither a path nor"),
        ("s3://bucket/a.jpg", "neither a path nor"),
        ("data:image/png;base64,AA", "neither a path nor"),
        ("a\0.jpg", "zero byte"),
    ],
)
def test_paths_out_of_the_root_and_other_addresses_are_refused(location: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=reason):
        local_path(Picture("a", location), tmp_path)
