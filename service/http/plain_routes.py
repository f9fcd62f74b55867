"""Routes that are not FastAPI's own: files and pages, which metrics and logs name like the others."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.routing import Match, Route
from starlette.types import Scope

FOLDERS = ("/page/", "/docs/")
"""Whose files share a name, so that each of them is no time series of its own."""


@dataclass(frozen=True)
class Template:
    """Stands for a route in a request's scope."""

    path: str


class PlainRoute(Route):
    """A route that notes its template in the scope, as FastAPI's do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Route.matches."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = Template(_template_of(self.path))
        return match, child_scope


def name_plain_routes(app: FastAPI) -> None:
    """Let all routes that were added without FastAPI's decorators note their templates."""
    for place, route in enumerate(app.router.routes):
        if type(route) is Route:
            methods = None if route.methods is None else list(route.methods)
            app.router.routes[place] = PlainRoute(route.path, route.endpoint, methods=methods, include_in_schema=False)


def _template_of(path: str) -> str:
    folder = next((each for each in FOLDERS if path.startswith(each)), None)
    return path if folder is None else f"{folder}{{file}}"
