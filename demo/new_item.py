"""Draws something that a shop does not sell yet, and writes the change of the catalog that adds it.

    python -m demo.new_item --domain garments --kind tee --colour pink --pattern striped --style retro > new.json

The body for `PATCH /admin/domains/{name}/catalog` has no identifier: the service makes one from the picture's
embedding, by the codes of the domain. `--picture FILE` also keeps the picture.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from demo.clip import untrained_clip
from demo.designs import ASSORTMENTS, COLOURS, PATTERNS, STYLES, Assortment, Design, Look
from demo.drawing import Pose, draw
from demo.make import SEED, Places

_NAME = "novum"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.new_item", description="Draw a new item for a shop.")
    shops = {assortment.domain: assortment for assortment in ASSORTMENTS}
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="its encoder is used")
    parser.add_argument("--domain", choices=shops, default="garments")
    parser.add_argument("--kind", default="tee", help="such as tee or coat, boat or robot")
    parser.add_argument("--colour", choices=COLOURS, default="pink")
    parser.add_argument("--pattern", choices=PATTERNS, default="striped")
    parser.add_argument("--style", choices=STYLES, default="retro")
    parser.add_argument("--number", type=int, default=217, help="number in the item's id (default: 217)")
    parser.add_argument("--picture", type=Path, help="file to write the picture into")
    options = parser.parse_args(arguments)
    assortment = shops[options.domain]
    kinds = {kind.name: kind for kind in assortment.kinds}
    if options.kind not in kinds:
        print(f"{options.domain} has no {options.kind}; choose from {', '.join(kinds)}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    design = Design(kinds[options.kind], Look(options.colour, options.pattern, options.style))
    picture = draw(design, Pose.casual(random.Random(f"{design.look} {SEED}")))
    if options.picture is not None:
        picture.save(options.picture)
    print(json.dumps(change_of(assortment, design, picture, options.number, Places(options.bundle))))
    return 0


def change_of(
    assortment: Assortment, design: Design, picture: Image.Image, number: int, places: Places
) -> dict[str, list[dict[str, Any]]]:
    """The body that adds the item with its embedding, its traits in columns for filters."""
    clip = untrained_clip([kind.name for each in ASSORTMENTS for kind in each.kinds], SEED).loaded(places.clip)
    (embedding,) = clip.embed_pictures([picture])
    row = {
        "item_id": f"{assortment.noun}-{number:04d}",
        "title": f"{_NAME.capitalize()} {design.kind.name}",
        "category": design.kind.category,
        "kind": design.kind.name,
        "colour": design.look.colour,
        "pattern": design.look.pattern,
        "style": design.look.style,
        "range": "summer",
        "price": design.kind.price,
        "tags": list(design.kind.tags),
        "feature": [float(value) for value in embedding],
    }
    return {"add": [row]}


if __name__ == "__main__":
    sys.exit(main())
