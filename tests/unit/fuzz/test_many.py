"""The fuzzing of requests forgets no route, makes the same requests again, and sees an answer that must not be."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.drafts import NO_BODY, Draft, varied
from tests.fuzz.following import next_of
from tests.fuzz.known import COMPLETED
from tests.fuzz.links import LINKS
from tests.fuzz.many import operations_of
from tests.fuzz.replies import Document, is_server_error

RECORDED = Path(__file__).parents[2] / "service" / "contract" / "openapi.json"
"""Of the public port and of the administrators', which the documents of the app are compared with."""
AS_THEY_COME = {"set_canary", "set_shadow", "resolve_journal"}
"""Bodies that a version of a moment ago, or nothing, has to be put into."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Both documents as one, as a service without a port for administrators has it."""
    both: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text())
    public, admin = both["public"], both["admin"]
    schemas = public["components"]["schemas"] | admin["components"]["schemas"]
    return {**public, "paths": public["paths"] | admin["paths"], "components": {"schemas": schemas}}


def test_every_route_of_the_documents_is_fuzzed(document: dict[str, Any]) -> None:
    methods = [each for path in document["paths"].values() for each in path.values() if isinstance(each, dict)]
    assert set(operations_of(document)) == {each["operationId"] for each in methods}
    assert len(operations_of(document)) == len(methods) >= 38


def test_every_body_can_name_what_is_served(document: dict[str, Any]) -> None:
    has_body = {name for name, each in Document(document).operations.items() if "requestBody" in each}
    assert has_body == COMPLETED | AS_THEY_COME


def test_links_lead_from_and_to_routes_of_the_documents(document: dict[str, Any]) -> None:
    operations = operations_of(document)
    for source, target, places, body in LINKS:
        assert source in operations
        assert places.keys() >= set(operations[target].path.replace("}", "{").split("{")[1::2]), (source, target)
        assert bool(body) <= (operations[target].method in {"post", "put", "patch"}), (source, target)


def test_the_same_seed_gives_the_same_requests() -> None:
    event = {"domain": "x", "user_id": "y", "item_id": "z", "type": None}
    drafts = [
        Draft("post_events", "POST", "/events", {}, {}, {}, event),
        Draft("post_events", "POST", "/events", {}, {"q": "1"}, {"If-Match": "0"}, [{"domain": "a"}, 5, "ß\ud800"]),
        Draft("show_item", "GET", "/domains/{name}/items/{item_id}", {"name": "ä/b", "item_id": "%"}),
    ]

    def made(seed: int) -> list[tuple[str, bytes | None, dict[str, str]]]:
        chance = Random(seed)
        found = [varied(drafts, chance) for _ in range(500)]
        return [(each.target, each.content, dict(each.headers)) for each in found]

    assert made(1) == made(1) != made(2)
    assert all(target.isascii() and " " not in target and "{" not in target for target, _, _ in made(1))
    assert event == {"domain": "x", "user_id": "y", "item_id": "z", "type": None}
    assert drafts[2].body is NO_BODY


def test_a_link_takes_what_the_answer_brought() -> None:
    asked = Draft("show_history", "GET", "/domains/{name}/users/{user_id}/history", {"name": "toys", "user_id": "u7"})
    erasing = Draft("erase_history", "DELETE", asked.path, {"name": "other", "user_id": "other"})
    found = next_of(asked, b'{"events": []}', {"erase_history": [erasing]}, Random(1))
    assert found is not None
    assert found.places == {"name": "toys", "user_id": "u7"}
    assert next_of(asked, b"", {}, Random(1)) is None


def test_answers_are_held_to_the_document(document: dict[str, Any]) -> None:
    rules = Document(document)
    texts = dict.fromkeys(("type", "title", "detail", "code", "request_id"), "x")
    problem = json.dumps({**texts, "status": 404, "retryable": False}).encode()
    assert "not documented" in rules.fault_in("live", 201, "application/json", b"{}")
    assert "came as" in rules.fault_in("show_domain", 200, "text/html", b"<p>")
    assert "not as documented" in rules.fault_in("show_domain", 200, "application/json", b'{"name": 5}')
    assert "is no JSON" in rules.fault_in("show_domain", 404, "application/problem+json", b"{")
    assert rules.fault_in("show_domain", 404, "application/problem+json; charset=utf-8", problem) == ""
    assert not rules.admits("explain", {"domain": "toys"})
    assert rules.admits("explain", {"domain": "toys", "item_id": "item-1"})


def test_a_server_error_is_one_that_was_not_asked_for() -> None:
    assert is_server_error("explain", 500, b"")
    assert is_server_error("explain", 503, b'{"code": "overloaded"}')
    assert is_server_error("explain", 504, b"not a problem document")
    assert not is_server_error("explain", 504, b'{"code": "deadline_exceeded"}')
    assert not is_server_error("ready", 503, b"")
    assert not is_server_error("explain", 422, b"")
