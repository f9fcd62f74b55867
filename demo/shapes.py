"""Outlines of the demonstration's items, on a square of 100 by 100 with the origin at the top left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Role = Literal["body", "accent", "dark", "light"]
"""`body` carries the item's colour and pattern, `accent` a darker shade of the colour."""


@dataclass(frozen=True)
class Part:
    """A closed outline. Parts are painted in order, later ones over earlier ones."""

    role: Role
    outline: tuple[Point, ...]


def polygon(role: Role, *points: Point) -> Part:
    return Part(role, points)


def soft(role: Role, *points: Point) -> Part:
    """A polygon with rounded corners (Chaikin's algorithm, three rounds)."""
    outline: Sequence[Point] = points
    for _ in range(3):
        pairs = zip(outline, [*outline[1:], outline[0]], strict=True)
        outline = [cut for start, end in pairs for cut in (_between(start, end, 0.22), _between(start, end, 0.78))]
    return Part(role, tuple(outline))


def ellipse(role: Role, x: float, y: float, rx: float, ry: float | None = None) -> Part:
    ry = rx if ry is None else ry
    angles = [2 * math.pi * step / 60 for step in range(60)]
    return Part(role, tuple((x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles))


def box(role: Role, left: float, top: float, right: float, bottom: float) -> Part:
    return Part(role, ((left, top), (right, top), (right, bottom), (left, bottom)))


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _wheel(x: float, y: float, radius: float) -> tuple[Part, Part]:
    return ellipse("dark", x, y, radius), ellipse("light", x, y, radius * 0.45)


_TOYS: dict[str, tuple[Part, ...]] = {
    "ball": (
        ellipse("body", 50, 52, 35),
        ellipse("light", 37, 37, 6, 4.5),
    ),
    "kite": (
        soft("accent", (50, 80), (58, 86), (52, 91), (60, 97), (56, 97), (47, 91), (53, 86), (46, 80)),
        polygon("body", (50, 8), (80, 38), (50, 82), (20, 38)),
        polygon("accent", (48.5, 8), (51.5, 8), (51.5, 82), (48.5, 82)),
        polygon("accent", (20, 36.5), (80, 36.5), (80, 39.5), (20, 39.5)),
    ),
    "duck": (
        polygon("accent", (15, 36), (30, 31), (30, 43)),
        soft("body", (14, 60), (40, 55), (46, 52), (70, 56), (90, 44), (91, 68), (74, 87), (32, 87), (16, 76)),
        ellipse("body", 40, 36, 18),
        ellipse("dark", 35, 32, 2.8),
        soft("accent", (46, 64), (76, 58), (72, 76), (52, 78)),
    ),
    "bear": (
        ellipse("body", 34, 18, 9),
        ellipse("body", 66, 18, 9),
        ellipse("body", 31, 85, 12, 9),
        ellipse("body", 69, 85, 12, 9),
        ellipse("body", 22, 58, 8, 14),
        ellipse("body", 78, 58, 8, 14),
        ellipse("body", 50, 66, 25, 25),
        ellipse("body", 50, 33, 23, 20),
        ellipse("light", 50, 40, 10, 8),
        ellipse("dark", 50, 36.5, 3.6, 2.6),
        ellipse("dark", 41, 29, 2.6),
        ellipse("dark", 59, 29, 2.6),
    ),
    "car": (
        soft("body", (28, 48), (38, 26), (68, 26), (80, 48)),
        soft("body", (6, 50), (20, 46), (84, 46), (95, 54), (95, 74), (6, 74)),
        polygon("light", (35, 46), (42, 32), (51, 32), (51, 46)),
        polygon("light", (55, 46), (55, 32), (65, 32), (72, 46)),
        *_wheel(27, 74, 11),
        *_wheel(74, 74, 11),
    ),
    "train": (
        box("accent", 20, 18, 31, 40),
        box("accent", 16, 14, 35, 20),
        box("body", 12, 38, 62, 70),
        box("body", 56, 22, 90, 70),
        box("accent", 52, 16, 94, 24),
        box("light", 64, 31, 82, 47),
        box("dark", 8, 68, 94, 74),
        *_wheel(24, 78, 9),
        *_wheel(46, 78, 9),
        *_wheel(75, 76, 12),
    ),
    "boat": (
        box("dark", 48, 10, 51.5, 66),
        polygon("body", (54, 12), (86, 58), (54, 58)),
        polygon("light", (45, 22), (45, 58), (20, 58)),
        soft("accent", (8, 64), (92, 64), (76, 88), (24, 88)),
    ),
    "rocket": (
        soft("light", (42, 78), (50, 99), (58, 78)),
        polygon("accent", (36, 54), (20, 82), (38, 76)),
        polygon("accent", (64, 54), (80, 82), (62, 76)),
        soft("body", (50, 2), (68, 30), (66, 80), (34, 80), (32, 30)),
        ellipse("accent", 50, 36, 10),
        ellipse("light", 50, 36, 6.5),
    ),
    "robot": (
        box("dark", 48.5, 4, 51.5, 16),
        ellipse("accent", 50, 6, 4),
        box("accent", 14, 46, 24, 70),
        box("accent", 76, 46, 86, 70),
        box("accent", 33, 76, 45, 93),
        box("accent", 55, 76, 67, 93),
        box("body", 26, 42, 74, 80),
        box("body", 31, 14, 69, 40),
        ellipse("light", 41, 26, 5),
        ellipse("light", 59, 26, 5),
        ellipse("dark", 41, 26, 2.2),
        ellipse("dark", 59, 26, 2.2),
    ),
    "blocks": (
        box("body", 12, 56, 48, 92),
        box("body", 52, 56, 88, 92),
        box("accent", 32, 20, 68, 54),
        ellipse("light", 50, 37, 9),
        polygon("light", (70, 64), (80, 84), (60, 84)),
        box("light", 22, 66, 38, 82),
    ),
}

_LONG_SLEEVED: tuple[Point, ...] = (
    *((36, 16), (64, 16), (76, 20), (94, 78), (81, 82), (71, 48)),
    *((71, 88), (29, 88), (29, 48), (19, 82), (6, 78), (24, 20)),
)

_GARMENTS: dict[str, tuple[Part, ...]] = {
    "tee": (
        polygon(
            "body",
            *((36, 16), (64, 16), (92, 34), (83, 50), (71, 44), (71, 88)),
            *((29, 88), (29, 44), (17, 50), (8, 34)),
        ),
        ellipse("accent", 50, 16, 13, 8),
    ),
    "jumper": (
        polygon("body", *_LONG_SLEEVED),
        soft("accent", (33, 10), (67, 10), (67, 21), (33, 21)),
        box("accent", 29, 80, 71, 88),
    ),
    "shirt": (
        polygon("body", *_LONG_SLEEVED),
        polygon("light", (36, 16), (50, 30), (42, 36), (32, 18)),
        polygon("light", (64, 16), (50, 30), (58, 36), (68, 18)),
        *(ellipse("dark", 50, y, 1.8) for y in (42, 54, 66, 78)),
    ),
    "dress": (
        polygon("body", (36, 10), (44, 10), (50, 22), (56, 10), (64, 10), (62, 44), (86, 92), (14, 92), (38, 44)),
        polygon("accent", (38, 42), (62, 42), (63.5, 48), (36.5, 48)),
    ),
    "skirt": (
        polygon("body", (34, 20), (66, 20), (90, 84), (10, 84)),
        box("accent", 33, 15, 67, 24),
    ),
    "trousers": (
        polygon("body", (32, 12), (68, 12), (76, 94), (57, 94), (50, 40), (43, 94), (24, 94)),
        box("accent", 32, 8, 68, 15),
    ),
    "shorts": (
        polygon("body", (26, 26), (74, 26), (86, 76), (55, 78), (50, 54), (45, 78), (14, 76)),
        box("accent", 26, 21, 74, 30),
    ),
    "coat": (
        polygon(
            "body",
            *((36, 10), (64, 10), (78, 16), (93, 66), (80, 70), (73, 44)),
            *((78, 95), (22, 95), (27, 44), (20, 70), (7, 66), (22, 16)),
        ),
        polygon("accent", (36, 10), (50, 38), (40, 46), (30, 14)),
        polygon("accent", (64, 10), (50, 38), (60, 46), (70, 14)),
        box("accent", 49, 38, 51, 95),
        *(ellipse("dark", 56, y, 2.2) for y in (54, 66, 78)),
    ),
    "hat": (
        ellipse("light", 50, 20, 9),
        soft("body", (18, 76), (20, 40), (38, 24), (62, 24), (80, 40), (82, 76)),
        soft("accent", (13, 66), (87, 66), (87, 86), (13, 86)),
    ),
    "socks": (
        soft("body", (18, 12), (42, 12), (42, 58), (50, 74), (40, 90), (26, 84), (18, 62)),
        soft("body", (54, 12), (78, 12), (78, 56), (92, 76), (80, 90), (62, 84), (54, 62)),
        box("accent", 17, 10, 43, 20),
        box("accent", 53, 10, 79, 20),
    ),
}

PARTS: dict[str, tuple[Part, ...]] = _TOYS | _GARMENTS
"""The parts of each kind of item, by its name."""
