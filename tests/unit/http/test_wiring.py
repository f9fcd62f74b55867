"""How the app is put together."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.routing import Match

from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.service.live import TOKEN

PATHS = {"/recommend/sequential": False, "/events": False, "/admin/domains/toys/swap": True}
"""Paths that take POST, and whether they are for administrators."""


@pytest.mark.parametrize("admin_port", [None, 1], ids=["one port", "a port for administrators"])
def test_no_request_waits_for_routes_to_be_made(admin_port: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(bundle=Path("bundle"), admin_token=SecretStr(TOKEN), admin_port=admin_port))

    def made_now(*_: object, **__: object) -> None:
        raise AssertionError("a route was made when a request came")

    monkeypatch.setattr("fastapi.routing.get_dependant", made_now)
    for path, is_for_admins in PATHS.items():
        asked = (state_of(app).admin_app or app) if is_for_admins else app
        scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": []}
        assert Match.FULL in [route.matches(dict(scope))[0] for route in asked.router.routes]
