"""Examples in the OpenAPI document: bodies for the demonstration's bundle, and what it answers to the first of each.

The bundle `summer` in the examples of /admin is the demonstration's again, with another hash. Tests send all bodies and
compare the answers.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Examples: TypeAlias = list[Any]

DEMONSTRATION = "c576e92499f163a307e4d19e2a1632ae9599b3e7879f5a573286d3af198eb784"
SUMMER = "7fa70df1cad3b8324218a531f6b060f81eb1ea97541481bc3078dced9b8c4fac"
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
EXPLANATION: Examples = [
    {**ASK, "item_id": "toy-0012", "feature": "colour", "star_rating": 5},
    {**ASK, "item_id": "toy-0012", "feature": "colour", "star_rating": 5, "stream": True},
]

LOAD: Examples = [{"bundle": "summer"}]
SWAP: Examples = [{"expected": VERSION}]
CANARY: Examples = [{"version": VERSION, "share": 0.1}]
SHADOW: Examples = [{"version": VERSION}]
CATALOG: Examples = [
    {"deactivate": ["toy-0001"], "set": {"toy-0002": {"price": 9.5}}},
    {"add": [{"item_id": "toy-0217", "index": "217", "title": "Ribas kite", "category": "vehicles"}]},
]
FEATURES: Examples = [{"features": {"toy-0001": [0.1] * 48}}]

_SERVED = {"domain": "toys", "bundle": DEMONSTRATION, "catalog_revision": 0, "request_id": REQUEST_ID}
RANKING_ANSWER: dict[str, Any] = {
    "items": [
        {
            "rank": 1,
            "item_id": "toy-0012",
            "score": -2.906923770904541,
            "title": "Ribas boat",
            "image": "toys/toy-0012.webp",
            "attributes": {
                "category": "vehicles",
                "kind": "boat",
                "colour": "green",
                "pattern": "striped",
                "style": "modern",
                "range": "regular",
                "price": 18.77,
                "tags": ["bath", "summer"],
            },
        },
        {
            "rank": 2,
            "item_id": "toy-0187",
            "score": -3.0395925045013428,
            "title": "Matis rocket",
            "image": "toys/toy-0187.webp",
            "attributes": {
                "category": "space",
                "kind": "rocket",
                "colour": "green",
                "pattern": "plain",
                "style": "modern",
                "range": "regular",
                "price": 24.08,
                "tags": ["night"],
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
    "text": "the green is nice, though a bit pale",
    "star_rating": None,
    "template": "C-11",
    "finish_reason": "stop",
    "degraded": [],
    **_SERVED,
}
TOKEN_EVENT = {"event": "token", "data": '{"text":"the"}'}
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
    return {"name": name, "catalog_revision": 0, "versions": [*versions], "canary": None, "is_loading": False}


ADMIN_DOMAIN_ANSWER: dict[str, Any] = _admin_domain(
    "toys", _version("toys", "stable", DEMONSTRATION, None, 1), _version("toys", "loaded", SUMMER, "summer", 2)
)
ADMIN_DOMAINS_ANSWER: dict[str, Any] = {
    "domains": [_admin_domain("garments", _version("garments", "stable", DEMONSTRATION, None, 0)), ADMIN_DOMAIN_ANSWER],
    "journal": {"kind": "file", "problems": [], "is_broken": False, "num_unread": 0},
    "num_slots": 3,
}
CATALOG_ANSWER: dict[str, Any] = {"domain": "toys", "catalog_revision": 1}
DRAIN_ANSWER: dict[str, Any] = {"status": "draining"}
