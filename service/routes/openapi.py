"""The OpenAPI document: FastAPI's, with every error shown as the problem document that it is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import STATUSES
from service.problems import MEDIA_TYPE
from service.schemas.problem import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Entries of FastAPI's `responses` for errors of these statuses."""
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

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _show_problems(document: dict[str, Any]) -> None:
    """FastAPI files every model under application/json; a problem is application/problem+json."""
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                if schema.get("$ref") == "#/components/schemas/Problem":
                    response["content"] = {MEDIA_TYPE: {"schema": schema}}


def _titles(status: int) -> str:
    titles = dict.fromkeys(entry.title for entry in STATUSES.values() if entry.status == status)
    return "; ".join(titles)
