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


def complete(operation: str, body: object) -> None:
    """Change a random body of this operation into one that the service can mostly carry out."""
    if operation in _COMPLETIONS and isinstance(body, dict):
        _COMPLETIONS[operation](body, Random(json.dumps(body, sort_keys=True, default=str)))


def _question(body: Body, chance: Random) -> None:
    name_what_is_known(body, DOMAIN, _items(chance, 3))


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


_COMPLETIONS: dict[str, Callable[[Body, Random], None]] = {
    "recommend_sequential": _question,
    "recommend_direct": _question,
    "explain": _question,
    "change_catalog": _catalog,
    "put_features": _features,
    "load_version": _load,
    "swap_versions": _swap,
}
