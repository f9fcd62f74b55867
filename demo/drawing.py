"""Draws an item's picture from its design. Every trait of the design is visible."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.designs import COLOURS, RGB, Design, Pattern, Style
from demo.shapes import PARTS, Part, Point

SIZE = 128
_CANVAS = 2 * SIZE  # drawn at twice the size and scaled down, for smooth edges
_MARGIN = 0.09 * _CANVAS
_LINE = _CANVAS / 170  # width of a thin outline
_INK: RGB = (44, 42, 54)
_PAPER: RGB = (252, 250, 244)
_BACKGROUNDS: dict[Style, tuple[RGB, RGB]] = {
    "classic": ((247, 247, 248), (236, 238, 241)),
    "retro": ((247, 232, 200), (238, 214, 170)),
    "modern": ((222, 233, 243), (186, 205, 224)),
}


@dataclass(frozen=True)
class Pose:
    """Position of a thing in its picture: rotation by `tilt` radians, scale, and offset from the centre."""

    tilt: float = 0.0
    zoom: float = 1.0
    shift: Point = (0.0, 0.0)  # in hundredths of the drawing's side

    @classmethod
    def casual(cls, chance: random.Random) -> Pose:
        """A random, slightly irregular pose."""
        shift = (chance.uniform(-4, 4), chance.uniform(-4, 4))
        return cls(chance.uniform(-0.12, 0.12), chance.uniform(0.86, 1.04), shift)

    def place(self, point: Point) -> Point:
        """Where a point of an outline is drawn; the centre is (50, 50)."""
        x, y = (self.zoom * (value - 50) for value in point)
        cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
        return 50 + cosine * x - sine * y + self.shift[0], 50 + sine * x + cosine * y + self.shift[1]


UPRIGHT = Pose()


def draw(design: Design, pose: Pose = UPRIGHT) -> Image.Image:
    """An RGB picture of SIZE by SIZE pixels."""
    look = design.look
    masks = [(part, _mask(part, pose)) for part in PARTS[design.kind.name]]
    silhouette = Image.new("L", (_CANVAS, _CANVAS))
    for _, mask in masks:
        silhouette = ImageChops.lighter(silhouette, mask)

    picture = _background(look.style).copy()
    _cast_shadow(picture, silhouette, look.style)
    if look.style != "modern":
        picture.paste(_INK, mask=_grown(silhouette, 1.8 * _LINE))
    for part, mask in masks:
        if look.style != "modern":
            picture.paste(_INK, mask=ImageChops.multiply(_grown(mask, _LINE), _grown(silhouette, 1.8 * _LINE)))
        picture.paste(_fill(part, design), mask=mask)
    if look.style == "modern":
        _shine(picture, silhouette)
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _mask(part: Part, pose: Pose) -> Image.Image:
    scale = (_CANVAS - 2 * _MARGIN) / 100
    mask = Image.new("L", (_CANVAS, _CANVAS))
    outline = [(_MARGIN + x * scale, _MARGIN + y * scale) for x, y in map(pose.place, part.outline)]
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return mask


def _grown(mask: Image.Image, radius: float) -> Image.Image:
    return mask.filter(ImageFilter.GaussianBlur(radius)).point(_THRESHOLD)


_THRESHOLD = [0 if value < 16 else 255 for value in range(256)]


def _fill(part: Part, design: Design) -> Image.Image:
    colour = COLOURS[design.look.colour]
    if part.role == "body":
        return _patterned(design.look.colour, design.look.pattern, design.look.style)
    plain = {"accent": _mixed(colour, _INK, 0.35), "dark": _INK, "light": _PAPER}
    return Image.new("RGB", (_CANVAS, _CANVAS), plain[part.role])


@cache
def _patterned(colour_name: str, pattern: Pattern, style: Style) -> Image.Image:
    """The patterned surface of a body."""
    colour = COLOURS[colour_name]
    if style == "retro":
        colour = _mixed(colour, (214, 178, 128), 0.25)
    surface = Image.new("RGB", (_CANVAS, _CANVAS), colour)
    pen = ImageDraw.Draw(surface)
    second = _mixed(colour, _PAPER, 0.72)
    step = _CANVAS // 11
    if pattern == "striped":
        for top in range(0, _CANVAS, step):
            pen.rectangle((0, top, _CANVAS, top + step * 0.42), fill=second)
    elif pattern == "dotted":
        for row, y in enumerate(range(0, _CANVAS, step)):
            for x in range((row % 2) * step // 2, _CANVAS, step):
                pen.ellipse((x - step * 0.25, y - step * 0.25, x + step * 0.25, y + step * 0.25), fill=second)
    elif pattern == "checked":
        for row, y in enumerate(range(0, _CANVAS, step)):
            for x in range((row % 2) * step, _CANVAS, 2 * step):
                pen.rectangle((x, y, x + step - 1, y + step - 1), fill=second)
    return surface


@cache
def _background(style: Style) -> Image.Image:
    """A vertical gradient; retro pictures have sun rays."""
    top, bottom = _BACKGROUNDS[style]
    blend = Image.linear_gradient("L").resize((_CANVAS, _CANVAS))
    background = Image.composite(Image.new("RGB", blend.size, bottom), Image.new("RGB", blend.size, top), blend)
    if style == "retro":
        pen = ImageDraw.Draw(background)
        centre, radius = _CANVAS / 2, _CANVAS
        for angle in range(0, 360, 24):
            box = (centre - radius, centre - radius, centre + radius, centre + radius)
            pen.pieslice(box, angle, angle + 12, fill=_mixed(top, (255, 255, 255), 0.35))
    return background


def _cast_shadow(picture: Image.Image, silhouette: Image.Image, style: Style) -> None:
    if style == "classic":
        return
    shift = _CANVAS // 32
    shadow = ImageChops.offset(silhouette, shift, shift)
    if style == "modern":
        shadow = shadow.filter(ImageFilter.GaussianBlur(shift * 0.8))
    strength = 0.35 if style == "modern" else 0.55
    picture.paste(_INK, mask=shadow.point([round(value * strength) for value in range(256)]))


def _shine(picture: Image.Image, silhouette: Image.Image) -> None:
    """Light from the upper left, for a glossy look."""
    light = ImageChops.subtract(silhouette, ImageChops.offset(silhouette, _CANVAS // 36, _CANVAS // 32))
    light = light.filter(ImageFilter.GaussianBlur(2.2 * _LINE)).point([round(value * 0.5) for value in range(256)])
    picture.paste(_PAPER, mask=ImageChops.multiply(light, silhouette))
    shade = ImageChops.subtract(silhouette, ImageChops.offset(silhouette, -_CANVAS // 32, -_CANVAS // 27))
    shade = shade.filter(ImageFilter.GaussianBlur(3.1 * _LINE)).point([round(value * 0.4) for value in range(256)])
    picture.paste(_INK, mask=ImageChops.multiply(shade, silhouette))


def _mixed(colour: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(own * (1 - share) + its * share) for own, its in zip(colour, other, strict=True))
    return red, green, blue
