"""Clients that do not read, and what a change waits for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.http.app_state import state_of
from service.settings.settings import Settings
from tests.service.live import ASK, Shop, bundle_of, held_shop, live_settings, shop_of
from tests.service.raw_http import GET, listening
from tests.service.workers import answering_states_of

STALLED = {"type": "http", "method": "POST", "query_string": b"", "client": ("127.0.0.1", 1), "server": ("test", 80)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle_of(tmp_path / "first", seed=1)
    return tmp_path


@asynccontextmanager
async def unread(shop: Shop, path: str, body: dict[str, Any], kind: str) -> AsyncIterator[None]:
    """A request whose client does not read: sending the first message of this kind does not end."""
    content, is_stuck = json.dumps(body).encode(), asyncio.Event()
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    incoming.put_nowait({"type": "http.request", "body": content, "more_body": False})

    async def send(message: Message) -> None:
        if message["type"] == kind:
            is_stuck.set()
            await asyncio.Event().wait()

    headers = [(b"host", b"test"), (b"content-type", b"application/json")]
    scope = STALLED | {"path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http", "headers": headers}
    app = shop.client._transport.app  # type: ignore[attr-defined]  # the app, or its workers
    asking = asyncio.create_task(app(scope, incoming.get, send))
    try:
        await asyncio.wait_for(is_stuck.wait(), 60)
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_change_does_not_wait_for_a_client_to_read_its_answer(folder: Path) -> None:
    stuck = "http.response.start"
    async with shop_of(live_settings(folder)) as shop, unread(shop, "/recommend/sequential", ASK, stuck):
        await asyncio.wait_for(shop.patch(deactivate=["item-3"]), 20)


async def test_a_stream_that_nobody_reads_holds_its_version_until_the_text_is_made(folder: Path) -> None:
    body = {"domain": "toys", "item_id": "item-1", "stream": True, "max_new_tokens": 8}
    async with shop_of(live_settings(folder)) as shop, unread(shop, "/explain", body, "http.response.body"):
        placed = [state.service.domains.version("toys").placed for state in answering_states_of(shop.app)]
        async with asyncio.timeout(60):
            while any(each.references.value for each in placed):  # noqa: ASYNC110  # the text is made on a thread
                await asyncio.sleep(0.001)


async def test_a_change_says_which_requests_it_waited_for(folder: Path) -> None:
    async with held_shop(live_settings(folder, admin_wait_s=0.05)) as (shop, engine):
        running = await engine.hold(shop)
        change = {"deactivate": ["item-3"], "idempotency_key": "order-1"}
        problem = await shop.patch(504, **change)
        engine.gate.set()
        request_id = (await running)["request_id"]

        assert problem["code"] == "change_timeout"
        assert "(revision 1)" in problem["detail"]
        assert f"request {request_id}" in problem["detail"]
        assert (await shop.patch(200, **change))["catalog_revision"] == 1
        assert "item-3" not in [item["item_id"] for item in (await shop.ask(k=20))["items"]]


async def test_a_change_says_which_change_it_waited_for(folder: Path) -> None:
    async with shop_of(live_settings(folder, admin_wait_s=0.05)) as shop:
        administration = state_of(shop.app).service.administration
        async with administration.replica.lock("toys"):
            problems = [
                await shop.patch(504, deactivate=["item-3"]),
                await shop.admin("DELETE", "/domains/toys", 504),
                await shop.admin("POST", "/domains/toys/swap", 504, json={}),
            ]
        async with administration.turns.exclusive("toys", "a change of items"):
            problems.append(await shop.patch(504, deactivate=["item-3"]))

        assert {each["code"] for each in problems} == {"change_timeout"}
        assert problems[0]["detail"].startswith("a change in the journal of 'toys'")
        assert problems[-1]["detail"].startswith("a change of items of 'toys'")
        assert shop.revision() == 0
        assert (await shop.patch(deactivate=["item-3"]))["catalog_revision"] == 1


async def test_a_client_that_never_reads_is_disconnected(
    app: FastAPI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = settings.model_copy(update={"send_s": 0.1})
    with caplog.at_level(logging.INFO, "service.http.connections"):
        async with listening(app, impatient) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write((GET.replace(b"/health/live", b"/openapi.json") + b"\r\n") * 400)
            async with asyncio.timeout(60):
                while not caplog.records:  # noqa: ASYNC110  # a log has no event
                    await asyncio.sleep(0.001)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1 << 30)
            writer.close()

    assert caplog.records[0].message == "answer_not_read"
