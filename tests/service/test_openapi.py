"""The OpenAPI document is true: its examples work when pasted, and fuzzing it finds no fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import httpx
import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis import Case as AnyCase
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.python import asgi
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from model.bundle.catalog import Catalog
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from model.prompts.templates import TEMPLATES
from service.http.app import create_app
from service.settings import Settings
from tests.service.conftest import client_of
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_tokenizer

Case: TypeAlias = AnyCase[Any]
Operation: TypeAlias = APIOperation[Any, Any, Any, Any]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
]


@pytest.fixture(scope="module")
def demo_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose items and users are called as the demonstration's."""
    root = tmp_path_factory.mktemp("openapi") / "bundle"
    numbers = range(1, 41)
    items = [{"item_id": f"toy-{n:04d}", "index": str(n), "title": f"toy {n}", "category": "games"} for n in numbers]
    users = [{"user_id": f"user-{n:04d}", "index": str(n), "name": f"Ann {n}"} for n in numbers]
    spec = DomainSpec("toys", TINY_LAYOUT, "", encoder=ImageEncoder("vitb32", TINY_LAYOUT.feature_dim))
    with BundleWriter(root) as writer:
        writer.share_backbone(TINY_BACKBONE, random_tensors(expected_shapes(TINY_BACKBONE), 0), tiny_tokenizer())
        adapter = random_tensors(expected_domain_shapes(TINY_BACKBONE, TINY_LAYOUT), 1)
        writer.add_domain(spec, adapter, Catalog.from_rows(items), users=Users.from_rows(users))
        writer.seal()
    return root


@pytest.fixture
def demo_app(demo_like: Path) -> FastAPI:
    return create_app(Settings(bundle=demo_like, num_threads=1))


@pytest.fixture
async def demo_client(demo_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(demo_app) as client:
        yield client


async def examples_of(client: httpx.AsyncClient) -> list[tuple[str, dict[str, Any]]]:
    document = (await client.get("/openapi.json")).json()
    found = []
    for path, operations in document["paths"].items():
        if "post" in operations:
            reference = operations["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
            found += [(path, example) for example in schema["examples"]]
    return found


async def test_every_example_works_when_pasted(demo_client: httpx.AsyncClient) -> None:
    examples = await examples_of(demo_client)

    assert {path for path, _ in examples} == {"/recommend/sequential", "/recommend/direct", "/explain"}
    for path, body in examples:
        response = await demo_client.post(path, json=body)
        assert response.status_code == 200, (path, body, response.text)
        for kind in ("unknown_items", "unknown_user", "no_eligible_items"):
            assert kind not in response.text, (path, body)


async def test_every_field_is_described(demo_client: httpx.AsyncClient) -> None:
    schemas = (await demo_client.get("/openapi.json")).json()["components"]["schemas"]

    assert "HTTPValidationError" not in schemas
    for name, schema in schemas.items():
        assert schema.get("description"), name
        for field, part in schema.get("properties", {}).items():
            assert part.get("description"), (name, field)


async def test_every_error_is_a_problem_document(demo_client: httpx.AsyncClient) -> None:
    paths = (await demo_client.get("/openapi.json")).json()["paths"]

    for path, operations in paths.items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status[0] in "45" and not path.endswith(("/ready", "/live")):
                    assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_fuzzing_finds_no_server_error_and_no_answer_off_the_schema(demo_app: FastAPI) -> None:
    operations = _operations(demo_app)
    assert len(operations) >= 10

    for operation in operations:

        @_fuzzed(num_examples=40 if operation.method == "post" else 15)
        @hypothesis.given(case=operation.as_strategy())
        def check(case: Case) -> None:
            case.call_and_validate(checks=CHECKS)

        check()


@pytest.mark.parametrize("path", ["/recommend/sequential", "/recommend/direct", "/explain"])
def test_fuzzing_what_the_bundle_knows_finds_no_fault_either(demo_app: FastAPI, path: str) -> None:
    """Random names are unknown to any bundle; here they stand beside known ones, so that requests reach the engine."""
    (operation,) = [each for each in _operations(demo_app) if each.path == path]
    statuses: set[int] = set()

    @_fuzzed(num_examples=40)
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: Case) -> None:
        assert isinstance(case.body, dict)
        _name_what_is_known(case.body)
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    check()
    assert 200 in statuses


def _operations(app: FastAPI) -> list[Operation]:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    with asgi.get_client(cast("asgi.ASGIApp", app)) as client:
        while client.get("http://testserver/health/ready").status_code != 200:
            pass
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def _fuzzed(num_examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def _name_what_is_known(body: dict[str, Any]) -> None:
    body["domain"] = "toys"
    for name in ("history", "candidates", "include_items"):
        if isinstance(body.get(name), list):
            body[name] = [*body[name][:50], "toy-0001", "toy-0002"]
    if "item_id" in body:
        body["item_id"] = "toy-0003"
    if "template" in body and body["template"] not in TEMPLATES:
        del body["template"]
    if body.get("deadline_ms") is not None:
        body["deadline_ms"] = 60_000  # a short one may rightly pass
    if isinstance(body.get("where"), dict):
        body["where"] = {"category": "games"}
