"""Pictures of all kinds become what the encoder reads, or a reason why not."""

from __future__ import annotations

import ast
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
from tests.conftest import ROOT


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
    assert np.array_equal(decoded, np.stack([values // 257] * 3, axis=2))


def test_transparent_parts_are_white(encoder: Encoder) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    white = Image.new("RGB", (40, 40), "white")
    pixels = encoder.preprocessing.pixels
    assert np.array_equal(pixels(decode(saved(clear))), pixels(decode(saved(white))))


# The matrix: four colours in four corners, of which the last may be transparent, in every mode, bit depth and format
# that can hold them, turned by every EXIF orientation.

GREYS = (0, 85, 170, 255)  # exact in 2, 4, 8 and 16 bits
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
TURNS = {  # from the orientation to how a viewer turns the stored picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def corners(values: tuple[Any, ...], size: tuple[int, int] = (24, 16)) -> np.ndarray[Any, Any]:
    """[16, 24] or [16, 24, channels]: one value in each quarter."""
    width, height = size
    places = (np.arange(height) >= height // 2)[:, None] * 2 + (np.arange(width) >= width // 2)[None]
    found: np.ndarray[Any, Any] = np.asarray(values)[places]
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray[Any, Any], depth: int, colour_type: int, orientation: int, **chunks: bytes) -> bytes:
    """A PNG of any bit depth, which Pillow cannot write; `chunks` such as tRNS come before the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    height, width = values.shape[:2]
    bits = np.unpackbits(values.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=2)[:, :, 16 - depth :]
    packed = np.packbits(bits.reshape(height, -1), axis=1)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
            *(chunk(kind.encode(), content) for kind, content in chunks.items()),
            chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))),
            chunk(b"IEND", b""),
        ]
    )


def stored(kind: str, *, clear: bool, orientation: int) -> tuple[bytes, tuple[tuple[int, ...], ...]]:
    """A file, and the colours of its four quarters before turning; of the last one without `clear`."""
    format_, mode, depth = kind.split()
    bits = int(depth)
    if format_ == "PNG" and mode == "grey":
        greys = GREYS if bits > 1 else (0, 0, 0, 255)
        values = tuple(grey * ((1 << bits) - 1) // 255 for grey in greys)
        chunks = {"tRNS": struct.pack(">H", values[3])} if clear else {}
        return png(corners(values), bits, 0, orientation, **chunks), tuple((grey,) * 3 for grey in greys)
    if format_ == "PNG" and mode == "colour":
        wide = tuple(tuple(part * ((1 << bits) - 1) // 255 for part in colour) for colour in COLOURS)
        chunks = {"tRNS": struct.pack(">HHH", *wide[3])} if clear else {}
        return png(corners(wide), bits, 2, orientation, **chunks), COLOURS
    if format_ == "PNG" and mode == "palette":
        places = (0, 1, 2, 3) if bits > 1 else (0, 0, 0, 1)
        palette = COLOURS if bits > 1 else (COLOURS[0], COLOURS[3])
        chunks = {"PLTE": b"".join(map(bytes, palette))}
        if clear:
            chunks["tRNS"] = bytes([*[255] * (len(palette) - 1), 0])
        return png(corners(places), bits, 3, orientation, **chunks), tuple(palette[place] for place in places)
    if format_ == "PNG" and mode in {"grey+alpha", "colour+alpha"}:
        colours = tuple((grey,) for grey in GREYS) if mode == "grey+alpha" else COLOURS
        alphas = (255, 255, 255, 0 if clear else 255)
        top = (1 << bits) - 1
        wide = tuple(
            tuple(part * top // 255 for part in (*colour, alpha)) for colour, alpha in zip(colours, alphas, strict=True)
        )
        expected = tuple(colour * (3 if len(colour) == 1 else 1) for colour in colours)
        return png(corners(wide), bits, 4 if mode == "grey+alpha" else 6, orientation), expected
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"exif": exif} | ({"lossless": True} if format_ == "WEBP" else {"quality": 100})
    if mode == "grey":
        dtype = np.uint16 if bits == 16 else np.uint8
        grey = Image.fromarray(corners(tuple(value * 257 if bits == 16 else value for value in GREYS)).astype(dtype))
        return saved(grey, format_, **options), tuple((value,) * 3 for value in GREYS)
    alphas = (255, 255, 255, 0 if clear else 255)
    rgba = tuple((*colour, alpha) for colour, alpha in zip(COLOURS, alphas, strict=True))
    image = Image.fromarray(corners(rgba).astype(np.uint8), "RGBA")
    return saved(image if mode == "colour+alpha" else image.convert("RGB"), format_, **options), COLOURS


KEYED = [
    *(f"PNG grey {depth}" for depth in (1, 2, 4, 8, 16)),
    *(f"PNG colour {depth}" for depth in (8, 16)),
    *(f"PNG palette {depth}" for depth in (1, 2, 4, 8)),
    *(f"PNG {mode}+alpha {depth}" for mode in ("grey", "colour") for depth in (8, 16)),
    *(f"{format_} colour+alpha 8" for format_ in ("WEBP", "AVIF", "TIFF")),
]
OPAQUE = [
    *(f"{format_} colour 8" for format_ in ("JPEG", "WEBP", "AVIF", "TIFF")),
    *("JPEG grey 8", "TIFF grey 8", "TIFF grey 16"),
]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("kind", "clear"),
    [*((kind, clear) for kind in KEYED for clear in (False, True)), *((kind, False) for kind in OPAQUE)],
)
def test_every_picture_becomes_the_same_rgb(kind: str, *, clear: bool, orientation: int) -> None:
    content, colours = stored(kind, clear=clear, orientation=orientation)
    expected = Image.fromarray(corners((*colours[:3], (255, 255, 255) if clear else colours[3])).astype(np.uint8))
    turn = TURNS[orientation]
    expected = expected if turn is None else expected.transpose(turn)
    found = decode(content)
    assert (found.mode, found.size) == ("RGB", expected.size)
    pixels, upright = np.asarray(found), np.asarray(expected)
    if kind.startswith(("PNG", "TIFF")):
        assert np.array_equal(pixels, upright)
    for place in [(y * found.height // 4, x * found.width // 4) for x in (1, 3) for y in (1, 3)]:
        assert np.allclose(pixels[place], upright[place], atol=6), place  # JPEG and AVIF lose a little


def test_only_the_very_key_of_16_bits_is_transparent() -> None:
    greys = corners((40000, 40001, 65535, 0))
    found = decode(png(greys, 16, 0, 1, tRNS=struct.pack(">H", 40000)))
    assert np.array_equal(np.asarray(found)[..., 0], corners((255, 40001 // 257, 255, 0)))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be as large as that."""
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


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA", "SGI", "ICO", "DDS", "JPEG2000"])
def test_formats_that_are_not_named_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # starting it would fail
    with pytest.raises(PictureError, match="is not a picture in one of the formats PNG, JPEG"):
        decode(saved(picture(1), kind))


def calls_of_image_open() -> dict[str, list[ast.Call]]:
    found: dict[str, list[ast.Call]] = {}
    for folder in ("service", "model", "feature_cache", "demo", "deploy", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_open = isinstance(node, ast.Call) and ast.unparse(node.func) in {"Image.open", "PIL.Image.open"}
                if is_open:
                    found.setdefault(str(path.relative_to(ROOT)), []).append(cast("ast.Call", node))
    return found


def test_every_picture_is_opened_in_one_place_and_everywhere_with_named_formats() -> None:
    calls = calls_of_image_open()
    shipped = {path for path in calls if not path.startswith(("tests/", "benchmarks/"))}
    assert shipped == {"feature_cache/encoding/pictures.py"}
    for path, each in calls.items():
        for call in each:
            assert "formats" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
