"""The OpenAPI document is true: its examples work when pasted, and fuzzing it finds no fault."""

from __future__ import annotations

import keyword
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from pydantic import SecretStr
from schemathesis import GenerationMode

from model.bundle.catalog import Catalog
from model.bundle.layout import DomainSpec, ImageEncoder
from model.bundle.shapes import expected_domain_shapes, expected_shapes
from model.bundle.users import Users
from model.bundle.writer import BundleWriter
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.answers import answer_like
from tests.fuzz.bodies import operations_of as operations_of_app
from tests.fuzz.known import name_what_is_known
from tests.fuzz.service import CHECKS, Case
from tests.service.conftest import client_of
from tests.summer import DEMONSTRATION, add_summer
from tests.tiny import TINY_BACKBONE, TINY_LAYOUT, random_tensors, tiny_tokenizer

TOKEN = "open-sesame-open-sesame"
READERS = (
    "recommend_sequential",
    "recommend_direct",
    "recommend_sequential_batch",
    "recommend_direct_batch",
    "explain",
)
CHANGES = (
    "load_version", "swap_versions", "set_canary", "set_shadow", "change_catalog", "put_features", "put_boosts"
)  # fmt: skip
"""In an order in which each is possible."""
VARIES = "status"
"""Its answer is of the last minutes."""
ABRIDGED = "list_columns"
"""Its example shows one of the columns."""
NEEDS_A_BREAK = "resolve_journal"
"""Possible only after the journal in Redis broke, as tests/e2e/test_redis_histories.py tries."""
HISTORIES = {"post_events", "show_history", "erase_history"}
"""Need a store of histories; tests/service/test_histories.py pastes their examples."""
ASKED = [
    ("recommend_sequential", ""),
    ("recommend_sequential_batch", ""),
    ("explain", ""),
    ("list_domains", ""),
    ("show_domain", ""),
    ("list_items", "?limit=1"),
    ("show_item", ""),
    ("list_columns", ""),
    ("list_users", "?limit=1"),
    ("live", ""),
    ("ready", ""),
]
ASKED_LAST = [
    ("load_version", ""),
    ("list_versions", ""),
    ("change_catalog", ""),
    ("put_boosts", ""),
    ("list_replicas", ""),
    ("drain", ""),
]
"""Each operation whose answer is shown, with its query."""


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


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The demonstration, which an administrator may change."""
    add_summer(tmp_path)
    journal = str(tmp_path / "journal")
    settings = Settings(bundle=DEMONSTRATION, bundles_root=tmp_path, journal=journal, admin_token=SecretStr(TOKEN))
    app = create_app(settings.model_copy(update={"num_threads": 1}))
    async with client_of(app) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


async def operations_of(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """All operations by id, each with its method and path, and the document's schemas."""
    document = (await client.get("/openapi.json")).json()
    operations = {
        operation["operationId"]: operation | {"method": method, "path": path}
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    return operations, document["components"]["schemas"]


def schema_of(content: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema: dict[str, Any] = schemas[name]
    return schema


def path_of(operation: dict[str, Any]) -> str:
    path: str = operation["path"]
    return path.format(name="toys", item_id="toy-0001")


async def test_every_example_works_when_pasted(shop: httpx.AsyncClient) -> None:
    operations, schemas = await operations_of(shop)
    with_body = [name for name, operation in operations.items() if "requestBody" in operation]
    assert set(with_body) - HISTORIES == {*READERS, *CHANGES, NEEDS_A_BREAK}

    for name in [*READERS, *CHANGES]:
        operation = operations[name]
        examples = schema_of(operation["requestBody"]["content"], schemas)["examples"]
        assert examples
        for body in examples:
            path = path_of(operation)
            response = await shop.request(operation["method"], path, json=body)
            assert response.status_code == 200, (name, body, response.text)
            for kind in ("unknown_items", "unknown_user", "missing_features", "no_eligible_items"):
                assert kind not in response.text, (name, body)
    (body,) = schema_of(operations[NEEDS_A_BREAK]["requestBody"]["content"], schemas)["examples"]
    response = await shop.request("POST", operations[NEEDS_A_BREAK]["path"], json=body)
    assert (response.status_code, response.json()["code"]) == (409, "operation_conflict")


async def test_the_answers_shown_are_the_demonstration_s(shop: httpx.AsyncClient) -> None:
    operations, schemas = await operations_of(shop)
    compared = set()
    for name, query in [*ASKED, *ASKED_LAST]:
        operation = operations[name]
        body = None
        if "requestBody" in operation:
            body = schema_of(operation["requestBody"]["content"], schemas)["examples"][0]
        path = path_of(operation) + query
        answer = (await shop.request(operation["method"], path, json=body)).json()
        shown = schema_of(operation["responses"]["200"]["content"], schemas)
        if name == ABRIDGED:
            (column,) = shown["examples"][0]["columns"]
            assert column in answer["columns"]
        else:
            assert answer == answer_like(shown["examples"][0], answer), name
        compared.add(shown["title"])
    unknown = (await shop.get("/domains/books")).json()
    assert unknown == answer_like(schemas["Problem"]["examples"][0], unknown)

    answers = {
        schema_of(operation["responses"]["200"]["content"], schemas)["title"]
        for name, operation in operations.items()
        if name not in {NEEDS_A_BREAK, VARIES, *HISTORIES}
        and "application/json" in operation["responses"].get("200", {}).get("content", {})
    }
    assert compared == answers


async def test_the_stream_shown_is_the_demonstration_s(shop: httpx.AsyncClient) -> None:
    operations, schemas = await operations_of(shop)
    operation = operations["explain"]
    body = next(
        each for each in schema_of(operation["requestBody"]["content"], schemas)["examples"] if "stream" in each
    )

    response = await shop.post("/explain", json=body)

    (shown,) = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["examples"]
    assert response.text.startswith(f"event: {shown['event']}\ndata: {shown['data']}\n\n")


def test_operations_have_names_that_generated_clients_can_use(demo_like: Path) -> None:
    app = create_app(Settings(bundle=demo_like, admin_token=SecretStr(TOKEN), admin_port=0))
    admin_app = state_of(app).admin_app
    assert admin_app is not None
    documents = [app.openapi(), admin_app.openapi()]
    tags = {tag["name"] for document in documents for tag in document["tags"] if tag["description"]}
    names = []
    for document in documents:
        for path in document["paths"].values():
            for operation in path.values():
                names.append(operation["operationId"])
                assert operation["summary"] in operation["description"].replace("\n", " ")
                assert set(operation["tags"]) <= tags
                for parameter in operation.get("parameters", []):
                    assert parameter["description"], (operation["operationId"], parameter["name"])

    assert {"recommend_sequential", "recommend_direct", "explain", "list_domains", "load_version"} <= set(names)
    assert len(set(names)) == len(names)
    assert not [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name) or keyword.iskeyword(name)]


def test_the_documents_are_valid(demo_like: Path) -> None:
    app = create_app(Settings(bundle=demo_like, admin_token=SecretStr(TOKEN), admin_port=0))
    for each in (app, state_of(app).admin_app):
        assert each is not None
        schemathesis.openapi.from_dict(each.openapi()).validate()


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
    operations = operations_of_app(demo_app)
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
    (operation,) = [each for each in operations_of_app(demo_app) if each.path == path]
    statuses: set[int] = set()

    @_fuzzed(num_examples=40)
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: Case) -> None:
        assert isinstance(case.body, dict)
        name_what_is_known(case.body, "toys", ["toy-0001", "toy-0002", "toy-0003"])
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    check()
    assert 200 in statuses


def _fuzzed(num_examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
