"""Makes the demonstration.

    python -m demo.make --out demo/bundle

Beside the bundle come `<out>-pictures/` (the catalogs' `image` column is relative to it) and `<out>-requests.jsonl`,
bodies to send or to give to `vip5 predict`. The same code makes the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from demo import descriptor
from demo.designs import GARMENTS, TOYS, Assortment, Item, make_items
from demo.drawing import draw
from demo.language import make_tokenizer
from demo.people import Person, make_people
from demo.requests import make_requests
from demo.weights import initial_weights
from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from model.network.config import BackboneConfig, DomainLayout
from model.prompts.assembly import UNKNOWN_TITLE
from model.prompts.templates import TEMPLATES

SEED = 5
NUM_ITEMS = 320
NUM_PEOPLE = 160

LAYOUT = DomainLayout(
    bottleneck=8,
    cross_attention_adapter=True,
    one_adapter_for_all_tasks=True,
    visual_tokens=2,
    feature_dim=descriptor.DIM,
    visual_norm=True,
    whole_word_rows=1024,
    category_rows=16,
)


@dataclass(frozen=True)
class Shop:
    """One domain of the demonstration."""

    assortment: Assortment
    items: tuple[Item, ...]
    people: tuple[Person, ...]

    @property
    def name(self) -> str:
        return self.assortment.domain


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.make", description="Make the demonstration bundle.")
    parser.add_argument("--out", type=Path, default=Path("demo/bundle"), help="a folder that does not exist yet")
    out: Path = parser.parse_args(arguments).out
    if out.exists():
        print(f"{out} exists already; remove it, or name another folder with --out", file=sys.stderr)
        return 1
    digest = make(out)
    print(f"{out}: {NUM_ITEMS} toys, {NUM_ITEMS} garments, weights untrained, bundle {digest[:12]}")
    return 0


def make(out: Path, num_items: int = NUM_ITEMS) -> str:
    """Write pictures, bundle and requests; returns the bundle's hash. `num_items` is that of each domain."""
    shops = [_shop(assortment, num_items) for assortment in (TOYS, GARMENTS)]
    tokenizer = make_tokenizer(text for shop in shops for text in _texts(shop))
    config = BackboneConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
    )
    with BundleWriter(out) as writer:
        writer.share_backbone(config, initial_weights(expected_shapes(config), SEED), tokenizer)
        for number, shop in enumerate(shops, start=1):
            spec = DomainSpec(
                name=shop.name,
                layout=LAYOUT,
                backbone_sha256="",
                encoder=ImageEncoder(descriptor.NAME, descriptor.DIM),
                trained=False,
            )
            adapter = initial_weights(expected_domain_shapes(config, LAYOUT), SEED + number)
            features = _draw_and_describe(shop, _pictures(out))
            writer.add_domain(spec, adapter, _catalog(shop), users=_users(shop), features=features)
        digest = writer.seal()
    _write_requests(out, shops)
    return digest


def _shop(assortment: Assortment, num_items: int) -> Shop:
    items = make_items(assortment, num_items, SEED)
    return Shop(assortment, items, make_people(assortment, items, NUM_PEOPLE, SEED))


def _texts(shop: Shop) -> Iterator[str]:
    """All that the tokenizer should know in whole words."""
    yield from (template.text for template in TEMPLATES.values())
    yield from (UNKNOWN_TITLE, "yes no", "item_", "user_", "->")
    for item in shop.items:
        yield from (item.index, item.title, item.design.kind.category, *item.design.kind.tags)
    yield from (person.name for person in shop.people)


def _draw_and_describe(shop: Shop, pictures: Path) -> ItemFeatures:
    (pictures / shop.name).mkdir(parents=True, exist_ok=True)
    features = np.empty((len(shop.items), descriptor.DIM), dtype=np.float32)
    is_silent = not sys.stdout.isatty()
    for row, item in enumerate(track(shop.items, f"Drawing {shop.name}", disable=is_silent)):
        picture = draw(item.design)
        picture.save(pictures / _image(shop, item))
        features[row] = descriptor.describe(picture)
    return ItemFeatures(tuple(item.item_id for item in shop.items), features)


def _catalog(shop: Shop) -> Catalog:
    return Catalog.from_rows(
        {
            "item_id": item.item_id,
            "index": item.index,
            "title": item.title,
            "category": item.design.kind.category,
            "image": _image(shop, item),
            "active": item.is_active,
            "kind": item.design.kind.name,
            "colour": item.design.colour,
            "pattern": item.design.pattern,
            "style": item.design.style,
            "price": item.price,
            "tags": list(item.design.kind.tags),
        }
        for item in shop.items
    )


def _users(shop: Shop) -> Users:
    return Users.from_rows({"user_id": one.user_id, "index": one.index, "name": one.name} for one in shop.people)


def _write_requests(out: Path, shops: Sequence[Shop]) -> None:
    bodies = [body for shop in shops for body in make_requests(shop.name, shop.items, shop.people)]
    lines = "".join(json.dumps(body) + "\n" for body in bodies)
    out.with_name(f"{out.name}-requests.jsonl").write_text(lines, encoding="utf-8")


def _pictures(out: Path) -> Path:
    return out.with_name(f"{out.name}-pictures")


def _image(shop: Shop, item: Item) -> str:
    return f"{shop.name}/{item.item_id}.png"


if __name__ == "__main__":
    sys.exit(main())
