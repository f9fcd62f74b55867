"""The items' pictures: sent from their folder and from nowhere else, as what they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from model.bundle.manifest import write_manifest
from model.planning.runtime import Runtime
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.pictures import MAX_BYTES
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem

TOKEN = "open-sesame-open-sesame"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(100))
CONTENTS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0 jpeg",
    "image/gif": b"GIF89a gif",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "image/avif": b"\x00\x00\x00\x20ftypavif",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The catalog calls the picture of item-1 images/1.png."""
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    (tmp_path / "pictures" / "images" / "1.png").write_bytes(PNG)
    return tmp_path / "pictures"


@pytest.fixture
async def shop(settings: Settings, runtime: Runtime, root: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An app whose catalog an administrator may change."""
    given = settings.model_copy(
        update={"images_root": root, "admin_token": SecretStr(TOKEN), "journal": str(tmp_path / "journal")}
    )
    async with client_of(create_app(given, lambda _: runtime)) as client:
        yield client


def url_of(item_id: str) -> str:
    return f"/domains/toys/items/{item_id}/image"


async def name_picture(client: httpx.AsyncClient, reference: str, item_id: str = "item-1") -> None:
    response = await client.patch(
        "/admin/domains/toys/catalog",
        json={"set": {item_id: {"image": reference}}},
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    assert response.status_code == 200, response.text


async def test_a_picture_is_sent_with_what_keeps_browsers_from_guessing(shop: httpx.AsyncClient) -> None:
    response = await shop.get(url_of("item-1"))

    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(("media_type", "content"), CONTENTS.items())
async def test_the_type_comes_from_the_content(
    shop: httpx.AsyncClient, root: Path, media_type: str, content: bytes
) -> None:
    (root / "images" / "1.png").write_bytes(content)

    response = await shop.get(url_of("item-1"))

    assert (response.status_code, response.headers["content-type"]) == (200, media_type)


@pytest.mark.parametrize("content", [b"", b"<svg onload='alert(1)'/>", b"<html>", b"\x89PN"])
async def test_what_is_no_picture_is_not_sent(shop: httpx.AsyncClient, root: Path, content: bytes) -> None:
    (root / "images" / "1.png").write_bytes(content)

    response = await shop.get(url_of("item-1"))

    assert (response.status_code, response.json()["code"]) == (404, "unknown_picture")


async def test_a_picture_that_the_client_has_is_not_sent_again(shop: httpx.AsyncClient, root: Path) -> None:
    etag = (await shop.get(url_of("item-1"))).headers["etag"]

    same = await shop.get(url_of("item-1"), headers={"If-None-Match": etag})
    (root / "images" / "1.png").write_bytes(PNG + b"changed")
    changed = await shop.get(url_of("item-1"), headers={"If-None-Match": etag})

    assert (same.status_code, same.content) == (304, b"")
    assert (changed.status_code, changed.content) == (200, PNG + b"changed")


@pytest.mark.parametrize("asked", ["bytes=8-11", "bytes=-4", "bytes=5000-"])
async def test_head_describes_the_whole_picture_whatever_range_it_asks_for(shop: httpx.AsyncClient, asked: str) -> None:
    """RFC 9110, 14.2: ranges are defined for GET only."""
    described = await shop.head(url_of("item-1"), headers={"Range": asked})
    assert described.status_code == 200
    assert described.headers["content-length"] == str(len(PNG))
    assert "content-range" not in described.headers


async def test_a_range_of_a_picture_is_sent(shop: httpx.AsyncClient) -> None:
    part = await shop.get(url_of("item-1"), headers={"Range": "bytes=8-11"})
    beyond = await shop.get(url_of("item-1"), headers={"Range": "bytes=5000-"})

    assert (part.status_code, part.content) == (206, PNG[8:12])
    assert part.headers["content-range"] == f"bytes 8-11/{len(PNG)}"
    problem = check_problem(beyond, 416, "range_not_satisfiable")
    assert problem["detail"] == f"the range bytes=5000- is behind the end of {len(PNG)} bytes"
    assert beyond.headers["content-range"] == f"bytes */{len(PNG)}"


@pytest.mark.parametrize(
    "asked", ["bytes=5-1", "bytes", "bytes=", "bytes=x-y", "items=1-2", "bytes=9" * 99, "bytes=0-0,5-5", "bytes=-"]
)
@pytest.mark.parametrize("num_more", [0, 200_000])
async def test_what_is_no_range_of_one_part_is_ignored(
    shop: httpx.AsyncClient, root: Path, asked: str, num_more: int
) -> None:
    """Small pictures and those that are sent piece by piece."""
    (root / "images" / "1.png").write_bytes(PNG + bytes(num_more))

    whole = await shop.get(url_of("item-1"), headers={"Range": asked})

    assert (whole.status_code, whole.content) == (200, PNG + bytes(num_more))


@pytest.mark.parametrize("asked", ["bytes=-0", "bytes=108-", "bytes=999999999999999999-"])
async def test_a_range_behind_the_end_is_a_problem(shop: httpx.AsyncClient, asked: str) -> None:
    check_problem(await shop.get(url_of("item-1"), headers={"Range": asked}), 416, "range_not_satisfiable")
    other = await shop.get(url_of("item-1"), headers={"Range": asked, "If-Range": '"of another picture"'})
    assert (other.status_code, other.content) == (200, PNG)


@pytest.mark.parametrize(
    "reference",
    [
        "../secret.png",
        "images/../../secret.png",
        "/etc/passwd",
        "..\\secret.png",
        "images\\..\\..\\secret.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http://[",
        "a\nb",
        ".",
        "images",
        "x" * 300,
    ],
)
async def test_no_name_in_the_catalog_leads_out_of_the_folder(
    shop: httpx.AsyncClient, root: Path, reference: str
) -> None:
    (root.parent / "secret.png").write_bytes(PNG)
    await name_picture(shop, reference)

    response = await shop.get(url_of("item-1"))

    assert (response.status_code, response.json()["code"]) == (404, "unknown_picture")
    assert str(root) not in response.text


@pytest.mark.parametrize("path", ["..%2f..%2fsecret.png", "%2e%2e/%2e%2e", "item-1%00", "%2fetc%2fpasswd", "ä"])
async def test_no_path_of_a_request_reaches_a_file(shop: httpx.AsyncClient, path: str) -> None:
    assert (await shop.get(url_of(path))).status_code == 404


async def test_a_link_out_of_the_folder_is_not_followed(shop: httpx.AsyncClient, root: Path) -> None:
    (root.parent / "secret.png").write_bytes(PNG)
    (root / "images" / "1.png").unlink()
    (root / "images" / "1.png").symlink_to(root.parent / "secret.png")
    out = await shop.get(url_of("item-1"))
    (root / "images" / "1.png").unlink()
    (root / "images" / "1.png").symlink_to(root / "images" / "2.png")
    (root / "images" / "2.png").write_bytes(PNG)
    inside = await shop.get(url_of("item-1"))

    assert (out.status_code, inside.status_code) == (404, 200)


async def test_a_pipe_is_not_waited_for(shop: httpx.AsyncClient, root: Path) -> None:
    (root / "images" / "1.png").unlink()
    os.mkfifo(root / "images" / "1.png")

    assert (await shop.get(url_of("item-1"))).status_code == 404


async def test_a_picture_that_is_too_large_is_not_sent(shop: httpx.AsyncClient, root: Path) -> None:
    with (root / "images" / "1.png").open("r+b") as file:
        file.truncate(MAX_BYTES + 1)

    response = await shop.get(url_of("item-1"))

    assert response.status_code == 404
    assert str(MAX_BYTES) in response.json()["detail"]


async def test_an_address_becomes_a_redirection(shop: httpx.AsyncClient) -> None:
    await name_picture(shop, "https://pictures.example/1 ä.png?size=2")

    response = await shop.get(url_of("item-1"))

    assert response.status_code == 307
    assert response.headers["location"] == "https://pictures.example/1%20%C3%A4.png?size=2"


async def test_unknown_domains_and_items_have_no_picture(shop: httpx.AsyncClient) -> None:
    domain, item = await shop.get("/domains/books/items/item-1/image"), await shop.get(url_of("nothing"))

    assert (domain.status_code, domain.json()["code"]) == (404, "unknown_domain")
    assert (item.status_code, item.json()["code"]) == (404, "unknown_item")


async def test_pictures_are_for_keys_that_may_browse_the_domain(
    settings: Settings, runtime: Runtime, root: Path, tmp_path: Path
) -> None:
    keys = {name: new_key(name, **options) for name, options in KEYS.items()}
    (tmp_path / "keys").write_text("".join(f"{key.line}\n" for key in keys.values()))
    given = settings.model_copy(update={"images_root": root, "api_keys_file": tmp_path / "keys"})
    async with client_of(create_app(given, lambda _: runtime)) as client:
        statuses = {
            name: (await client.get(url_of("item-1"), headers={"X-API-Key": key.key})).status_code
            for name, key in keys.items()
        }
        without = await client.get(url_of("item-1"))

    assert statuses == {"all": 200, "words": 403, "explain": 403}
    assert without.status_code == 401


KEYS: dict[str, dict[str, object]] = {"all": {}, "words": {"domains": ["words"]}, "explain": {"routes": ["explain"]}}


async def test_pictures_lie_in_the_bundle_or_beside_it(bundle: Path, tmp_path: Path) -> None:
    for place in ("bundle/domains/toys/images", "images", "bundle-pictures"):
        copy = tmp_path / place.replace("/", "-") / "bundle"
        shutil.copytree(bundle, copy)
        folder = copy.parent / place / "images"
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(PNG)
        write_manifest(copy)
        async with client_of(create_app(Settings(bundle=copy, num_threads=1))) as client:
            assert (await client.get(url_of("item-1"))).content == PNG, place
