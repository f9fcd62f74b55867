"""Pictures of all kinds become what the encoder reads, or a reason why not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from feature_cache.encoding import pictures
from feature_cache.encoding.pictures import decode, read_file
from feature_cache.encoding.sources import PictureError
from feature_cache.encoding.towers import Encoder
from tests.clips import IMAGE_SIZE, picture


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **cast("dict[str, Any]", options))
    return file.getvalue()


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda image: saved(image.convert("L")), id="grey"),
        pytest.param(lambda image: saved(image.convert("LA")), id="grey with transparency"),
        pytest.param(lambda image: saved(image.convert("1")), id="black and white"),
        pytest.param(lambda image: saved(image.convert("P", palette=Image.Palette.ADAPTIVE)), id="palette"),
        pytest.param(lambda image: saved(image.convert("P"), "GIF", transparency=0), id="transparent GIF"),
        pytest.param(lambda image: saved(image.convert("RGBA"), "WEBP"), id="WebP"),
        pytest.param(lambda image: saved(image.convert("CMYK"), "JPEG"), id="CMYK"),
        pytest.param(lambda image: saved(image.convert("YCbCr"), "JPEG"), id="YCbCr"),
        pytest.param(lambda image: saved(image.convert("LAB"), "TIFF"), id="Lab"),
        pytest.param(lambda image: saved(image.resize((1, 1))), id="one pixel"),
    ],
)
def test_every_mode_is_encoded(convert: Callable[[Image.Image], bytes], encoder: Encoder) -> None:
    pixels = encoder.preprocessing.pixels(decode(convert(picture(1))))
    assert pixels.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert np.isfinite(pixels).all()


def test_a_picture_is_turned_upright_by_its_exif_orientation() -> None:
    upright = picture(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90°
    lying = saved(upright.rotate(90, expand=True), exif=exif)
    assert np.array_equal(np.asarray(decode(lying)), np.asarray(upright))


def test_exif_that_cannot_be_parsed_does_not_cost_the_picture() -> None:
    image = picture(2)
    broken = saved(image, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff garbage")
    assert np.array_equal(np.asarray(decode(broken)), np.asarray(image))


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [picture(seed) for seed in (3, 4)]
    animated = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(np.asarray(decode(animated).convert("RGB")), np.asarray(frames[0]))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 48 * 40).astype(np.uint16).reshape(40, 48)
    decoded = np.asarray(decode(saved(Image.fromarray(values))))
    assert np.array_equal(decoded, values // 257)


def test_transparent_parts_are_white(encoder: Encoder) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    pixels = encoder.preprocessing.pixels
    assert np.array_equal(pixels(decode(saved(clear))), pixels(decode(saved(white))))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be as large as that."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "not a picture", id="empty"),
        pytest.param(b"<html>404</html>", "not a picture", id="a page"),
        pytest.param(saved(picture(1))[:-60], "cannot be decoded", id="PNG cut off"),
        pytest.param(saved(picture(1, (400, 300)), "JPEG")[:1500], "cannot be decoded .*truncated", id="JPEG cut off"),
        pytest.param(bomb(12_000, 12_000), "12000 × 12000 pixels; at most 100 million", id="bomb"),
        pytest.param(bomb(60_000, 60_000), "more than 100 megapixels", id="large bomb"),
        pytest.param(bomb(30_000, 3), "one edge may be at most 100 times the other", id="thin"),
        pytest.param(saved(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "floating-point", id="floats"),
        pytest.param(saved(Image.fromarray(np.full((9, 9), 70000, np.int32)), "TIFF"), "wider than 16", id="32 bits"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        decode(content)


def test_files_that_are_missing_folders_or_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PictureError, match="no such file"):
        read_file(tmp_path / "none.png")
    with pytest.raises(PictureError, match="directory"):
        read_file(tmp_path)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1 << 20)
    (tmp_path / "large.png").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(PictureError, match="larger than 1 MiB"):
        read_file(tmp_path / "large.png")
