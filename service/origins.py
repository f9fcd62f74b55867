"""Origins of web pages, as the setting VIP5_CORS_ORIGINS lists them and browsers send them."""

from __future__ import annotations

import json

from pydantic import AnyUrl, ValidationError

ANY = "*"
EXAMPLE = '["https://shop.example"]'
DEFAULT_PORTS = {"http": 80, "https": 443}


def origins_of(given: object) -> tuple[str, ...]:
    """The origins of a JSON list or a sequence, `*` alone for all. Raises ValueError."""
    origins = _decoded(given) if isinstance(given, str) else given
    if not isinstance(origins, list | tuple) or not all(isinstance(each, str) for each in origins):
        raise ValueError(f"the origins are not a list of strings; write a JSON list such as {EXAMPLE}")
    if ANY in origins and len(origins) > 1:
        raise ValueError(f"* already allows every origin; write [{json.dumps(ANY)}] alone, or list origins without it")
    return tuple(each if each == ANY else _checked(each) for each in origins)


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is not JSON; write a list such as {EXAMPLE}") from error


def _checked(text: str) -> str:
    """An origin, refused unless it is letter by letter what a browser sends: any other would never match."""
    try:
        url = AnyUrl(text)
    except ValidationError:
        url = None
    if url is None or not url.host or ANY in url.host:
        raise ValueError(
            f"{text!r} is not an origin; write scheme://host or scheme://host:port, each one by its full name, such as "
            f"{EXAMPLE}"
        )
    port = "" if url.port in (None, DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    origin = f"{url.scheme}://{url.host}{port}"
    if text != origin:
        raise ValueError(f"{text!r} is not an origin as browsers send it, which has no path; write {origin!r}")
    return text
