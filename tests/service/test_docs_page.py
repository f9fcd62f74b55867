"""/docs works without the internet, behind any prefix, and loads nothing but what the service sends."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from model.planning.runtime import Runtime
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.settings import Settings

PREFIXES = ["", "/vip5", "/a/b"]


class Page(HTMLParser):
    """What a page loads, and the scripts inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.scripts: list[str] = []
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = [value for name, value in attrs if name in {"src", "href", "data", "action"} and value]
        self._is_script = tag == "script" and not found
        self.urls += found

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False


@pytest.fixture(params=["public", "admin"])
def each_app(request: pytest.FixtureRequest, settings: Settings, runtime: Runtime) -> FastAPI:
    return app_of(request.param, settings, runtime)


def app_of(kind: str, settings: Settings, runtime: Runtime, prefix: str = "") -> FastAPI:
    """The public app or that of the administration's port, below a prefix that a proxy keeps."""
    given = settings.model_copy(update={"admin_token": SecretStr("x" * 16), "admin_port": 0, "root_path": prefix})
    app = create_app(given, lambda _: runtime)
    admin_app = state_of(app).admin_app
    assert admin_app is not None
    return app if kind == "public" else admin_app


@contextmanager
def browser(app: FastAPI) -> Iterator[httpx.AsyncClient]:
    yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", ["public", "admin"])
async def test_everything_that_the_page_loads_comes_from_the_service(
    settings: Settings, runtime: Runtime, kind: str, prefix: str
) -> None:
    app = app_of(kind, settings, runtime, prefix)
    with browser(app) as client:
        at = f"{prefix}/docs"
        page = Page((await client.get(at)).text)
        (document,) = re.findall(r"url: '(.*?)'", "".join(page.scripts))
        urls = [*page.urls, document]
        assert len(urls) == 4
        for url in urls:
            where = urljoin(f"http://shop.example{at}", url)
            assert where.startswith(f"http://shop.example{prefix}/"), url
            response = await client.get(where)
            assert response.status_code == 200, url
            assert len(response.content) > 1_000
        servers = (await client.get(f"{prefix}/openapi.json")).json().get("servers", [])
    assert [each["url"] for each in servers] == [*([prefix] if prefix else []), "."]


async def test_the_policy_lets_nothing_else_in(each_app: FastAPI) -> None:
    with browser(each_app) as client:
        response = await client.get("/docs")
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    digests = [
        f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in Page(response.text).scripts
    ]

    assert len(digests) == 1
    assert policy == {
        "default-src": "'none'",
        "script-src": f"'self' {digests[0]}",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_the_page_does_not_have_its_document_validated_elsewhere(each_app: FastAPI) -> None:
    with browser(each_app) as client:
        text = (await client.get("/docs")).text

    assert '"validatorUrl": null' in text
    assert "://" not in text


async def test_the_files_have_their_types_and_can_be_kept(each_app: FastAPI) -> None:
    types = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon.png": "image/png"}
    with browser(each_app) as client:
        for name, media_type in types.items():
            response = await client.head(f"/docs/{name}")
            assert response.status_code == 200
            assert response.headers["content-type"].partition(";")[0] == media_type
            assert response.headers["etag"]
        assert (await client.get("/docs/redoc.standalone.js")).status_code == 404
