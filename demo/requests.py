"""Requests to try on the demonstration: bodies as HTTP takes them, with `task` naming the route."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from demo.designs import Item
from demo.people import Person

Body = dict[str, str | int | list[str] | dict[str, str]]

_LIST_LENGTH = 20
_EVERY = 20  # of the people, one in so many also gets a list and an explanation


def make_requests(domain: str, items: Sequence[Item], people: Sequence[Person]) -> Iterator[Body]:
    """The next item for everyone, of their favourite colour for some, and for a few the other tasks."""
    chance = random.Random(domain)
    item_ids = [item.item_id for item in items]
    colour_of = {item.item_id: item.design.colour for item in items}
    for number, person in enumerate(people):
        about = {"domain": domain, "user_id": person.user_id}
        yield {"task": "sequential", **about, "history": list(person.history)}
        if number % _EVERY == 0:
            last_colour = colour_of[person.history[-1]]
            yield {"task": "sequential", **about, "history": list(person.history), "where": {"colour": last_colour}}
            yield {"task": "direct", **about, "candidates": chance.sample(item_ids, _LIST_LENGTH), "k": 5}
            yield {"task": "explanation", **about, "item_id": person.history[-1], "max_new_tokens": 12}
