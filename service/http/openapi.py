"""The OpenAPI document: FastAPI's, with errors as problem documents and with names for generated clients."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service.http.problems import MEDIA_TYPE
from service.problem_documents import STATUSES
from service.schemas.base import AnswerBody
from service.schemas.problem import Problem

DESCRIPTION = """Recommends items from past purchases and pictures, with a model that generates the items' identifiers.

Errors are problem documents (RFC 9457). Where API keys are configured, send one as `Authorization: Bearer KEY` or
`X-API-Key: KEY`."""
CONTACT = {"name": "vip5-serve developers", "url": "https://github.com/vip5-serve/vip5-serve"}
TAGS = {
    "recommend": "Recommends items to a user.",
    "explain": "Explains why a user would like an item.",
    "histories": "Keeps what users do, from which recommendations follow.",
    "domains": "Describes what is served.",
    "health": "Probes.",
    "metrics": "Measurements for Prometheus.",
    "admin": "Changes what is served. Every route needs the admin token.",
}


def operation_id(route: APIRoute) -> str:
    """The name of the route's function, which generated clients call the operation."""
    return route.name


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these error statuses."""
    return {status: {"model": Problem, "description": _titles(status)} for status in statuses}


def install_openapi(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=DESCRIPTION,
                contact=CONTACT,
                servers=[{"url": ".", "description": "The service that sent this document."}],
                routes=app.routes,
            )
            _show_problems(document)
            _restore_nulls(document["components"]["schemas"])
            _describe(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _show_problems(document: dict[str, Any]) -> None:
    """Correct FastAPI, which lists every model as application/json and adds its own 422 to paths with parameters."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            for status, response in list(responses.items()):
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                name = schema.get("$ref", "").rpartition("/")[2]
                if name == Problem.__name__:
                    response["content"] = {MEDIA_TYPE: {"schema": schema}}
                elif name and name not in schemas:
                    del responses[status]


def _restore_nulls(schemas: dict[str, Any]) -> None:
    """Correct FastAPI, which leaves nulls out of examples."""
    for model in AnswerBody.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict):
            schemas[model.__name__] |= extra


def _describe(document: dict[str, Any]) -> None:
    """Make the first sentence of each description the summary, and describe the tags that occur."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for operation in operations:
        operation["summary"] = operation["description"].partition(".")[0].replace("\n", " ")
    used = {tag for operation in operations for tag in operation["tags"]}
    document["tags"] = [{"name": tag, "description": text} for tag, text in TAGS.items() if tag in used]


def _titles(status: int) -> str:
    titles = dict.fromkeys(entry.title for entry in STATUSES.values() if entry.status == status)
    return "; ".join(titles)
