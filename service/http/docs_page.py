"""/docs: Swagger UI from files that are installed with the service, so that the page works without the internet."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.responses import FileResponse

PATH = "/docs"
FOLDER = files(fastapi_offline) / "static"
FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")


def install_docs(app: FastAPI) -> None:
    """Add the page, which has no routes in the OpenAPI document."""
    page = _page(app.title)
    policy = _policy(page)

    async def show_docs(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    app.add_route(PATH, show_docs, include_in_schema=False)
    for name in FILES:
        app.add_route(f"{PATH}/{name}", _sender_of(name), include_in_schema=False)


def _sender_of(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def send_file(_: Request) -> Response:
        return FileResponse(str(FOLDER / name))

    return send_file


def _page(title: str) -> str:
    """The page. Its URLs are relative, so they hold behind any prefix."""
    bundle, styles, icon = (f"{PATH.strip('/')}/{name}" for name in FILES)
    response = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url=bundle,
        swagger_css_url=styles,
        swagger_favicon_url=icon,
        # Otherwise the page sends the document's address to validator.swagger.io.
        swagger_ui_parameters={"validatorUrl": None},
    )
    return bytes(response.body).decode()


def _policy(page: str) -> str:
    """Nothing is loaded from elsewhere, and of inline scripts only the page's own runs."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {digests}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
