"""Files of the items' pictures: where they are, which of them may be sent, and what they are.

A catalog names each picture by a path below a folder, or by a URL. Catalogs come from outside, so no path is trusted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from model.bundle.layout import IMAGES, domain_file
from service.errors import UnknownPictureError
from service.settings.fields import PREFIX
from service.versions.domain_version import DomainVersion

MAX_BYTES = 16 << 20
"""Largest picture that is sent."""

_HEAD_BYTES = 32
_SMALL_BYTES = 128 << 10
"""Pictures up to this size are read at once; larger ones are sent piece by piece."""
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypavif", 4, "image/avif"),
)
"""First bytes, where they begin, and the type. No SVG, which may contain scripts."""


@dataclass(frozen=True)
class PictureFile:
    """A picture that may be sent."""

    path: Path
    media_type: str
    status: os.stat_result
    content: bytes | None
    """All of it, if it is small."""


class PictureFolders:
    """The folders in which pictures are looked up: the configured one, or those inside and beside a bundle."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def find(self, version: DomainVersion, reference: str) -> PictureFile:
        """The file of a picture. Reads the disk. Raises UnknownPictureError."""
        path = PurePosixPath(reference)
        if path.is_absolute() or ".." in path.parts or "\\" in reference or not reference.isprintable():
            raise UnknownPictureError(
                f"the catalog names the picture {reference[:100]!r}, which is no path below a folder of pictures; "
                "correct the column image"
            )
        for folder in self._folders(version):
            found = _file_in(folder, path)
            if found is not None:
                return found
        raise UnknownPictureError(
            f"no folder of pictures has the file {reference[:100]!r}; set {PREFIX}IMAGES_ROOT to the folder that has "
            "it, or put a folder images beside the bundle"
        )

    def _folders(self, version: DomainVersion) -> Iterator[Path]:
        if self._root is not None:
            yield self._root
            return
        bundle = version.placed.opened.files.root
        if bundle is not None:
            yield bundle / domain_file(version.domain.name, IMAGES)
            beside = bundle.resolve()
            yield beside.with_name(f"{beside.name}-pictures")
            yield beside.with_name(IMAGES)


def is_url(reference: str) -> bool:
    """Whether a catalog's reference to a picture is the address of a web server."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _file_in(folder: Path, path: PurePosixPath) -> PictureFile | None:
    """The picture if the folder has it. Raises UnknownPictureError for what may not be sent."""
    found = Path(os.path.realpath(folder / path))  # not Path.resolve, which raises for circular links
    if not found.is_relative_to(os.path.realpath(folder)):
        raise UnknownPictureError(f"{str(path)[:100]!r} is a link out of the folder of pictures; replace it by a copy")
    try:
        # Without waiting, because opening a pipe would wait for its writer.
        file = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        is_small = status.st_size <= _SMALL_BYTES
        head = os.read(file, status.st_size if is_small else _HEAD_BYTES)
    except OSError as error:
        raise UnknownPictureError(f"{str(path)[:100]!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)
    media_type = _checked_type(path, head, status.st_size)
    return PictureFile(found, media_type, status, head if is_small and len(head) == status.st_size else None)


def _checked_type(path: PurePosixPath, head: bytes, size: int) -> str:
    if size > MAX_BYTES:
        raise UnknownPictureError(
            f"{str(path)[:100]!r} has {size} bytes, the limit is {MAX_BYTES}; replace it by a smaller picture"
        )
    for signature, start, media_type in _SIGNATURES:
        if head[start : start + len(signature)] == signature:
            return media_type
    raise UnknownPictureError(
        f"{str(path)[:100]!r} is not a PNG, JPEG, GIF, WebP or AVIF picture; convert it to one of these"
    )
