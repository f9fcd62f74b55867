"""The OpenAPI document: FastAPI's, with errors as problem documents."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import STATUSES
from service.http.problems import MEDIA_TYPE
from service.schemas.problem import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these error statuses."""
    return {status: {"model": Problem, "description": _titles(status)} for status in statuses}


def install_openapi(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=app.openapi_tags
            )
            _show_problems(document)
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


def _titles(status: int) -> str:
    titles = dict.fromkeys(entry.title for entry in STATUSES.values() if entry.status == status)
    return "; ".join(titles)
