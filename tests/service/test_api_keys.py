"""Who has a key may ask; the keys are those of the file, as it is now."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.planning.runtime import Runtime
from service.errors import ApiKeysError, UnauthorizedError
from service.http.api_keys import KEY_PREFIX, ApiKeys, NewKey, new_key
from service.http.app import create_app
from service.http.identity import client_identity
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.test_bad_input import check_problem
from tests.service.workers import states_of

ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"], "k": 2}
OPEN_TO_ALL = {
    "/health/live",
    "/health/ready",
    "/v2/models/{name}/ready",
    "/metrics",
}


@pytest.fixture
def shop_key() -> NewKey:
    return new_key("shop")


@pytest.fixture
def file(tmp_path: Path, shop_key: NewKey) -> Path:
    return write(tmp_path / "keys.jsonl", [shop_key.line, new_key("app").line])


@pytest.fixture
def app(settings: Settings, runtime: Runtime, file: Path) -> FastAPI:
    return create_app(settings.model_copy(update={"api_keys_file": file}), lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def write(file: Path, lines: Sequence[str]) -> Path:
    """As an editor or an orchestrator does: the whole file at once."""
    fresh = file.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n")
    fresh.replace(file)
    return file


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_are_random_and_the_line_does_not_tell_them() -> None:
    first, second = new_key("shop"), new_key("shop")

    assert first.key != second.key
    assert first.key.startswith(KEY_PREFIX)
    assert len(first.key) >= len(KEY_PREFIX) + 43, "256 bits"
    assert first.key not in first.line
    assert first.key.removeprefix(KEY_PREFIX) not in first.line


@pytest.mark.parametrize("key_id", ["", "a b", "x" * 65, 'a"', "a\n"])
def test_an_id_that_cannot_be_one_is_refused(key_id: str) -> None:
    with pytest.raises(ApiKeysError, match="is not a valid key id"):
        new_key(key_id)


async def test_either_header_opens(client: httpx.AsyncClient, shop_key: NewKey) -> None:
    for headers in (bearer(shop_key.key), {"X-API-Key": shop_key.key}, {"Authorization": f"bearer  {shop_key.key} "}):
        assert (await client.post("/recommend/sequential", json=ASK, headers=headers)).status_code == 200
        assert (await client.get("/domains", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("vip5_wrong"),
        bearer(""),
        {"Authorization": "Bearer"},
        {"Authorization": "Basic vip5_wrong"},
        {"X-API-Key": "ü"},
        {"X-API-Key": "vip5_wrong"},
    ],
)
async def test_without_a_good_key_nothing_opens(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    response = await client.post("/recommend/sequential", content=b"no JSON", headers=sent)  # type: ignore[arg-type]

    problem = check_problem(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "send it as Authorization: Bearer KEY" in problem["detail"]


async def test_the_digest_itself_opens_nothing(client: httpx.AsyncClient, shop_key: NewKey) -> None:
    digest = shop_key.line.split('"')[-2]

    assert (await client.get("/domains", headers=bearer(digest))).status_code == 401


async def test_every_route_but_probes_and_metrics_asks_for_a_key(app: FastAPI, client: httpx.AsyncClient) -> None:
    paths: dict[str, dict[str, object]] = app.openapi()["paths"]
    assert paths.keys() > OPEN_TO_ALL
    for path, methods in paths.items():
        for method in methods:
            response = await client.request(method, path.replace("{name}", "toys"))
            assert (response.status_code == 401) is (path not in OPEN_TO_ALL), (method, path)


async def test_the_openapi_document_says_that_a_key_is_needed(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    operation = document["paths"]["/recommend/sequential"]["post"]
    assert {"APIKey": []} in operation["security"]
    assert "401" in operation["responses"]
    assert "security" not in document["paths"]["/health/ready"]["get"]


async def test_without_a_file_everybody_may_ask(settings: Settings, runtime: Runtime) -> None:
    async with client_of(create_app(settings, lambda _: runtime)) as client:
        assert (await client.get("/domains")).status_code == 200
        assert "APIKey" not in (await client.get("/openapi.json")).text


async def test_rate_limits_tell_clients_apart_by_the_ids_of_their_keys(
    app: FastAPI, client: httpx.AsyncClient, shop_key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "service.http.rate_limits.client_identity", lambda request: seen.append(client_identity(request))
    )
    for state in states_of(app):
        state.rate_limits, state.shared_counts = type("Unlimited", (), {"check": lambda *_: None})(), None

    await client.post("/recommend/sequential", json=ASK, headers=bearer(shop_key.key))

    assert seen == ["key shop"]


async def test_keys_come_and_go_while_it_runs(client: httpx.AsyncClient, file: Path, shop_key: NewKey) -> None:
    other = new_key("shop")
    write(file, [shop_key.line, other.line])
    for key in (shop_key.key, other.key):
        assert (await client.get("/domains", headers=bearer(key))).status_code == 200
    write(file, [other.line])
    assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 401
    assert (await client.get("/domains", headers=bearer(other.key))).status_code == 200


async def test_a_broken_line_voids_itself_and_undoes_no_revocation(
    app: FastAPI, client: httpx.AsyncClient, file: Path, shop_key: NewKey, caplog: pytest.LogCaptureFixture
) -> None:
    fallen = new_key("fallen")
    other = new_key("other")
    write(file, [shop_key.line, fallen.line])
    assert (await client.get("/domains", headers=bearer(fallen.key))).status_code == 200
    with caplog.at_level(logging.INFO):
        write(file, [other.line, fallen.key])  # a key where its digest should be; the others' lines were removed
        for _ in range(2):
            assert (await client.get("/domains", headers=bearer(other.key))).status_code == 200
        for revoked in (shop_key, fallen):
            assert (await client.get("/domains", headers=bearer(revoked.key))).status_code == 401
        (told,) = (await client.get("/health/ready")).json()["degraded"]
        write(file, [other.line])
        async with asyncio.timeout(30):  # workers report now and then
            while (await client.get("/health/ready")).json()["degraded"]:  # noqa: ASYNC110  # polls, as a probe does
                await asyncio.sleep(0.001)

    assert "line 2 of the API keys file keys.jsonl is invalid and admits nobody" in told
    assert str(file.parent) not in told
    events = [record.getMessage() for record in caplog.records if record.name == "service.http.credentials"]
    num_processes = len(states_of(app))
    assert events.count("api_keys_refused") == num_processes, "by each process once"
    assert set(events) == {"api_keys_read", "api_keys_refused"}
    assert fallen.key not in told
    assert not any(fallen.key in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("empties", [True, False], ids=["empty", "removed"])
async def test_an_empty_or_removed_file_admits_nobody_and_says_so(
    client: httpx.AsyncClient, file: Path, shop_key: NewKey, *, empties: bool
) -> None:
    assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 200
    if empties:
        write(file, [])
    else:
        file.unlink()
    for _ in range(2):
        assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 401
    (told,) = (await client.get("/health/ready")).json()["degraded"]
    assert "nobody is admitted" in told
    write(file, [shop_key.line])
    assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 200
    assert (await client.get("/health/ready")).json()["degraded"] == []


async def test_keys_stay_while_their_file_cannot_be_read(
    client: httpx.AsyncClient, file: Path, shop_key: NewKey
) -> None:
    file.unlink()
    file.mkdir()  # as a mount that went wrong
    assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 200
    (told,) = (await client.get("/health/ready")).json()["degraded"]
    assert "cannot be read" in told
    file.rmdir()
    assert (await client.get("/domains", headers=bearer(shop_key.key))).status_code == 401


def test_a_service_starts_with_an_empty_file_and_admits_nobody(tmp_path: Path) -> None:
    keys = ApiKeys(write(tmp_path / "keys.jsonl", []))
    (told,) = keys.problems
    assert "is empty, so nobody is admitted" in told
    with pytest.raises(UnauthorizedError):
        keys.check(None, None)


async def test_the_digest_of_nothing_admits_nobody(client: httpx.AsyncClient, file: Path, shop_key: NewKey) -> None:
    nothing = hashlib.sha256(b"").hexdigest()
    write(file, [shop_key.line, f'{{"id": "anyone", "sha256": "{nothing}"}}'])
    for headers in ({}, bearer(""), {"X-API-Key": ""}, {"Authorization": "Bearer "}):
        assert (await client.get("/domains", headers=headers)).status_code == 401
    (told,) = (await client.get("/health/ready")).json()["degraded"]
    assert "digest of an empty secret" in told


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"id": "shop"}'], "line 1 .* sha256: Field required"),
        (['{"id": "shop", "sha256": "abc"}'], "line 1 .* sha256"),
        ([new_key("a").line, '{"id": "a b", "sha256": "' + "0" * 64 + '"}'], "line 2 .* id"),
        ([new_key("a").line + ","], "line 1"),
        ([f'{{"id": "{name}", "sha256": "{"0" * 64}"}}' for name in "ab"], "the same secret as another line"),
    ],
)
def test_a_bad_file_stops_the_start(tmp_path: Path, lines: list[str], words: str) -> None:
    file = write(tmp_path / "keys.jsonl", lines)

    with pytest.raises(ApiKeysError, match=words):
        create_app(Settings(bundle=tmp_path, api_keys_file=file))


def test_a_file_that_is_not_there_or_too_long_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ApiKeysError, match="cannot be read"):
        ApiKeys(tmp_path / "keys.jsonl")
    with pytest.raises(ApiKeysError, match="larger than 1048576 bytes"):
        ApiKeys(write(tmp_path / "long", [" " * (1 << 20)]))


@pytest.mark.parametrize("is_known", [True, False])
def test_the_number_of_keys_does_not_lengthen_a_request(tmp_path: Path, *, is_known: bool) -> None:
    keys = [new_key(f"shop-{number}") for number in range(1_000)]

    def num_calls(number: int) -> int:
        accepted = ApiKeys(write(tmp_path / "keys.jsonl", [key.line for key in keys[:number]]))
        calls: list[str] = []
        sys.setprofile(lambda _, event, __: calls.append(event))
        try:
            accepted.check(None, keys[0].key if is_known else "vip5_guessed")
        except UnauthorizedError:
            assert not is_known
        finally:
            sys.setprofile(None)
        return len(calls)

    assert num_calls(1_000) == num_calls(2)


def test_a_file_is_read_again_only_when_it_has_changed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ApiKeys(file)
    monkeypatch.setattr(os, "open", None)  # reading it would fail

    assert keys.problems == ()
    os.utime(file, ns=(1, 1))
    with pytest.raises(TypeError):
        keys.problems  # noqa: B018  # looking is what reads it


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_a_file_from_any_editor_is_read(tmp_path: Path, start: str, ending: str) -> None:
    keys = [new_key("shop"), new_key("app")]
    path = tmp_path / "keys.jsonl"
    path.write_bytes((start + ending.join(key.line for key in keys) + ending).encode())
    accepted = ApiKeys(path)
    assert [accepted.check(None, key.key).id for key in keys] == ["shop", "app"]


def test_a_change_that_keeps_size_and_time_is_noticed(tmp_path: Path) -> None:
    before, after = new_key("shop"), new_key("shop")
    path = tmp_path / "keys.jsonl"
    path.write_text(before.line)
    accepted = ApiKeys(path)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_text(after.line)
    os.utime(path, ns=times)
    assert accepted.check(None, after.key).id == "shop"
    with pytest.raises(UnauthorizedError):
        accepted.check(None, before.key)


def test_a_file_that_has_grown_too_large_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key("shop")
    path = tmp_path / "keys.jsonl"
    path.write_text(key.line)
    accepted = ApiKeys(path)
    path.write_text("\n" * (2 << 20))
    opened: list[object] = []
    os_open = os.open

    def count_and_open(*given: Any, **more: Any) -> int:  # noqa: ANN401  # as os.open
        opened.append(given)
        return os_open(*given, **more)

    monkeypatch.setattr(os, "open", count_and_open)
    for _ in range(5):
        accepted.check(None, key.key)
    assert len(opened) == 1
    assert "is larger than" in accepted.problems[0]
    path.write_text(key.line)
    assert accepted.problems == ()


def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    key = new_key("shop")
    path = tmp_path / "keys.jsonl"
    path.write_text(key.line)
    accepted = ApiKeys(path)
    path.unlink()
    os.mkfifo(path)
    assert accepted.check(None, key.key).id == "shop", "as with any file that cannot be read"
    assert "not a regular file" in accepted.problems[0]
    with pytest.raises(ApiKeysError, match="not a regular file"):
        ApiKeys(path)
