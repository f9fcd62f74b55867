"""Requests to try on the demonstration: bodies of the HTTP routes, with `task` naming the route."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from demo.datasets import Shop
from demo.people import Person
from demo.reviews import TOPICS

Body: TypeAlias = dict[str, str | int | list[str] | dict[str, str]]

_NUM_PEOPLE = 100
_LIST_LENGTH = 20
_EVERY = 5  # one customer in this many also gets a filter, a list and an explanation


def write_requests(path: Path, audiences: Sequence[tuple[Shop, Sequence[Person]]], seed: int) -> None:
    """One body per line, for the first customers of each shop."""
    bodies = [body for shop, people in audiences for body in make_requests(shop, people[:_NUM_PEOPLE], seed)]
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")


def make_requests(shop: Shop, people: Sequence[Person], seed: int) -> Iterator[Body]:
    """The next item for each customer; for some also a filter by colour, and the other tasks."""
    chance = random.Random(f"{shop.name} requests {seed}")
    on_sale = [item.item_id for item in shop.items if item.is_active]
    for number, person in enumerate(people):
        about: Body = {"domain": shop.name, "user_id": person.user_id}
        history = [purchase.item.item_id for purchase in person.history]
        yield {"task": "sequential", **about, "history": history}
        if number % _EVERY == 0:
            last = person.history[-1].item
            where = {"colour": last.design.look.colour}
            stars = person.taste.rating(last.design)
            yield {"task": "sequential", **about, "history": history, "where": where}
            yield {
                "task": "direct",
                **about,
                "candidates": chance.sample(on_sale, min(_LIST_LENGTH, len(on_sale))),
                "k": 5,
            }
            yield {
                "task": "explanation",
                **about,
                "item_id": last.item_id,
                "feature": chance.choice(TOPICS),
                "star_rating": stars,
            }
