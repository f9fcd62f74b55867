"""Reads pictures, and rejects broken and hostile files."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from feature_cache.encoding.sources import PictureError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Raster formats only: others of Pillow's would start Ghostscript (EPS) or are hardly ever tested."""
MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 100_000_000  # of a decoded picture
MAX_ASPECT = 100  # the shorter edge is scaled to the encoder's, so a thin picture would grow without bound

_MAX_16_BITS = 0xFFFF
_KEYED_MODES = ("1", "L", "RGB", "I", "I;16", "I;16B", "I;16L", "I;16N")  # one colour of which may be transparent
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT = 24  # the header's fields have fixed places
_PACKED_DEPTHS = (2, 4)  # several pixels to a byte, which Pillow spreads over 8 bits
_WIDE_DEPTH = 16


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
    """The first frame in mode RGB, upright by its EXIF orientation, with white in place of transparent parts.

    The only way from a file to pixels, so that a picture looks the same whatever it was stored as. Raises PictureError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata; real faults are raised below
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
            _check_size(image.width, image.height)
            image.load()
        except PictureError:
            raise
        except UnidentifiedImageError:
            raise PictureError(f"the file is not a picture in one of the formats {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError:
            raise PictureError(f"it has more than {MAX_PIXELS // 1_000_000} megapixels") from None
        except Exception as error:  # decoders raise exceptions of all kinds
            raise PictureError(f"it cannot be decoded ({str(error) or type(error).__name__})") from error
        return _rgb(_upright(image), _bit_depth(content))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(f"it has {width} × {height} pixels; at most {MAX_PIXELS // 1_000_000} million are allowed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(f"it has {width} × {height} pixels; one edge may be at most {MAX_ASPECT} times the other")


def _upright(image: Image.Image) -> Image.Image:
    """Turned while the picture still has the metadata of its file, which conversions lose."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - EXIF that cannot be parsed says nothing about the orientation
        return image


def _rgb(image: Image.Image, bit_depth: int | None) -> Image.Image:
    """In mode RGB, over white."""
    key = image.info.get("transparency")
    is_wide = image.mode.startswith(("I", "F"))
    pixels = _narrow(image) if is_wide else image
    if pixels.mode.endswith("a"):  # premultiplied
        pixels = pixels.convert({"La": "LA", "RGBa": "RGBA"}[pixels.mode])
    if key is not None and image.mode in _KEYED_MODES:
        pixels = _with_alpha(pixels, np.asarray(image), _key(key, image.mode, bit_depth))
    elif key is None and not image.has_transparency_data:
        return pixels.convert("RGB")
    pixels = pixels.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """In 8 bits. Scaled here, because Pillow clips wider channels, which turns all but black pixels white."""
    if image.mode == "F":
        raise PictureError("its pixels are floating-point numbers; save it with 8 or 16 bits per channel")
    values = np.asarray(image)
    if values.min() < 0 or values.max() > _MAX_16_BITS:
        raise PictureError("its pixels are wider than 16 bits; save it with 8 or 16 bits per channel")
    return Image.fromarray((values // 257).astype(np.uint8))


def _with_alpha(pixels: Image.Image, values: NDArray[Any], key: int | tuple[int, ...]) -> Image.Image:
    """With transparency where `values`, the picture's own, are the key; Pillow compares after clipping to 8 bits."""
    is_clear = values == np.asarray(key)
    if is_clear.ndim > 2:
        is_clear = is_clear.all(axis=2)
    found = pixels.convert("RGB")
    found.putalpha(Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8)))
    return found


def _key(key: Any, mode: str, bit_depth: int | None) -> int | tuple[int, ...]:  # noqa: ANN401 - Pillow's info is untyped
    """The transparent colour in the units of the decoded pixels; PNG stores it in those of the file."""
    if mode == "1":
        return int(bool(key))
    if mode == "L" and bit_depth in _PACKED_DEPTHS:
        return int(key) * 255 // ((1 << bit_depth) - 1)
    if mode == "RGB":
        return tuple(int(value) >> (8 if bit_depth == _WIDE_DEPTH else 0) for value in key)
    return int(key)


def _bit_depth(content: bytes) -> int | None:
    """Bits per channel of a PNG, None for other formats."""
    return content[_PNG_DEPTH_AT] if content.startswith(_PNG) and len(content) > _PNG_DEPTH_AT else None
