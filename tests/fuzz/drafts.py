"""Random requests to an operation: schemathesis makes some from the document, which are then varied cheaply.

A request of schemathesis costs 5 to 15 ms of processor time, one that is varied a tenth of a millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast
from urllib.parse import quote, urlencode

import hypothesis
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.fuzz.known import complete, complete_path
from tests.fuzz.mutation import mutated

NO_BODY: Any = type("NO_BODY", (), {})
"""A class, because copies of classes are the same."""
NUMBERS = (0, -0.0, 1, -1, 1.5, 1e-320, 1e308, -1e308, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30)
TEXTS = (
    *("", " ", "0", "toys", "item-1", "u1", "price", "category", "\x00", "\ud800", "\U0001f600" * 40, "x" * 700),
    *("../../etc/passwd", "%2e%2e%2f", "a\nb: c", "{}", "$ref", "__proto__", "İ" * 90, "\u202e\u0301" * 30),
)
SHAPES: tuple[Any, ...] = (True, False, None, [], {}, [[]], [None], {"": ""}, [{}] * 40, ["item-1"] * 900)
VALUES: tuple[Any, ...] = (*NUMBERS, *TEXTS, *SHAPES)
HEADERS: tuple[tuple[str, str], ...] = (
    *(("If-Match", each) for each in ("*", '"0"', '"1"', 'W/"0"', "0", '"' * 60, "x" * 65)),
    *(("If-None-Match", each) for each in ("*", '"0"')),
    *(("Range", each) for each in ("bytes=0-1", "bytes=-0", "bytes=5-1", "bytes=0-0,1-1,2-2", "items=1-2")),
    ("Range", "bytes=9" * 99),
    ("If-Range", '"x"'),
    ("X-Forwarded-For", "1.2.3.4, ::1"),
    ("X-Forwarded-Host", "elsewhere.example"),
    ("X-Request-ID", "x" * 300),
    ("traceparent", "00-" + "0" * 32 + "-" + "f" * 16 + "-01"),
    ("Origin", "https://elsewhere.example"),
    ("Accept", "text/event-stream"),
    ("Accept-Encoding", "gzip, br;q=0"),
    ("Content-Encoding", "gzip"),
    ("Expect", "100-continue"),
)
CREDENTIALS = {"Authorization", "X-API-Key"}
ABSENT = ("", "Bearer", "Bearer x", "Basic eDp5", "Bearer " + "x" * 5_000)
"""Credentials that nobody has."""


@dataclass(frozen=True)
class Draft:
    """A request before it is sent. A text as body stands for JSON; bytes are sent as they are."""

    operation: str
    method: str
    path: str
    places: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = NO_BODY

    @property
    def target(self) -> str:
        """Path and query as they are sent."""
        path = self.path
        for name, value in self.places.items():
            path = path.replace(f"{{{name}}}", quote(str(value), safe="", errors="replace") or "%20")
        pairs = [(name, value) for name, value in self.query.items() if value is not None]
        return f"{path}?{urlencode(pairs, doseq=True, errors='replace')}" if pairs else path

    @property
    def content(self) -> bytes | None:
        if self.body is NO_BODY:
            return None
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def drafts_of(operation: APIOperation[Any, Any, Any, Any], seed: int, count: int) -> list[Draft]:
    """Requests of schemathesis: half of them keep the document's rules, the others break some or not."""
    found: list[Draft] = []
    name = str(operation.definition.raw["operationId"])

    def keep(case: Any) -> None:  # noqa: ANN401  # a case of any transport
        query = case.query if isinstance(case.query, dict) else {}
        places = {key: str(value) for key, value in (case.path_parameters or {}).items()}
        headers = {key: value for key, value in (case.headers or {}).items() if isinstance(value, str)}
        draft = Draft(name, operation.method.upper(), operation.path, places, dict(query), _sendable(headers))
        if operation.body and _is_json(case.body):
            draft = replace(draft, body=deepcopy(case.body))
        found.append(draft)

    _draw(operation, keep, seed, count // 2, {"generation_mode": GenerationMode.POSITIVE})
    _draw(operation, keep, seed, count - count // 2, {})
    return found or [Draft(name, operation.method.upper(), operation.path)]


def varied(drafts: Sequence[Draft], chance: Random, *, is_named: bool = True) -> Draft:
    """One of the requests, with parts of others and values that matter; with `is_named`, it may name what is served."""
    draft = chance.choice(drafts)
    places, query, body = dict(draft.places), dict(draft.query), deepcopy(draft.body)
    other = chance.choice(drafts)
    if chance.random() < 0.5:
        _cross(query, other.query, chance)
        _cross(places, other.places, chance)
        body = _crossed(body, other.body, chance)
    is_complete = is_named and chance.random() < 0.7
    if is_complete:
        complete_path(places, query, chance)
        complete(draft.operation, body)
    if chance.random() < 0.4:
        body = _changed(body, chance)
        if query:
            query[chance.choice(sorted(query))] = chance.choice((*NUMBERS, *TEXTS))
    if body is not NO_BODY and chance.random() < 0.03:
        body = mutated(json.dumps(body).encode(), chance)
    headers = dict(draft.headers)
    while chance.random() < 0.15:
        headers |= [chance.choice(HEADERS)]
    return replace(draft, places=places, query=query, headers=headers, body=body)


def _cross(ours: dict[str, Any], theirs: Mapping[str, Any], chance: Random) -> None:
    for name in theirs:
        if chance.random() < 0.3:
            ours[name] = theirs[name]


def _crossed(body: Any, other: Any, chance: Random) -> Any:  # noqa: ANN401  # JSON
    if isinstance(body, dict) and isinstance(other, dict):
        _cross(body, deepcopy(other), chance)
    elif isinstance(body, list) and isinstance(other, list):
        return [*body, *deepcopy(other)][:1_000]
    return body


def _changed(body: Any, chance: Random) -> Any:  # noqa: ANN401  # JSON
    """The body with one value replaced, repeated, dropped or added, at a random place."""
    if not isinstance(body, dict | list) or not body or chance.random() < 0.02:
        return body if body is NO_BODY else chance.choice(VALUES)
    place: Any = body
    while True:
        key: Any = chance.choice(sorted(place)) if isinstance(place, dict) else chance.randrange(len(place))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.7:
            place = inner
            continue
        break
    match chance.randrange(6):
        case 0:
            del place[key]
        case 1 if isinstance(inner, list) and inner:
            place[key] = (inner * 1_000)[: chance.choice((2, 33, 257, 1_001))]
        case 2 if isinstance(place, dict):
            place[chance.choice(TEXTS)] = inner
        case _:
            place[key] = deepcopy(chance.choice(VALUES))
    return body


def _draw(
    operation: APIOperation[Any, Any, Any, Any],
    keep: Callable[[Any], None],
    seed: int,
    count: int,
    modes: Mapping[str, GenerationMode],
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(count, 1),
        phases=[hypothesis.Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(**cast("Mapping[str, Any]", modes)))
    def draw(case: Any) -> None:  # noqa: ANN401
        keep(case)

    draw()


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that a client can send, without credentials."""

    def is_sendable(name: str, value: str) -> bool:
        return (name + value).isascii() and value.isprintable() and name.replace("-", "").isalnum()

    return {name: value for name, value in headers.items() if name not in CREDENTIALS and is_sendable(name, value)}


def _is_json(body: object) -> bool:
    try:
        json.dumps(body)
    except (TypeError, ValueError):
        return False
    return True
