"""Whatever is wrong with a request is told in a problem document that names the value, the rule and the remedy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.service.workers import states_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
SEQUENTIAL = "/recommend/sequential"
DIRECT = "/recommend/direct"
EXPLAIN = "/explain"
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"]}
RANK: dict[str, Any] = {"domain": "toys", "candidates": ["item-1"]}
TELL: dict[str, Any] = {"domain": "toys", "item_id": "item-1"}


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:vip5:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["retryable"] is (status in {429, 503, 504})
    return problem


@pytest.mark.parametrize(
    ("path", "body", "code", "field", "detail"),
    [
        (
            SEQUENTIAL,
            ASK | {"domain": "books"},
            "unknown_domain",
            "domain",
            "'books' is not served; served domains: toys, words",
        ),
        (DIRECT, RANK | {"domain": "books"}, "unknown_domain", "domain", "'books' is not served"),
        (EXPLAIN, TELL | {"domain": "books"}, "unknown_domain", "domain", "'books' is not served"),
        (EXPLAIN, TELL | {"item_id": "item-0"}, "unknown_item", "item_id", "'item-0' is not in the catalog of toys"),
        (
            SEQUENTIAL,
            ASK | {"template": "Z-9"},
            "unknown_template",
            "template",
            "'Z-9' is not one of the sequential templates: A-1",
        ),
        (SEQUENTIAL, ASK | {"template": "B-5"}, "unknown_template", "template", "'B-5' is not one of the sequential"),
        (DIRECT, RANK | {"template": "A-1"}, "unknown_template", "template", "'A-1' is not one of the direct"),
        (EXPLAIN, TELL | {"template": "A-1"}, "unknown_template", "template", "'A-1' is not one of the explanation"),
    ],
)
async def test_unknown_names_are_not_found(
    shared_client: httpx.AsyncClient, path: str, body: dict[str, Any], code: str, field: str, detail: str
) -> None:
    problem = check_problem(await shared_client.post(path, json=body), 404, code)

    assert detail in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "body", "code", "field", "detail"),
    [
        (
            SEQUENTIAL,
            ASK | {"where": {"colour": "red"}},
            "unknown_column",
            "where.colour",
            "no column 'colour' to filter by; choose from: category, price, tags",
        ),
        (
            SEQUENTIAL,
            ASK | {"where": {"price": "red"}},
            "invalid_input",
            "where.price",
            "'red' has the wrong type; the column has numbers",
        ),
        (
            SEQUENTIAL,
            ASK | {"history": ["item-0", "x"]},
            "invalid_input",
            "history",
            "none of the 2 items of the history is in the catalog of toys",
        ),
        (
            SEQUENTIAL,
            ASK | {"history": ["item-1"] * 31},
            "invalid_input",
            "history",
            "history has 31 items, the limit is 30",
        ),
        (SEQUENTIAL, ASK | {"include_items": ["x"]}, "invalid_input", "include_items", "none of the 1 include_items"),
        (
            SEQUENTIAL,
            ASK | {"include_items": ["item-1"] * 41},
            "invalid_input",
            "include_items",
            "has 41 items, the limit is 40",
        ),
        (
            SEQUENTIAL,
            ASK | {"template": "A-7"},
            "invalid_input",
            "include_items",
            "A-7 asks yes or no about each of include_items",
        ),
        (SEQUENTIAL, ASK | {"k": 5, "num_beams": 4}, "invalid_input", "num_beams", "num_beams is 4, k is 5"),
        (
            DIRECT,
            RANK | {"candidates": ["item-1"] * 41},
            "invalid_input",
            "candidates",
            "has 41 items, the limit is 40",
        ),
        (DIRECT, RANK | {"candidates": ["x"]}, "invalid_input", "candidates", "none of the 1 candidates"),
        (
            DIRECT,
            {"domain": "toys", "template": "B-1"},
            "invalid_input",
            "candidates",
            "B-1 asks yes or no about each candidate",
        ),
        (EXPLAIN, TELL | {"template": "C-9"}, "invalid_input", "feature", "template C-9 needs feature"),
        (EXPLAIN, TELL | {"template": "C-3"}, "invalid_input", "star_rating", "template C-3 needs star_rating"),
        (EXPLAIN, TELL | {"template": "C-2"}, "invalid_input", "review_headline", "template C-2 needs review_headline"),
    ],
)
async def test_requests_that_cannot_be_answered_are_refused(
    shared_client: httpx.AsyncClient, path: str, body: dict[str, Any], code: str, field: str, detail: str
) -> None:
    problem = check_problem(await shared_client.post(path, json=body), 422, code)

    assert detail in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "body", "field", "rule", "message"),
    [
        (SEQUENTIAL, {"history": ["item-1"]}, "domain", "missing", "Field required"),
        (SEQUENTIAL, {"domain": "toys"}, "history", "missing", "Field required"),
        (SEQUENTIAL, ASK | {"history": []}, "history", "too_short", "at least 1 item"),
        (SEQUENTIAL, ASK | {"history": ["item-1"] * 10_001}, "history", "too_long", "at most 10000 items"),
        (SEQUENTIAL, ASK | {"history": "item-1"}, "history", "list_type", "valid list; got 'item-1'"),
        (SEQUENTIAL, ASK | {"history": [1]}, "history.0", "string_type", "valid string; got 1"),
        (SEQUENTIAL, ASK | {"history": ["item-1", None]}, "history.1", "string_type", "valid string"),
        (SEQUENTIAL, ASK | {"history": [""]}, "history.0", "string_too_short", "at least 1 character"),
        (
            SEQUENTIAL,
            ASK | {"history": ["x" * 257]},
            "history.0",
            "string_too_long",
            "at most 256 characters; got 'xxx",
        ),
        (SEQUENTIAL, ASK | {"history": ["\ud800"]}, "history.0", "string_unicode", "unicode"),
        (SEQUENTIAL, ASK | {"k": 0}, "k", "greater_than_equal", "greater than or equal to 1; got 0"),
        (SEQUENTIAL, ASK | {"k": 101}, "k", "less_than_equal", "less than or equal to 100; got 101"),
        (SEQUENTIAL, ASK | {"k": "10"}, "k", "int_type", "valid integer; got '10'"),
        (SEQUENTIAL, ASK | {"k": True}, "k", "int_type", "valid integer; got True"),
        (SEQUENTIAL, ASK | {"num_beams": 0}, "num_beams", "greater_than_equal", "got 0"),
        (
            SEQUENTIAL,
            ASK | {"num_beams": 257},
            "num_beams",
            "less_than_equal",
            "less than or equal to 256; got 257",
        ),
        (
            SEQUENTIAL,
            ASK | {"length_penalty": -1},
            "length_penalty",
            "greater_than_equal",
            "greater than or equal to 0",
        ),
        (
            SEQUENTIAL,
            ASK | {"exactness": "best"},
            "exactness",
            "literal_error",
            "'beam' or 'certified'; got 'best'",
        ),
        (SEQUENTIAL, ASK | {"deadline_ms": 0}, "deadline_ms", "greater_than_equal", "got 0"),
        (SEQUENTIAL, ASK | {"colour": 1}, "colour", "extra_forbidden", "Extra inputs are not permitted; got 1"),
        (
            SEQUENTIAL,
            ASK | {"where": {"price": None}},
            "where.price",
            "value_error",
            "a value must be true, false, a string",
        ),
        (SEQUENTIAL, ASK | {"where": {"price": [[]]}}, "where.price", "value_error", "a value must be"),
        (
            SEQUENTIAL,
            ASK | {"where": {"tags": [1] * 1001}},
            "where.tags",
            "value_error",
            "at most 1000 values, not 1001",
        ),
        (SEQUENTIAL, ASK | {"where": {"tags": "\ud800"}}, "where.tags", "value_error", "a value must be"),
        (SEQUENTIAL, ASK | {"where": {"price": 2**63}}, "where.price", "value_error", "finite 64-bit number"),
        (SEQUENTIAL, ASK | {"where": {f"c{n}": 1 for n in range(33)}}, "where", "too_long", "at most 32 items"),
        (DIRECT, RANK | {"candidates": []}, "candidates", "too_short", "at least 1 item"),
        (DIRECT, RANK | {"history": ["item-1"]}, "history", "extra_forbidden", "not permitted"),
        (EXPLAIN, TELL | {"max_new_tokens": 0}, "max_new_tokens", "greater_than_equal", "got 0"),
        (EXPLAIN, TELL | {"max_new_tokens": 513}, "max_new_tokens", "less_than_equal", "512; got 513"),
        (EXPLAIN, TELL | {"star_rating": 6}, "star_rating", "less_than_equal", "5; got 6"),
        (EXPLAIN, TELL | {"top_p": 0}, "top_p", "greater_than", "greater than 0; got 0"),
        (EXPLAIN, TELL | {"temperature": -0.1}, "temperature", "greater_than_equal", "got -0.1"),
        (EXPLAIN, TELL | {"seed": -1}, "seed", "greater_than_equal", "got -1"),
        (EXPLAIN, TELL | {"feature": "x" * 513}, "feature", "string_too_long", "at most 512 characters"),
        (EXPLAIN, TELL | {"stream": "yes"}, "stream", "bool_type", "valid boolean; got 'yes'"),
    ],
)
async def test_fields_out_of_bounds_are_refused_with_their_name(  # noqa: PLR0917  # columns of the table above
    shared_app: FastAPI,
    shared_client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    field: str,
    rule: str,
    message: str,
) -> None:
    for state in states_of(shared_app):
        monkeypatch.setattr(state, "max_body_bytes", 1_000_000)

    response = await shared_client.post(path, content=json.dumps(body), headers=JSON)

    problem = check_problem(response, 422, "invalid_input")
    assert [(error["field"], error["code"]) for error in problem["errors"]] == [(field, rule)]
    assert message in problem["errors"][0]["message"]
    assert problem["detail"] == f"{field}: {problem['errors'][0]['message']}"


async def test_all_faults_are_told_at_once(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.post(SEQUENTIAL, json={"history": 1, "k": 0, "num_beams": 0, "colour": 1})

    problem = check_problem(response, 422, "invalid_input")
    assert {error["field"] for error in problem["errors"]} == {"domain", "history", "k", "num_beams", "colour"}
    assert problem["detail"].endswith("; and 2 more")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (SEQUENTIAL, '{"domain": "toys", "history": ["item-1"], "length_penalty": %s}', "length_penalty"),
        (SEQUENTIAL, '{"domain": "toys", "history": ["item-1"], "where": {"price": %s}}', "where.price"),
        (EXPLAIN, '{"domain": "toys", "item_id": "item-1", "temperature": %s}', "temperature"),
        (EXPLAIN, '{"domain": "toys", "item_id": "item-1", "top_p": %s}', "top_p"),
    ],
)
async def test_numbers_that_are_not_finite_are_refused(
    shared_client: httpx.AsyncClient, path: str, body: str, field: str, number: str
) -> None:
    problem = check_problem(await shared_client.post(path, content=body % number, headers=JSON), 422, "invalid_input")

    assert {error["field"] for error in problem["errors"]} == {field}


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"domain": ', "the body is not JSON: Expecting value at character 11"),
        (b"\xff\xfe{", "could not be read as JSON; send one JSON object in UTF-8"),
        (b"[" * 3_000, "could not be read as JSON: it is nested too deeply"),
        (b"1" * 3_900, "valid dictionary"),
    ],
    ids=["broken", "not UTF-8", "nested too deeply", "a number"],
)
async def test_a_body_that_is_no_json_object_is_refused(
    shared_client: httpx.AsyncClient, content: bytes, detail: str
) -> None:
    response = await shared_client.post(SEQUENTIAL, content=content, headers=JSON)

    assert response.status_code in {400, 422}
    problem = check_problem(
        response, response.status_code, "malformed_body" if response.status_code == 400 else "invalid_input"
    )
    assert detail in problem["detail"]


@pytest.mark.parametrize("content", [b'{"k": %b}', b"-%b", b'{"where": {"price": [0, %b]}}'])
async def test_an_integer_that_python_does_not_read_is_named_as_the_reason(
    shared_app: FastAPI, shared_client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    for state in states_of(shared_app):
        monkeypatch.setattr(state, "max_body_bytes", 10_000)
    response = await shared_client.post(SEQUENTIAL, content=content % (b"9" * 4_301), headers=JSON)

    problem = check_problem(response, 400, "malformed_body")
    assert problem["detail"] == (
        "the body could not be read as JSON: an integer has more than 4300 digits; send a smaller number"
    )


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
async def test_another_content_type_is_refused(shared_client: httpx.AsyncClient, content_type: str) -> None:
    response = await shared_client.post(SEQUENTIAL, content=json.dumps(ASK), headers={"Content-Type": content_type})

    problem = check_problem(response, 415, "unsupported_media_type")
    assert problem["detail"] == f"the Content-Type is {content_type!r}; send JSON as application/json"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"])
async def test_json_by_any_of_its_names_is_read(shared_client: httpx.AsyncClient, content_type: str) -> None:
    response = await shared_client.post(SEQUENTIAL, content=json.dumps(ASK), headers={"Content-Type": content_type})

    assert response.status_code == 200


async def test_a_body_that_says_to_be_too_long_is_refused(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.post(SEQUENTIAL, content=b" " * 4_001, headers=JSON)

    problem = check_problem(response, 413, "body_too_large")
    assert problem["detail"] == "the body has 4001 bytes, the limit is 4000; send less"


async def test_a_body_that_grows_too_long_is_refused(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.post(SEQUENTIAL, content=_endless(), headers=JSON)

    problem = check_problem(response, 413, "body_too_large")
    assert problem["detail"] == "the body exceeds the limit of 4000 bytes; send less"


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 1_000


async def test_an_unknown_path_is_not_found(shared_client: httpx.AsyncClient) -> None:
    problem = check_problem(await shared_client.get("/recommend"), 404, "unknown_route")

    assert "'/recommend'" in problem["detail"]


async def test_another_method_is_refused_with_the_ones_allowed(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.get(SEQUENTIAL)

    problem = check_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
    assert problem["detail"] == "/recommend/sequential does not support GET; use POST"


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=201", "limit"), ("limit=0", "limit"), ("offset=-1", "offset"), ("offset=x", "offset"), ("page=2", "page")],
)
async def test_a_page_out_of_bounds_is_refused(shared_client: httpx.AsyncClient, query: str, field: str) -> None:
    problem = check_problem(await shared_client.get(f"/domains/toys/items?{query}"), 422, "invalid_input")

    assert [error["field"] for error in problem["errors"]] == [field]
