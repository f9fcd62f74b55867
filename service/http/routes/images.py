"""GET /domains/{name}/items/{item_id}/image."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from service.errors import RangeError, UnknownPictureError
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

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))", re.IGNORECASE)

router = APIRouter(prefix="/domains", tags=["domains"], route_class=BrowseRoute, responses=problems(404, 416, 422, 500))

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
    is_part = _is_range(request.headers, found.status.st_size)
    if found.content is not None and not is_part:
        headers = {name: value for name, value in response.headers.items() if name != "content-type"}
        return Response(found.content, media_type=found.media_type, headers=headers)
    if not is_part:
        request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
    return response


def _is_range(headers: Headers, num_bytes: int) -> bool:
    """Whether one part of a file is asked for. What is no such range may be ignored, and is (RFC 9110, 14.2).

    Raises RangeError if the part is behind the file's end.
    """
    header = headers.get("range", "").strip()
    asked = _RANGE.fullmatch(header)
    if asked is None or (asked[2] and int(asked[2]) < int(asked[1])):
        return False
    if (asked[1] and int(asked[1]) >= num_bytes) or (asked[3] and int(asked[3]) == 0):
        if "if-range" in headers:  # which may be of another picture
            return False
        raise RangeError(f"the range {header} is behind the end of {num_bytes} bytes", num_bytes=num_bytes)
    return True
