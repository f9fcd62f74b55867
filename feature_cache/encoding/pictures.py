"""Reads pictures, and rejects broken and hostile files."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from feature_cache.encoding.sources import PictureError

MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 100_000_000  # of a decoded picture
MAX_ASPECT = 100  # the shorter edge is scaled to the encoder's, so a thin picture would grow without bound


def read_file(path: Path) -> bytes:
    """Raises PictureError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PictureError("there is no such file") from None
    except OSError as error:
        raise PictureError(f"the file cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_BYTES:
        raise PictureError(f"the file is larger than {MAX_BYTES >> 20} MiB")
    return content


def decode(content: bytes) -> Image.Image:
    """The first frame, upright by its EXIF orientation, with 8 bits per channel.

    Transparency and palettes are left to the encoder's preprocessing. Raises PictureError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata; real faults are raised below
        try:
            image = Image.open(BytesIO(content))
            _check_size(image.width, image.height)
            image.load()
        except PictureError:
            raise
        except UnidentifiedImageError:
            raise PictureError("the file is not a picture of a known format") from None
        except Image.DecompressionBombError:
            raise PictureError(f"it has more than {MAX_PIXELS // 1_000_000} megapixels") from None
        except Exception as error:  # decoders raise exceptions of all kinds
            raise PictureError(f"it cannot be decoded ({str(error) or type(error).__name__})") from error
        return _upright(_eight_bit(image))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(f"it has {width} × {height} pixels; at most {MAX_PIXELS // 1_000_000} million are allowed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(f"it has {width} × {height} pixels; one edge may be at most {MAX_ASPECT} times the other")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scaled here, because Pillow clips wider channels, which turns all but black pixels white."""
    if image.mode == "F":
        raise PictureError("its pixels are floating-point numbers; save it with 8 or 16 bits per channel")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError("its pixels are wider than 16 bits; save it with 8 or 16 bits per channel")
    return Image.fromarray((values // 257).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - EXIF that cannot be parsed says nothing about the orientation
        return image
