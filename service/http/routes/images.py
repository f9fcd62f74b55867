"""GET /domains/{name}/items/{item_id}/image."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from service.errors import UnknownPictureError
from service.http.app_state import state_of
from service.http.callers import require_domain
from service.http.dependencies import DomainPath, ItemPath, Trace, known_row, service_of
from service.http.openapi import problems
from service.http.pictures import is_url
from service.http.route_classes import BrowseRoute

HEADERS = {
    "Cache-Control": "private, max-age=300",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."},
    206: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}, "description": "A range of it."},
    304: {"description": "The picture is the one that the client has."},
    307: {"description": "The picture is at another address, in `Location`."},
}

router = APIRouter(prefix="/domains", tags=["domains"], route_class=BrowseRoute, responses=problems(404, 422, 500))

_conditions = StaticFiles(check_dir=False)


@router.get("/{name}/items/{item_id:path}/image", response_class=Response, responses=PICTURE)
async def show_image(name: DomainPath, item_id: ItemPath, request: Request, trace: Trace) -> Response:
    """An item's picture. Ranges and conditional requests are answered; a URL in the catalog becomes a redirection."""
    require_domain(request, name)
    version = service_of(request).domains.version(name)
    trace.domain = version.domain.name
    catalog = version.domain.catalog
    reference = catalog.images[known_row(version.domain, item_id)]
    if reference is None:
        raise UnknownPictureError(f"the catalog of {name} has no picture of {item_id!r}; fill its column image")
    if is_url(reference):
        return RedirectResponse(reference, headers={"Cache-Control": "private, max-age=300"})
    folders = state_of(request.app).picture_folders
    found = await asyncio.to_thread(folders.find, version, reference)
    response = FileResponse(found.path, media_type=found.media_type, stat_result=found.status, headers=HEADERS)
    if _conditions.is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    return response
