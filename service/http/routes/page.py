"""The page at /, and the files below /page that it and /status consist of."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow.compute as pc
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from model.bundle.catalog import Catalog
from service.http.app_state import state_of
from service.http.callers import require_domain
from service.http.dependencies import service_of
from service.http.route_classes import UsersRoute

FOLDER = Path(str(files("service"))) / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ABOUT = b'content="about"'
"""Where index.html says what it cannot know otherwise."""
MAX_CUSTOMERS = 200
MAX_EXAMPLE_BYTES = 4 << 20
MAX_ORIGINS = 20
URL_PATTERN = r"^(?P<origin>https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)(?:/|$)"

HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

conditions = StaticFiles(check_dir=False)
_known_origins: WeakKeyDictionary[Catalog, frozenset[str]] = WeakKeyDictionary()
customers = APIRouter(route_class=UsersRoute, include_in_schema=False)


def install_page(app: FastAPI, *, is_shown: bool) -> None:
    """Add the files, and the page at / if it is shown. None of it is in the OpenAPI document."""
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in TYPES and path.suffix != ".html":
            app.add_route(f"/page/{path.name}", _sender_of(path.name), include_in_schema=False)
    if is_shown:
        app.add_route("/", _show_page, include_in_schema=False)
        app.include_router(customers)


def page_response(name: str, pictures: str = "", about: dict[str, bool] | None = None, root_path: str = "") -> Response:
    """A file of the page, whose policy lets it load nothing from elsewhere but pictures of these origins.

    `about` is put into the page, which thus need not ask for it. It finds its files below `root_path`, with or without
    a slash at the end of its own address.
    """
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:{pictures}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    path = FOLDER / name
    changed_ns = path.stat().st_mtime_ns
    content, etag = _read(path, changed_ns)
    headers = HEADERS | {"Content-Security-Policy": policy}
    if about is None:
        headers |= {"ETag": etag, "Last-Modified": formatdate(changed_ns / 1e9, usegmt=True)}
    else:
        content = content.replace(ABOUT, f'content="{html.escape(json.dumps(about))}"'.encode())
        content = content.replace(b'="page/', f'="{root_path}/page/'.encode())
    return Response(content, media_type=TYPES[path.suffix], headers=headers)


@lru_cache(maxsize=100)
def _read(path: Path, _changed_ns: int) -> tuple[bytes, str]:
    """A file and its tag. Kept, because a page consists of many."""
    content = path.read_bytes()
    return content, f'"{sha256(content).hexdigest()[:32]}"'


def _sender_of(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def send_file(request: Request) -> Response:
        response = page_response(name)
        if conditions.is_not_modified(response.headers, request.headers):
            return NotModifiedResponse(response.headers)
        return response

    return send_file


async def _show_page(request: Request) -> Response:
    state = state_of(request.app)
    service = state.running_service
    versions = () if service is None else tuple(service.domains.stable.values())
    origins: set[str] = set()
    for each in versions:
        catalog = each.domain.catalog
        known = _known_origins.get(catalog)
        origins |= await asyncio.to_thread(_origins, catalog) if known is None else known
    about = {"needs_key": state.api_keys is not None, "has_status": state.admin_app is None}
    root_path = request.scope.get("root_path", "")
    return page_response("index.html", "".join(f" {origin}" for origin in sorted(origins)), about, root_path)


@customers.get("/page/customers/{name}")
async def list_customers(name: str, request: Request) -> Response:
    """Customers with histories, from the sequential requests in a file beside the bundle, if there is one."""
    require_domain(request, name)
    service_of(request).domains.domain(name)
    found = await asyncio.to_thread(_customers, state_of(request.app).example_requests, name)
    return JSONResponse({"customers": found})


def _customers(path: Path, domain: str) -> list[dict[str, Any]]:
    """Of each customer the first history. A file that is missing, too large or broken has none."""
    found: dict[str, dict[str, Any]] = {}
    try:
        if path.stat().st_size > MAX_EXAMPLE_BYTES:
            return []
        bodies = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return []
    for body in bodies:
        if isinstance(body, dict) and body.get("task") == "sequential" and body.get("domain") == domain:
            user_id, history = body.get("user_id"), body.get("history")
            if isinstance(user_id, str) and isinstance(history, list) and len(found) < MAX_CUSTOMERS:
                found.setdefault(user_id, {"user_id": user_id, "history": history})
    return list(found.values())


def _origins(catalog: Catalog) -> frozenset[str]:
    """Where pictures are that the catalog names by URL: plain hosts only, because they enter a policy."""
    urls = pc.extract_regex(catalog.table.column("image"), URL_PATTERN)
    origins = {origin for origin in pc.unique(pc.struct_field(urls, "origin")).to_pylist() if origin}
    found = _known_origins[catalog] = frozenset(sorted(origins)[:MAX_ORIGINS])
    return found
