"""Lists the pictures to encode, and where each of them is."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from feature_cache.encoding.errors import EncodingError

SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """The picture of one item: an http(s) URL, or a path relative to the root of all pictures."""

    item_id: str
    location: str

    @property
    def is_remote(self) -> bool:
        return self.location.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class Fault:
    """Why an item has no embedding."""

    item_id: str
    location: str | None
    reason: str


@dataclass(frozen=True)
class Listing:
    """Pictures in the order of the embeddings to write, and items that have none."""

    pictures: tuple[Picture, ...]
    faults: tuple[Fault, ...]


class PictureError(Exception):
    """One picture cannot be read; the message is the reason in the report."""


def list_folder(folder: Path) -> Listing:
    """The pictures of a folder, sorted by name; an item's id is its file's name without the suffix.

    Raises EncodingError if there is none.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(SUFFIXES))
    if not names:
        raise EncodingError(f"{folder} holds no pictures; its files must be named <item id>{'|'.join(SUFFIXES)}")
    pictures: dict[str, Picture] = {}
    faults = []
    for name in names:
        item_id = unicodedata.normalize("NFC", Path(name).stem).strip()  # macOS decomposes letters in file names
        first = pictures.setdefault(item_id, Picture(item_id, name))
        if first.location != name:
            faults.append(Fault(item_id, name, f"the item has another picture, {first.location}"))
    return Listing(tuple(pictures.values()), tuple(faults))


def list_items(images: Iterable[tuple[str, str | None]]) -> Listing:
    """The pictures of a catalog's items, from pairs of item id and value of the column `image`.

    Raises EncodingError if no item names one.
    """
    pictures, faults = [], []
    for item_id, image in images:
        location = (image or "").strip()
        if location:
            pictures.append(Picture(item_id, location))
        else:
            faults.append(Fault(item_id, None, "the catalog names no picture"))
    if not pictures:
        raise EncodingError("no item of the catalog names a picture; its column image must hold paths or http(s) URLs")
    return Listing(tuple(pictures), tuple(faults))


def local_path(picture: Picture, root: Path) -> Path:
    """The path of a picture that is not remote. Raises PictureError for a path that leads out of the root."""
    if _SCHEME.match(picture.location):
        raise PictureError("it is neither a path nor an http(s) URL")
    if "\0" in picture.location:
        raise PictureError("the path holds a zero byte")
    path = Path(os.path.normpath(root / picture.location))
    if not path.is_relative_to(os.path.normpath(root)):
        raise PictureError("the path leads out of the folder of pictures")
    return path
