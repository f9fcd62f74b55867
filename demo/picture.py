"""Draws the picture at the top of the README from answers of the demonstration bundle.

    python -m demo.picture --out docs/pictures/demonstration.png

Each row shows one held-out customer: what they bought, what `vip5 predict` recommends, and the explanation that it
generates for the first recommended item. The PNG's text chunk `answers` holds what is shown, so that a test can compare
it with the bundle. The customers were chosen because their explanations are true; demo/README.md has how many are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from demo.designs import RGB
from demo.make import Places
from feature_cache.encoding.pictures import decode, read_file
from model.bundle.bundle import open_bundle

CUSTOMERS = {"toys": "user-30022", "garments": "user-30025"}
"""The customer of each domain whose first request in `bundle-requests.jsonl` is answered."""
NUM_RECOMMENDED = 4
COMMAND = (sys.executable, "-c", "from service.cli import main; main()")

_WIDTH = 1600  # shown at half of this
_EDGE = 40
_SIDE = 176  # of an item's picture
_GAP = 20
_LABEL = 40  # height of the line below an item's picture
_HEAD = 76
_QUOTE = 92
_ROW = _SIDE + _LABEL + _QUOTE + 22
_RIGHT = _WIDTH - _EDGE - NUM_RECOMMENDED * (_SIDE + _GAP) + _GAP

_PAPER: RGB = (255, 255, 255)
_CARD: RGB = (246, 247, 249)
_LINE: RGB = (221, 225, 230)
_INK: RGB = (31, 41, 55)
_GREY: RGB = (97, 107, 121)
_ACCENT: RGB = (38, 95, 186)


@dataclass(frozen=True)
class Shown:
    """What a row of the picture shows."""

    domain: str
    user_id: str
    history: tuple[str, ...]
    recommended: tuple[str, ...]
    explanation: str
    bundle: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.picture", description="Draw the README's picture.")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/demonstration.png"))
    options = parser.parse_args(arguments)
    places = Places(options.bundle)
    rows = ask(places)
    save(draw(rows, places), rows, options.out)
    print(f"{options.out}: {options.out.stat().st_size // 1024} kB")
    return 0


def ask(places: Places) -> tuple[Shown, ...]:
    """Let `vip5 predict` answer each customer's first request, then explain its first item."""
    requests = [_first_request(places.requests, domain, user) for domain, user in CUSTOMERS.items()]
    answers = _predict(places.bundle, [{**request, "k": NUM_RECOMMENDED} for request in requests])
    recommended = [tuple(str(item["item_id"]) for item in answer["items"]) for answer in answers]
    questions = [
        {"task": "explanation", "domain": request["domain"], "user_id": request["user_id"], "item_id": items[0]}
        | {"feature": "colour", "star_rating": 5, "template": "C-12"}
        for request, items in zip(requests, recommended, strict=True)
    ]
    texts = [str(answer["text"]) for answer in _predict(places.bundle, questions)]
    return tuple(
        Shown(
            domain=request["domain"],
            user_id=request["user_id"],
            history=tuple(request["history"]),
            recommended=items,
            explanation=text,
            bundle=answer["bundle"],
        )
        for request, answer, items, text in zip(requests, answers, recommended, texts, strict=True)
    )


def draw(rows: Sequence[Shown], places: Places) -> Image.Image:
    """The picture, on a white background."""
    picture = Image.new("RGB", (_WIDTH, _HEAD + len(rows) * _ROW), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_EDGE, 24), "What the customer bought", font=_font(32), fill=_INK)
    pen.text((_RIGHT, 24), "What the service recommends", font=_font(32), fill=_INK)
    for number, row in enumerate(rows):
        _draw_row(picture, _HEAD + number * _ROW, row, places)
    return picture


def save(picture: Image.Image, rows: Sequence[Shown], path: Path) -> None:
    """Write the picture, and what it shows into its text chunk."""
    information = PngInfo()
    information.add_text("answers", json.dumps([asdict(row) for row in rows]))
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True, pnginfo=information)


def _first_request(path: Path, domain: str, user_id: str) -> dict[str, Any]:
    bodies = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return next(body for body in bodies if (body["domain"], body["user_id"]) == (domain, user_id))


def _predict(bundle: Path, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        asked.write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="utf-8")
        files = ("--bundle", str(bundle), "--requests", str(asked), "--out", str(answered))
        subprocess.run([*COMMAND, "predict", *files], check=True, capture_output=True)  # noqa: S603  # our own command
        return [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]


def _draw_row(picture: Image.Image, top: int, row: Shown, places: Places) -> None:
    pen = ImageDraw.Draw(picture)
    catalog = open_bundle(places.bundle).domains[row.domain].catalog
    titles = dict(zip(catalog.item_ids, catalog.titles, strict=True))
    images = dict(zip(catalog.item_ids, catalog.images, strict=True))
    for left, items in ((_EDGE, row.history), (_RIGHT, row.recommended)):
        for place, item in enumerate(items):
            corner = left + place * (_SIDE + _GAP), top
            _draw_item(picture, corner, places.pictures / str(images[item]), str(titles[item]))
    start = _EDGE + len(row.history) * (_SIDE + _GAP) + 4
    _draw_arrow(pen, start, _RIGHT - 24, top + _SIDE // 2)
    below = top + _SIDE + _LABEL + 14
    pen.text((_EDGE, below + 18), f"{row.user_id} in the shop “{row.domain}”", font=_font(24), fill=_GREY)
    box = (_RIGHT, below, _WIDTH - _EDGE, below + 66)
    pen.polygon(
        [(_RIGHT + _SIDE // 2 + shift, below - height) for shift, height in ((-14, 0), (0, 12), (14, 0))], _CARD
    )
    pen.rounded_rectangle(box, radius=14, fill=_CARD)
    pen.text((_RIGHT + 24, below + 20), "Why?", font=_font(26), fill=_GREY)
    pen.text((_RIGHT + 102, below + 18), f"“{row.explanation}”", font=_font(28), fill=_INK)


def _draw_item(picture: Image.Image, corner: tuple[int, int], path: Path, title: str) -> None:
    left, top = corner
    photo = decode(read_file(path)).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    mask = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, _SIDE - 1, _SIDE - 1), radius=14, fill=255)
    picture.paste(photo, corner, mask)
    pen = ImageDraw.Draw(picture)
    pen.rounded_rectangle((left, top, left + _SIDE - 1, top + _SIDE - 1), radius=14, outline=_LINE, width=2)
    pen.text((left + _SIDE // 2, top + _SIDE + 8), title, font=_font(22), fill=_GREY, anchor="ma")


def _draw_arrow(pen: ImageDraw.ImageDraw, start: int, end: int, y: int) -> None:
    pen.line((start, y, end - 18, y), fill=_ACCENT, width=8)
    pen.polygon([(end - 28, y - 20), (end, y), (end - 28, y + 20)], fill=_ACCENT)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which is the same on every machine."""
    return ImageFont.load_default(size)


if __name__ == "__main__":
    sys.exit(main())
