"""The catalogs' pictures as files, and their embeddings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from demo.clip import TinyClip
from demo.datasets import Shop
from demo.designs import Design
from demo.drawing import Pose, draw
from demo.progress import progress_bar
from feature_cache.encoding.pictures import decode, read_file
from model.bundle.features import ItemFeatures

_QUALITY = 85


def draw_designs(designs: Sequence[Design], chance: random.Random, what: str) -> list[Image.Image]:
    """A picture of each design, in a random pose."""
    pictures = []
    with progress_bar() as report:
        for design in designs:
            pictures.append(draw(design, Pose.casual(chance)))
            report(f"drawing {what}", len(pictures), len(designs))
    return pictures


def draw_catalog(shop: Shop, folder: Path, seed: int) -> None:
    """Write the picture of every item into the folder of all pictures."""
    (folder / shop.name).mkdir(parents=True, exist_ok=True)
    chance = random.Random(f"{shop.name} poses {seed}")
    pictures = draw_designs([item.design for item in shop.items], chance, shop.name)
    for item, picture in zip(shop.items, pictures, strict=True):
        picture.save(folder / shop.image(item), quality=_QUALITY)


def embed_catalog(shop: Shop, folder: Path, clip: TinyClip) -> ItemFeatures:
    """The embeddings of all items' pictures, read from their files."""
    pictures = [decode(read_file(folder / shop.image(item))) for item in shop.items]
    return ItemFeatures(tuple(item.item_id for item in shop.items), clip.embed_pictures(pictures))
