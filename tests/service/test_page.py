"""The page at / and its files: what they may load, who may see them, and that nothing in a catalog becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from model.planning.runtime import Runtime
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.http.routes.page import FOLDER
from service.settings.settings import Settings
from tests.service.conftest import client_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "open-sesame-open-sesame"
PAGES = ("index.html", "status.html")
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.js"))
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}


def policy_of(response: httpx.Response) -> dict[str, str]:
    parts = response.headers["content-security-policy"].split("; ")
    return dict((part.split(" ", 1)) for part in parts)


def keyed(settings: Settings, folder: Path, **options: object) -> tuple[Settings, dict[str, str]]:
    """Settings with API keys, and the headers of one with these options."""
    key = new_key("someone", **options)
    (folder / "keys").write_text(key.line)
    return settings.model_copy(update={"api_keys_file": folder / "keys"}), {"X-API-Key": key.key}


class Markup(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.inside: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._tag in {"script", "style"} and data.strip():
            self.inside.append(data)


def about_of(response: httpx.Response) -> dict[str, bool]:
    """What the page is told about the service."""
    attributes = Markup(response.text).attributes
    place = attributes.index(("meta", "name", "about"))
    found: dict[str, bool] = json.loads(attributes[place + 1][2])
    return found


async def test_the_page_may_load_nothing_from_elsewhere(shared_client: httpx.AsyncClient) -> None:
    response = await shared_client.get("/")

    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert policy_of(response) == POLICY
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", PAGES)
async def test_pages_have_no_scripts_or_styles_inside_and_what_they_load_exists(
    shared_client: httpx.AsyncClient, name: str
) -> None:
    markup = Markup((FOLDER / name).read_text(encoding="utf-8"))

    assert markup.inside == []
    assert not [each for _, each, _ in markup.attributes if each.startswith("on") or each == "style"]
    loaded = {value for _, each, value in markup.attributes if each in {"src", "href"} and not value.startswith("#")}
    assert {"page/page.css", "page/icon.svg"} <= loaded
    for url in loaded - {"docs", "metrics"}:
        response = await shared_client.get(f"/{url}")
        assert response.status_code == 200, url
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", SCRIPTS)
async def test_modules_build_elements_never_markup_and_import_what_exists(
    shared_client: httpx.AsyncClient, name: str
) -> None:
    response = await shared_client.get(f"/page/{name}")
    text = response.text

    assert response.headers["content-type"].startswith("text/javascript")
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "://"):
        assert unsafe not in text
    for imported in re.findall(r'(?:from |import\()"(.*?)"', text):
        assert imported.removeprefix("./") in SCRIPTS


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_below_a_prefix_the_page_needs_no_slash_at_its_end(
    settings: Settings, runtime: Runtime, *, by_proxy: bool
) -> None:
    behind = {"trusted_proxies": ("127.0.0.1",)} if by_proxy else {"root_path": "/shop"}
    headers = {"X-Forwarded-Prefix": "/shop"} if by_proxy else {}
    app = create_app(settings.model_copy(update=behind), lambda _: runtime)
    async with client_of(app) as client:
        response = await client.get("/" if by_proxy else "/shop", headers=headers, follow_redirects=True)
        attributes = Markup(response.text).attributes
        files = [value for _, name, value in attributes if name in {"src", "href"} and value.endswith((".js", ".css"))]

        assert len(files) > len(SCRIPTS) / 2
        for each in files:
            assert each.startswith("/shop/page/")
        assert (await client.get(files[0].removeprefix("/shop"), headers=headers)).status_code == 200


async def test_files_are_sent_once(shared_client: httpx.AsyncClient) -> None:
    etag = (await shared_client.get("/page/main.js")).headers["etag"]
    response = await shared_client.get("/page/main.js", headers={"If-None-Match": etag})

    assert response.status_code == 304


@pytest.mark.parametrize("path", ["/page/", "/page/../settings.py", "/page/%2e%2e/settings.py", "/page/status.html"])
async def test_nothing_else_is_below_the_page(shared_client: httpx.AsyncClient, path: str) -> None:
    assert (await shared_client.get(path)).status_code == 404


async def test_the_page_is_off_where_keys_are_required_unless_asked_for(
    settings: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    with_keys, _ = keyed(settings, tmp_path)
    found = {}
    for page in (None, True, False):
        for name, given in (("open", settings), ("keys", with_keys)):
            app = create_app(given.model_copy(update={"page": page}), lambda _: runtime)
            async with client_of(app) as client:
                response = await client.get("/")
                found[name, page] = response.status_code
                if response.status_code == 200:
                    assert about_of(response) == {"needs_key": name == "keys", "has_status": True}

    assert found == {
        ("open", None): 200,
        ("open", True): 200,
        ("open", False): 404,
        ("keys", None): 404,
        ("keys", True): 200,
        ("keys", False): 404,
    }


async def test_the_port_of_the_administrators_has_no_page(settings: Settings, runtime: Runtime) -> None:
    given = settings.model_copy(update={"admin_token": SecretStr(TOKEN), "admin_port": 0})
    app = create_app(given, lambda _: runtime)
    admin_app = state_of(app).admin_app
    assert admin_app is not None
    async with client_of(app) as client:
        assert about_of(await client.get("/"))["has_status"] is False
        transport = httpx.ASGITransport(admin_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as admin:
            assert (await admin.get("/")).status_code == 404
            assert (await admin.get("/status", headers={"Accept": "text/html"})).status_code == 200


@pytest.fixture
def requests_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bodies = [
        {"task": "sequential", "domain": "toys", "user_id": "ann", "history": ["item-1"]},
        {"task": "sequential", "domain": "toys", "user_id": "ann", "history": ["item-2"]},
        {"task": "sequential", "domain": "words", "user_id": "bob", "history": ["item-3"]},
        {"task": "direct", "domain": "toys", "user_id": "cleo", "candidates": ["item-4"]},
        {"task": "sequential", "domain": "toys", "user_id": 7, "history": "item-5"},
        ["no object"],
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    monkeypatch.setattr(Settings, "example_requests", path)
    return path


async def test_customers_come_from_requests_beside_the_bundle(
    settings: Settings, runtime: Runtime, requests_file: Path
) -> None:
    async with client_of(create_app(settings, lambda _: runtime)) as client:
        toys = (await client.get("/page/customers/toys")).json()
        unknown = await client.get("/page/customers/books")
        requests_file.write_text("{")
        broken = (await client.get("/page/customers/toys")).json()

    assert toys == {"customers": [{"user_id": "ann", "history": ["item-1"]}]}
    assert unknown.status_code == 404
    assert broken == {"customers": []}


async def test_customers_are_for_keys_that_may_see_users(
    settings: Settings, runtime: Runtime, requests_file: Path
) -> None:
    statuses = {}
    for routes in (("browse", "recommend"), ("users",)):
        given, headers = keyed(settings, requests_file.parent, routes=routes)
        app = create_app(given.model_copy(update={"page": True}), lambda _: runtime)
        async with client_of(app) as client:
            statuses[routes] = (await client.get("/page/customers/toys", headers=headers)).status_code
            assert (await client.get("/page/customers/toys")).status_code == 401

    assert statuses == {("browse", "recommend"): 403, ("users",): 200}


@pytest.mark.parametrize(
    ("reference", "origin"),
    [
        ("https://pictures.example/1.png", "https://pictures.example"),
        ("http://10.0.0.1:8080/1.png", "http://10.0.0.1:8080"),
        ("https://evil.example; script-src *", None),
        ("https://evil.example'/1.png", None),
        ("https://*/1.png", None),
        ("javascript:alert(1)", None),
    ],
)
async def test_pictures_elsewhere_are_allowed_by_their_hosts_and_nothing_else(
    settings: Settings, runtime: Runtime, tmp_path: Path, reference: str, origin: str | None
) -> None:
    given = settings.model_copy(update={"admin_token": SecretStr(TOKEN), "journal": str(tmp_path / "journal")})
    async with client_of(create_app(given, lambda _: runtime)) as client:
        changed = await client.patch(
            "/admin/domains/toys/catalog",
            json={"set": {"item-1": {"image": reference}}},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert changed.status_code == 200
        policy = policy_of(await client.get("/"))

    allowed = "'self' blob:" + ("" if origin is None else f" {origin}")
    assert policy == POLICY | {"img-src": allowed}
