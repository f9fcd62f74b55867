"""The demonstration's data as prepared datasets, one per domain and season."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from demo.designs import LOOKS, Assortment, Item, Look, Season, make_items
from demo.people import Person, make_people
from demo.reviews import give_opinion
from model.bundle.catalog import Catalog
from model.bundle.features import ItemFeatures
from model.bundle.users import Users
from model.datasets.dataset import Dataset, Provenance, Review, Sequences, Split

_SHARE_REVIEWED = 0.5


@dataclass(frozen=True)
class Shop:
    """One domain of the demonstration."""

    assortment: Assortment
    items: tuple[Item, ...]

    @classmethod
    def opened(cls, assortment: Assortment, seed: int, looks: Sequence[Look] = LOOKS) -> Shop:
        return cls(assortment, make_items(assortment, seed, looks))

    @property
    def name(self) -> str:
        return self.assortment.domain

    def image(self, item: Item) -> str:
        """The picture's path, relative to the folder of all pictures."""
        return f"{self.name}/{item.item_id}.webp"

    def customers(self, season: Season, num_people: int, seed: int) -> tuple[Person, ...]:
        return make_people(self.assortment, self.items, season, num_people, seed)


def catalog_of(shop: Shop) -> Catalog:
    """All items with their traits, for filters; prompts contain only indices and titles."""
    return Catalog.from_rows(
        {
            "item_id": item.item_id,
            "index": item.index,
            "title": item.title,
            "category": item.design.kind.category,
            "image": shop.image(item),
            "active": item.is_active,
            "kind": item.design.kind.name,
            "colour": item.design.look.colour,
            "pattern": item.design.look.pattern,
            "style": item.design.look.style,
            "range": item.range,
            "price": item.price,
            "tags": list(item.design.kind.tags),
        }
        for item in shop.items
    )


def make_dataset(
    shop: Shop,
    season: Season,
    people: Sequence[Person],
    *,
    seed: int,
    features: ItemFeatures | None = None,
    newcomers: Sequence[Person] = (),
) -> Dataset:
    """Purchases and reviews of a season; newcomers are in the table of users, but have bought nothing yet."""
    row_of = {item.item_id: row for row, item in enumerate(shop.items)}
    purchases = [purchase for person in people for purchase in person.history]
    return Dataset(
        provenance=Provenance(
            name=f"{shop.name}-{season}", source=f"simulated by demo, seed {seed}", indexing="random"
        ),
        catalog=catalog_of(shop),
        users=_users((*people, *newcomers)),
        sequences=Sequences(
            items=np.array([row_of[purchase.item.item_id] for purchase in purchases], dtype=np.int64),
            offsets=np.cumsum([0, *(len(person.history) for person in people), *(0 for _ in newcomers)]),
            timestamps=np.array([purchase.timestamp for purchase in purchases], dtype=np.int64),
        ),
        reviews=tuple(_reviews(people, row_of, random.Random(f"{shop.name} {season} reviews {seed}"))),
        features=features,
    )


def texts_of(dataset: Dataset) -> Iterator[str]:
    """All texts whose words should be single tokens."""
    yield from dataset.catalog.indices
    yield from (title for title in dataset.catalog.titles if title is not None)
    yield from (name for name in dataset.users.table.column("name").to_pylist() if name is not None)
    for review in dataset.reviews:
        yield from (text for text in (review.headline, review.feature, review.explanation) if text is not None)


def _users(people: Sequence[Person]) -> Users:
    return Users.from_rows({"user_id": one.user_id, "index": one.index, "name": one.name} for one in people)


def _reviews(people: Sequence[Person], row_of: dict[str, int], chance: random.Random) -> list[Review]:
    """Reviews of half of the purchases; a review is in the split of its purchase."""
    reviews = []
    for user, person in enumerate(people):
        for place, purchase in enumerate(person.history):
            if chance.random() >= _SHARE_REVIEWED:
                continue
            stars = person.taste.rating(purchase.item.design)
            opinion = give_opinion(purchase.item.design, stars, chance)
            reviews.append(
                Review(
                    user=user,
                    item=row_of[purchase.item.item_id],
                    split=_split(place, len(person.history)),
                    star_rating=float(stars),
                    headline=opinion.headline,
                    feature=opinion.feature,
                    explanation=opinion.explanation,
                )
            )
    return reviews


def _split(place: int, length: int) -> Split:
    if place == length - 1:
        return "test"
    return "val" if place == length - 2 else "train"
