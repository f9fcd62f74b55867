"""Examples in the OpenAPI document: bodies for the demonstration's bundle, and what it answers to the first of each.

The bundle `summer` in the examples of /admin is the demonstration's again, with another hash. Tests send all bodies and
compare the answers.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Examples: TypeAlias = list[Any]

DEMONSTRATION = "7bf77334591f389645f5d0bcf470bb00a556bf671acd8566b018ead29a3db727"
SUMMER = "754817585b62d1c45dcc2f4098db52f1bc74c6670fd58490f9da6adf33610470"
VERSION = f"{DEMONSTRATION[:12]}:toys"
REQUEST_ID = "3fef7fab56ab4e998cc9471f3781996f"

ASK: dict[str, Any] = {"domain": "toys", "user_id": "user-30001"}
SEQUENTIAL: Examples = [
    {**ASK, "history": ["toy-0152", "toy-0098", "toy-0025"], "k": 2},
    {
        "domain": "garments",
        "user_name": "Ada",
        "history": ["garment-0168", "garment-0110", "garment-0163"],
        "template": "A-4",
        "k": 2,
        "where": {"category": ["tops", "dresses"]},
        "exclude_items": ["garment-0135"],
        "exactness": "certified",
        "timings": True,
    },
]
CANDIDATES = ["toy-0198", "toy-0071", "toy-0012", "toy-0025"]
DIRECT: Examples = [
    {**ASK, "candidates": CANDIDATES, "k": 2},
    {**ASK, "candidates": CANDIDATES, "template": "B-1"},
]
SEQUENTIAL_BATCH: Examples = [{"requests": [SEQUENTIAL[0], {"domain": "books", "history": ["book-0001"]}]}]
DIRECT_BATCH: Examples = [{"requests": DIRECT}]
EXPLANATION: Examples = [
    {**ASK, "item_id": "toy-0012", "feature": "colour", "star_rating": 5},
    {**ASK, "item_id": "toy-0012", "feature": "colour", "star_rating": 5, "stream": True},
]

EVENT: dict[str, Any] = {
    "domain": "toys",
    "user_id": "user-30001",
    "item_id": "toy-0152",
    "type": "purchase",
    "event_id": "order-7301-1",
}
EVENTS: Examples = [
    EVENT,
    [
        {**EVENT, "item_id": "toy-0098", "timestamp": 1764000000.25, "event_id": "order-7288-1"},
        {"domain": "toys", "user_id": "user-30001", "item_id": "toy-0025"},
    ],
]
EVENTS_ANSWER: dict[str, Any] = {"stored": 1, "duplicates": 0, "too_old": 0, "unknown_items": []}
HISTORY_ANSWER: dict[str, Any] = {
    "domain": "toys",
    "user_id": "user-30001",
    "events": [
        {"item_id": "toy-0152", "type": "purchase", "timestamp": 1764000100.5, "event_id": "order-7301-1"},
    ],
    "unknown_items": [],
}
ERASURE_ANSWER: dict[str, Any] = {"erased_events": 1}

LOAD: Examples = [{"bundle": "summer"}]
SWAP: Examples = [{"expected": VERSION}]
CANARY: Examples = [{"version": VERSION, "share": 0.1}]
SHADOW: Examples = [{"version": VERSION}]
CATALOG: Examples = [
    {"deactivate": ["toy-0001"], "set": {"toy-0002": {"price": 9.5}}},
    {"add": [{"item_id": "toy-0217", "title": "Ribas kite", "category": "outdoor", "feature": [0.1] * 48}]},
]
BOOSTS: Examples = [{"columns": {"category": {"vehicles": 1.5}}, "items": {"toy-0012": 0.5}}]
FEATURES: Examples = [{"features": {"toy-0001": [0.1] * 48}}]

_SERVED = {"domain": "toys", "bundle": DEMONSTRATION, "catalog_revision": 0, "request_id": REQUEST_ID}
RANKING_ANSWER: dict[str, Any] = {
    "items": [
        {
            "rank": 1,
            "item_id": "toy-0001",
            "score": -4.396914482116699,
            "title": "Renon rocket",
            "image": "toys/toy-0001.webp",
            "attributes": {
                "category": "space",
                "kind": "rocket",
                "colour": "green",
                "pattern": "plain",
                "style": "retro",
                "range": "summer",
                "price": 18.07,
                "tags": ["night"],
            },
        },
        {
            "rank": 2,
            "item_id": "toy-0140",
            "score": -4.598334312438965,
            "title": "Kokun blocks",
            "image": "toys/toy-0140.webp",
            "attributes": {
                "category": "building",
                "kind": "blocks",
                "colour": "green",
                "pattern": "striped",
                "style": "retro",
                "range": "regular",
                "price": 23.2,
                "tags": ["toddler", "wood"],
            },
        },
    ],
    "exact_prefix": 2,
    "num_beams_effective": 20,
    "degraded": [],
    **_SERVED,
    "timings_ms": None,
}
EXPLANATION_ANSWER: dict[str, Any] = {
    "text": "i love the green colour of this blocks",
    "star_rating": None,
    "template": "C-11",
    "finish_reason": "stop",
    "degraded": [],
    **_SERVED,
}
TOKEN_EVENT = {"event": "token", "data": '{"text":"i"}'}
"""The first event of a stream."""
PROBLEM: dict[str, Any] = {
    "type": "urn:vip5:problem:unknown_domain",
    "title": "The domain is not served",
    "status": 404,
    "detail": "the domain 'books' is not served; served domains: garments, toys",
    "code": "unknown_domain",
    "request_id": REQUEST_ID,
    "retryable": False,
    "errors": [
        {
            "field": "domain",
            "message": "the domain 'books' is not served; served domains: garments, toys",
            "code": "unknown_domain",
        }
    ],
}
BATCH_ANSWER: dict[str, Any] = {
    "answers": [
        {**RANKING_ANSWER, "request_id": f"{REQUEST_ID}.0"},
        {**PROBLEM, "request_id": f"{REQUEST_ID}.1"},
    ]
}


def _domain(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "bundle": DEMONSTRATION,
        "catalog_revision": 0,
        "num_items": 216,
        "num_active_items": 144,
        "num_users": 5000,
        "roles": {"stable": f"{DEMONSTRATION[:12]}:{name}"},
        "columns": ["category", "kind", "colour", "pattern", "style", "range", "price", "tags"],
        "encoder": {"name": "demo-clip", "dim": 48},
        "visual_tokens": 2,
        "is_trained": True,
        "templates": {
            "sequential": [f"A-{number}" for number in range(1, 10)],
            "direct": [f"B-{number}" for number in range(1, 9)],
            "explanation": [f"C-{number}" for number in range(1, 13)],
        },
        "default_templates": {"sequential": "A-3", "direct": "B-5"},
    }


DOMAIN_ANSWER: dict[str, Any] = _domain("toys")
DOMAINS_ANSWER: dict[str, Any] = {"domains": [_domain("garments"), _domain("toys")]}
ITEM: dict[str, Any] = {
    "item_id": "toy-0001",
    "index": "105 116 136",
    "title": "Renon rocket",
    "image": "toys/toy-0001.webp",
    "is_active": True,
    "attributes": {
        "category": "space",
        "kind": "rocket",
        "colour": "green",
        "pattern": "plain",
        "style": "retro",
        "range": "summer",
        "price": 18.07,
        "tags": ["night"],
    },
}
ITEMS_ANSWER: dict[str, Any] = {"items": [ITEM], "total": 216, "offset": 0}
COLUMNS_ANSWER: dict[str, Any] = {
    "columns": [
        {
            "name": "range",
            "values": [
                {"value": "regular", "num_items": 72},
                {"value": "spring", "num_items": 72},
                {"value": "summer", "num_items": 72},
            ],
            "num_values": 3,
        }
    ]
}
USERS_ANSWER: dict[str, Any] = {"users": [{"user_id": "user-13001", "name": "Sami Dahl"}], "total": 5000, "offset": 0}
LIVE_ANSWER: dict[str, Any] = {"status": "live", "reasons": []}
READY_ANSWER: dict[str, Any] = {"status": "ready", "reasons": [], "degraded": []}


def _version(domain: str, role: str, bundle: str, bundle_name: str | None, slot: int) -> dict[str, Any]:
    return {
        "version": f"{bundle[:12]}:{domain}",
        "roles": [role],
        "bundle": bundle,
        "bundle_name": bundle_name,
        "domain": domain,
        "num_items": 216,
        "num_active_items": 144,
        "slot": slot,
        "num_requests": 0,
    }


def _admin_domain(name: str, *versions: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "catalog_revision": 0,
        "boosts": {"num_values": 0, "num_items": 0},
        "versions": [*versions],
        "canary": None,
        "is_loading": False,
    }


ADMIN_DOMAIN_ANSWER: dict[str, Any] = _admin_domain(
    "toys", _version("toys", "stable", DEMONSTRATION, None, 1), _version("toys", "loaded", SUMMER, "summer", 2)
)
ADMIN_DOMAINS_ANSWER: dict[str, Any] = {
    "domains": [_admin_domain("garments", _version("garments", "stable", DEMONSTRATION, None, 0)), ADMIN_DOMAIN_ANSWER],
    "journal": {"kind": "file", "problems": [], "is_broken": False, "num_unread": 0},
    "num_slots": 3,
}
CATALOG_ANSWER: dict[str, Any] = {"domain": "toys", "catalog_revision": 1}
BOOSTS_ANSWER: dict[str, Any] = {"domain": "toys", "catalog_revision": 2, **BOOSTS[0]}
DRAIN_ANSWER: dict[str, Any] = {"status": "draining"}
REPLICAS_ANSWER: dict[str, Any] = {
    "replicas": [
        {
            "id": "6d0f4d6f7c0d4f0d9a3b1f0b8a52c3de",
            "name": "shop-0:17",
            "host": "shop-0",
            "pid": 17,
            "release": "0.1.0",
            "started_at": "2026-11-29T08:00:00.000Z",
            "is_self": True,
            "state": "serving",
            "reason": None,
            "behind_since": None,
            "heartbeat_age_s": 0.0,
            "revisions": {"toys": 3},
        }
    ],
    "revisions": {"toys": 3},
    "lease_s": 10.0,
    "problem": None,
}
