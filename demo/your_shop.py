"""Writes the files that a shop has: orders, reviews and items as CSV, and folders of pictures.

    python -m demo.your_shop --out data/your-shop

writes

    orders.csv         user_id, item_id, timestamp, rating (where the customer gave one)
    reviews.csv        user_id, item_id, star_rating, feature, explanation
    items.csv          item_id, title, category, price, image
    pictures/          <item_id>.jpg
    new-items.csv      items that nobody has bought, because they are not on sale yet; columns as in items.csv
    new-pictures/      their pictures

of a made-up shop whose customers buy by looks, as those of the demonstration do. `examples/your-shop` makes a service
of them.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from demo.designs import GARMENTS, TOYS, Assortment, Item, make_items
from demo.drawing import Pose, draw
from demo.people import Person, Purchase, make_people
from demo.reviews import Opinion, give_opinion

SEED = 11
SHOP = Assortment(domain="your-shop", noun="sku", kinds=(*TOYS.kinds, *GARMENTS.kinds), is_numbered=True)
NUM_NEW = 12
_SHARE_REVIEWED = 0.5
_QUALITY = 85
_ITEM_COLUMNS = ("item_id", "title", "category", "price", "image")


@dataclass(frozen=True)
class Order:
    """A purchase, with what its customer wrote about it, if anything."""

    person: Person
    purchase: Purchase
    stars: int | None = None
    opinion: Opinion | None = None

    def row(self) -> tuple[object, ...]:
        bought_at = datetime.fromtimestamp(self.purchase.timestamp, UTC)
        return self.person.user_id, self.purchase.item.item_id, f"{bought_at:%Y-%m-%d %H:%M:%S}", self.stars

    def review(self) -> tuple[object, ...]:
        assert self.opinion is not None
        ids = self.person.user_id, self.purchase.item.item_id
        return *ids, self.stars, self.opinion.feature, self.opinion.explanation


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.your_shop", description="Write the files of a made-up shop.")
    parser.add_argument("--out", type=Path, default=Path("data/your-shop"), help="folder (default: data/your-shop)")
    parser.add_argument("--customers", type=int, default=2000, help="number of customers (default: 2000)")
    options = parser.parse_args(arguments)
    for path in write_shop(options.out, options.customers):
        print(path)
    return 0


def write_shop(folder: Path, num_customers: int) -> list[Path]:
    """Write everything; returns the paths of tables and folders. The same number of customers gives the same files."""
    sold, new = _assortment()
    paths = write_tables(folder, num_customers)
    for name, drawn in (("pictures", sold), ("new-pictures", new)):
        _draw(drawn, folder / name)
        paths.append(folder / name)
    return paths


def write_tables(folder: Path, num_customers: int) -> list[Path]:
    """Write the tables alone."""
    sold, new = _assortment()
    people = make_people(SHOP, sold, "spring", num_customers, SEED)
    orders = sorted(_orders(people), key=lambda order: order.purchase.timestamp)
    tables = {
        "orders.csv": (("user_id", "item_id", "timestamp", "rating"), [order.row() for order in orders]),
        "reviews.csv": (
            ("user_id", "item_id", "star_rating", "feature", "explanation"),
            [order.review() for order in orders if order.opinion is not None],
        ),
        "items.csv": (_ITEM_COLUMNS, [_item_row(item) for item in sold]),
        "new-items.csv": (_ITEM_COLUMNS, [_item_row(item) for item in new]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (columns, rows) in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return [folder / name for name in tables]


def _assortment() -> tuple[list[Item], list[Item]]:
    """What has been sold, and what is new."""
    items = make_items(SHOP, SEED)
    sold = [item for item in items if item.range != "summer"]
    return sold, [item for item in items if item.range == "summer"][:NUM_NEW]


def _orders(people: Sequence[Person]) -> Iterator[Order]:
    chance = random.Random(f"{SHOP.domain} reviews {SEED}")
    for person in people:
        for purchase in person.history:
            if chance.random() >= _SHARE_REVIEWED:
                yield Order(person, purchase)
                continue
            stars = person.taste.rating(purchase.item.design)
            yield Order(person, purchase, stars, give_opinion(purchase.item.design, stars, chance))


def _item_row(item: Item) -> tuple[object, ...]:
    return item.item_id, item.title, item.design.kind.category, item.price, _picture(item)


def _picture(item: Item) -> str:
    return f"{item.item_id}.jpg"


def _draw(items: Sequence[Item], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for item in items:
        pose = Pose.casual(random.Random(f"{SHOP.domain} pose {item.item_id} {SEED}"))
        draw(item.design, pose).save(folder / _picture(item), quality=_QUALITY)


if __name__ == "__main__":
    sys.exit(main())
