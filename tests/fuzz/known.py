"""Puts what a service knows into random requests, so that they reach the engine and change what is served.

What is put where follows from the random request alone, so that a request can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from model.prompts.templates import TEMPLATES

Body = dict[str, Any]

DOMAIN = "toys"
BUNDLES = ("bundle", "summer")
"""Names of folders in the bundles root."""
NUM_ITEMS = 40
FEATURE_DIM = 8
NUM_NEW = 60
"""Items that changes may add, so that the catalog stays small."""
COLUMNS: dict[str, Sequence[object]] = {
    "title": ("toy", "", "тоy", None, "x" * 300),
    "image": ("new.png", None),
    "category": ("games", "dolls", "", None),
    "price": (0, 1.5, -1e300, None),
    "tags": (["new"], [], ["red", "red"], None),
}


USERS = tuple(f"u{number}" for number in range(1, 10))
ATTRIBUTES: dict[str, Sequence[object]] = {
    "category": ("games", "dolls"),
    "tags": ("new", "red"),
    "price": (0.25, 2, 5),
}
"""Columns to filter and boost by, with values that some items have."""


def name_what_is_known(body: Body, domain: str, item_ids: list[str]) -> None:
    """Put names that the bundle knows beside random ones, so that the request reaches the engine."""
    body["domain"] = domain
    for name in ("history", "candidates", "include_items"):
        if isinstance(body.get(name), list):
            body[name] = [*body[name][:50], *item_ids[:2]]
    if "item_id" in body:
        body["item_id"] = item_ids[2]
    if "template" in body and body["template"] not in TEMPLATES:
        del body["template"]
    if body.get("deadline_ms") is not None:
        body["deadline_ms"] = 60_000  # a short one may rightly pass
    if isinstance(body.get("where"), dict):
        body["where"] = {"category": "games"}


TAKE_LISTS = {"post_events"}


def complete(operation: str, body: object) -> None:
    """Change a random body of this operation into one that the service can mostly carry out."""
    takes = dict | list if operation in TAKE_LISTS else dict
    if operation in _COMPLETIONS and isinstance(body, takes):
        _COMPLETIONS[operation](body, Random(json.dumps(body, sort_keys=True, default=str)))


def complete_path(places: Body, query: Body, chance: Random) -> None:
    """Name what the service knows in parameters of the path, and of the query."""
    found = {"name": DOMAIN, "user_id": chance.choice(USERS), "item_id": chance.choice(_items(chance, 1))}
    places |= {name: found[name] for name in places if name in found}
    if "column" in query:
        query["column"] = chance.choice(sorted(COLUMNS))


def _question(body: Body, chance: Random) -> None:
    name_what_is_known(body, DOMAIN, _items(chance, 3))
    if "user_id" in body or body.get("rotate") is not None:
        body["user_id"] = chance.choice(USERS)
    if isinstance(body.get("boost"), dict):
        body["boost"] = _factors(body["boost"], chance)
    if isinstance(body.get("max_per"), dict):
        body["max_per"] = {name: chance.randrange(1, 4) for name in _some(ATTRIBUTES, chance)}
    if isinstance(body.get("mask_images"), list):
        body["mask_images"] = _items(chance, 2)
    if body.get("role") == "canary":
        del body["role"]


def _sequel(body: Body, chance: Random) -> None:
    """A question after a history, which is the user's stored one in a third of the questions."""
    if body.get("user_id") is None or chance.random() < 0.7:
        body.setdefault("history", _items(chance, 3))
    _question(body, chance)


def _sequels(body: Body, chance: Random) -> None:
    if isinstance(body.get("requests"), list):
        for each in body["requests"]:
            if isinstance(each, dict) and chance.random() < 0.8:
                _sequel(each, chance)


def _questions(body: Body, chance: Random) -> None:
    if isinstance(body.get("requests"), list):
        for each in body["requests"]:
            if isinstance(each, dict) and chance.random() < 0.8:
                _question(each, chance)


def _events(body: Body | list[Body], chance: Random) -> None:
    for each in body if isinstance(body, list) else [body]:
        if isinstance(each, dict):
            each |= {"domain": DOMAIN, "user_id": chance.choice(USERS), "item_id": _items(chance, 1)[0]}


def _boosts(body: Body, chance: Random) -> None:
    _condition(body, chance)
    body |= _factors(body, chance)


def _factors(found: Body, chance: Random) -> Body:
    """Factors for what items have, from 0.01 to 100 or as they were found."""
    columns = found.get("columns")
    inner = [each for each in columns.values() if isinstance(each, dict)] if isinstance(columns, dict) else []
    numbers = [number for each in inner for number in each.values()] or [0.01, 0.5, 1, 2, 100]
    chosen = {name: str(chance.choice(ATTRIBUTES[name])) for name in _some(ATTRIBUTES, chance)}
    by_value = {name: {value: chance.choice(numbers)} for name, value in chosen.items()}
    return {"columns": by_value, "items": {item: chance.choice(numbers) for item in _items(chance, 2)}}


def _catalog(body: Body, chance: Random) -> None:
    _condition(body, chance)
    items = _items(chance, 8)
    parts: dict[str, object] = {
        "deactivate": items[:3],
        "activate": items[3:6],
        "set": {items[6]: {name: chance.choice(COLUMNS[name]) for name in _some(COLUMNS, chance)}},
        "add": [_new_item(chance)],
    }
    for name in parts:
        body.pop(name, None)
    body |= {name: parts[name] for name in _some(parts, chance)}


def _features(body: Body, chance: Random) -> None:
    _condition(body, chance)
    found = body.get("features")
    rows = list(found.values()) if isinstance(found, dict) else []
    numbers = [number for row in rows if isinstance(row, list) for number in row] or [0.0]
    body["features"] = {item: [chance.choice(numbers) for _ in range(FEATURE_DIM)] for item in _items(chance, 3)}


def _load(body: Body, chance: Random) -> None:
    body["bundle"] = chance.choice(BUNDLES)
    body["domain"] = chance.choice((DOMAIN, DOMAIN, None))


def _swap(body: Body, chance: Random) -> None:
    """Mostly swap to the loaded version, whose name is not known here."""
    if chance.random() < 0.5:
        body.pop("version", None)
    body.pop("expected", None)


def _condition(body: Body, chance: Random) -> None:
    if chance.random() < 0.9:
        body.pop("expected_revision", None)
    if chance.random() < 0.5:
        body.pop("idempotency_key", None)


def _new_item(chance: Random) -> Body:
    number = NUM_ITEMS + 1 + chance.randrange(NUM_NEW)
    cells = {name: chance.choice(COLUMNS[name]) for name in _some(COLUMNS, chance)}
    return {"item_id": f"item-{number}", "index": str(number)} | cells


def _items(chance: Random, count: int) -> list[str]:
    return [f"item-{number}" for number in chance.sample(range(1, NUM_ITEMS + 1), count)]


def _some(names: object, chance: Random) -> list[str]:
    """At least one of the names."""
    found = sorted(names)  # type: ignore[call-overload]
    return chance.sample(found, chance.randrange(1, len(found) + 1))


_COMPLETIONS: dict[str, Callable[[Any, Random], None]] = {
    "recommend_sequential": _sequel,
    "recommend_direct": _question,
    "recommend_sequential_batch": _sequels,
    "recommend_direct_batch": _questions,
    "explain": _question,
    "post_events": _events,
    "put_boosts": _boosts,
    "change_catalog": _catalog,
    "put_features": _features,
    "load_version": _load,
    "swap_versions": _swap,
}
COMPLETED = set(_COMPLETIONS)
"""Operations whose bodies `complete` changes."""
