"""A key or token may do what its line says, and no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from model.planning.runtime import Runtime
from service.cli.failures import UsageError
from service.cli.keys import new, new_admin
from service.errors import ApiKeysError, OverloadedError
from service.http.admin_tokens import new_admin_token
from service.http.api_keys import new_key
from service.http.app import create_app
from service.http.app_state import state_of
from service.settings.loading import SettingsError, load_settings
from service.settings.settings import Settings
from tests.service.conftest import client_of
from tests.service.live import TOKEN, bundle_of, live_settings, shop_of
from tests.service.test_bad_input import check_problem

SEQUENTIAL = "/recommend/sequential"
ASK: dict[str, Any] = {"domain": "toys", "history": ["item-1"], "k": 2}
EXPLAIN: dict[str, Any] = {"domain": "toys", "item_id": "item-1", "max_new_tokens": 4}

ALL = new_key("all")
TOYS = new_key("toys-only", domains=["toys"])
READER = new_key("reader", routes=["browse", "users"])
POOR = new_key("poor", quota="400/hour")


def header(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


@pytest.fixture
def app(settings: Settings, runtime: Runtime, tmp_path: Path) -> FastAPI:
    file = tmp_path / "keys.jsonl"
    file.write_text("\n".join(each.line for each in (ALL, TOYS, READER, POOR)))
    return create_app(settings.model_copy(update={"api_keys_file": file}), lambda _: runtime)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def test_a_key_sees_and_uses_its_domains_only(client: httpx.AsyncClient) -> None:
    toys = header(TOYS.key)
    assert (await client.post(SEQUENTIAL, json=ASK, headers=toys)).status_code == 200
    assert [each["name"] for each in (await client.get("/domains", headers=toys)).json()["domains"]] == ["toys"]
    refused = [
        await client.post(SEQUENTIAL, json=ASK | {"domain": "words"}, headers=toys),
        await client.post("/recommend/direct", json={"domain": "words"}, headers=toys),
        await client.post("/explain", json=EXPLAIN | {"domain": "words"}, headers=toys),
        await client.post("/explain", json=EXPLAIN | {"domain": "words", "stream": True}, headers=toys),
        await client.get("/domains/words", headers=toys),
        await client.get("/domains/words/items", headers=toys),
    ]
    for response in refused:
        problem = check_problem(response, 403, "forbidden")
        assert "'toys-only' may use the domains toys, and this needs 'words'" in problem["detail"]
    everything = (await client.get("/domains", headers=header(ALL.key))).json()["domains"]
    assert [each["name"] for each in everything] == ["toys", "words"]


async def test_a_key_uses_its_routes_only(client: httpx.AsyncClient) -> None:
    reader = header(READER.key)
    assert (await client.get("/domains/toys/items", headers=reader)).status_code == 200
    assert (await client.get("/domains/toys/users", headers=reader)).status_code == 200
    for path, body in ((SEQUENTIAL, ASK), ("/explain", EXPLAIN)):
        check_problem(await client.post(path, json=body, headers=reader), 403, "forbidden")


async def test_names_of_users_are_read_only_with_that_scope(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/domains/toys/users", headers=header(ALL.key)), 403, "forbidden")


async def test_a_quota_counts_tokens_and_not_requests(client: httpx.AsyncClient) -> None:
    poor = header(POOR.key)
    dear = ASK | {"history": [f"item-{number}" for number in range(1, 31)], "num_beams": 100}
    check_problem(await client.post(SEQUENTIAL, json=dear, headers=poor), 429, "rate_limited")
    assert (await client.post(SEQUENTIAL, json=ASK, headers=poor)).status_code == 200, "nothing was counted for it"
    statuses = [(await client.post(SEQUENTIAL, json=ASK, headers=poor)).status_code for _ in range(4)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert (await client.post(SEQUENTIAL, json=dear, headers=header(ALL.key))).status_code == 200


async def test_a_request_that_is_refused_after_it_was_charged_gets_its_quota_back(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = state_of(app).service.lanes.ranking

    def refuse(*_: object, **__: object) -> None:
        raise OverloadedError("the answer would take too long; retry in 1 s", retry_after_s=1)

    poor = header(POOR.key)
    with monkeypatch.context() as patched:
        patched.setattr(lane, "submit", refuse)
        for _ in range(20):
            check_problem(await client.post(SEQUENTIAL, json=ASK, headers=poor), 429, "overloaded")
    assert (await client.post(SEQUENTIAL, json=ASK, headers=poor)).status_code == 200
    for _ in range(20):
        bad = await client.post(SEQUENTIAL, json=ASK | {"where": {"nothing": ["x"]}}, headers=poor)
        check_problem(bad, 422, "unknown_column")
    assert (await client.post(SEQUENTIAL, json=ASK, headers=poor)).status_code == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"routes": ["everything"]}, "routes"),
        ({"share": 0.0}, "share"),
        ({"quota": "lots"}, "1000000/hour"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(options: dict[str, object], words: str) -> None:
    with pytest.raises(ApiKeysError, match=words):
        new_key("shop", **options)


async def test_a_token_does_what_its_rights_say(tmp_path: Path) -> None:
    bundle_of(tmp_path / "first", seed=1)
    stock = new_admin_token("stock", ("read", "catalog"))
    viewer = new_admin_token("viewer", ("read",))
    file = tmp_path / "tokens.jsonl"
    file.write_text(f"{stock.line}\n{viewer.line}")
    async with shop_of(live_settings(tmp_path, admin_tokens_file=file)) as shop:

        async def as_(token: str, method: str, path: str, status: int, **body: object) -> None:
            headers = {"Authorization": f"Bearer {token}"}
            content = {"json": body} if method != "GET" else {}
            response = await shop.client.request(method, f"/admin{path}", headers=headers, **content)  # type: ignore[arg-type]
            assert response.status_code == status, response.text

        for token in (TOKEN, stock.key, viewer.key):
            await as_(token, "GET", "/domains", 200)
        await as_(stock.key, "PATCH", "/domains/toys/catalog", 200, deactivate=["item-3"])
        await as_(viewer.key, "PATCH", "/domains/toys/catalog", 403, activate=["item-3"])
        for token in (stock.key, viewer.key):
            await as_(token, "POST", "/domains/toys/swap", 403)
            await as_(token, "POST", "/drain", 403)
        await as_("vip5_admin_wrong", "GET", "/domains", 401)
        file.write_text(viewer.line)
        await as_(stock.key, "GET", "/domains", 401)
        await as_(viewer.key, "GET", "/domains", 200)


async def test_tokens_of_a_file_enable_administration_by_themselves(tmp_path: Path) -> None:
    bundle_of(tmp_path / "first", seed=1)
    made = new_admin_token("ops")
    file = tmp_path / "tokens.jsonl"
    file.write_text(made.line)
    settings = live_settings(tmp_path, admin_tokens_file=file).model_copy(update={"admin_token": None})
    async with shop_of(settings) as shop:
        for given, status in ((made.key, 200), (TOKEN, 401), ("", 401)):
            headers = {"Authorization": f"Bearer {given}"}
            assert (await shop.client.get("/admin/domains", headers=headers)).status_code == status


def test_a_short_admin_token_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIP5_ADMIN_TOKEN", "a")
    with pytest.raises(SettingsError, match="at least 16"):
        load_settings({"bundle": tmp_path})


def test_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-a-mounted-file\n")
    monkeypatch.setenv("VIP5_ADMIN_TOKEN_FILE", str(tmp_path / "token"))
    settings = load_settings({"bundle": tmp_path})
    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == "a-token-of-a-mounted-file"
    monkeypatch.setenv("VIP5_ADMIN_TOKEN", "another-token-of-16")
    with pytest.raises(SettingsError, match="VIP5_ADMIN_TOKEN and VIP5_ADMIN_TOKEN_FILE are both set"):
        load_settings({"bundle": tmp_path})
    monkeypatch.delenv("VIP5_ADMIN_TOKEN")
    monkeypatch.setenv("VIP5_ADMIN_TOKEN_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match=r"nothing'.*cannot be read"):
        load_settings({"bundle": tmp_path})


def test_commands_print_a_secret_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    new("shop", domains=["toys"], share=2.0)
    key, line = (each.partition(": ")[2].strip() for each in capsys.readouterr().out.splitlines())
    assert key.startswith("vip5_")
    assert json.loads(line) == {"id": "shop", "sha256": json.loads(line)["sha256"], "domains": ["toys"], "share": 2.0}
    new_admin("ops", rights=["read"])
    token, line = (each.partition(": ")[2].strip() for each in capsys.readouterr().out.splitlines())
    assert token.startswith("vip5_admin_")
    assert json.loads(line)["rights"] == ["read"]
    with pytest.raises(UsageError, match="rights"):
        new_admin("ops", rights=["everything"])
