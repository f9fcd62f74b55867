"""The audit log names each administrative call and each refused credential, and never a secret."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from service.errors import AuditLogError
from service.http.admin_tokens import new_admin_token
from service.http.api_keys import new_key
from service.observability import audit
from service.observability.audit import AuditLog
from tests.service.live import ASK, TOKEN, bundle_of, live_settings, shop_of


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_calls_and_refusals_are_recorded_with_who_what_and_result(tmp_path: Path) -> None:
    bundle_of(tmp_path / "first", seed=1)
    reader = new_admin_token("reader", ("read",))
    shop_key, words_key = new_key("shop"), new_key("other", domains=["words"])
    (tmp_path / "tokens.jsonl").write_text(reader.line)
    (tmp_path / "keys.jsonl").write_text(f"{shop_key.line}\n{words_key.line}")
    log = tmp_path / "audit.jsonl"
    files = {"admin_tokens_file": tmp_path / "tokens.jsonl", "api_keys_file": tmp_path / "keys.jsonl"}
    async with shop_of(live_settings(tmp_path, audit_log=log, **files)) as shop:
        await shop.patch(deactivate=["item-3"])
        await shop.patch(404, deactivate=["nothing"])
        await shop.load("nowhere", 404)
        client = shop.client
        as_reader = {"Authorization": f"Bearer {reader.key}"}
        await client.post("/admin/drain", headers=as_reader)
        await client.get("/admin/domains", headers={"Authorization": "Bearer guessed"})
        await client.post("/recommend/sequential", json=ASK, headers={"X-API-Key": "guessed"})
        await client.post("/recommend/sequential", json=ASK, headers={"X-API-Key": words_key.key})
        assert (await client.post("/recommend/sequential", json=ASK, headers={"X-API-Key": shop_key.key})).is_success

    found = lines_of(log)
    assert [(line["actor"], line["path"], line["status"], line["error"]) for line in found] == [
        ("admin", "/admin/domains/toys/catalog", 200, None),
        ("admin", "/admin/domains/toys/catalog", 404, "unknown_item"),
        ("admin", "/admin/domains/toys/load", 404, "unknown_bundle"),
        ("reader", "/admin/drain", 403, "forbidden"),
        (None, "/admin/domains", 401, "unauthorized"),
        (None, "/recommend/sequential", 401, "unauthorized"),
        ("other", "/recommend/sequential", 403, "forbidden"),
    ]
    assert found[0]["body"] == {"deactivate": ["item-3"]}
    assert all({"time", "address", "method", "request_id"} <= line.keys() for line in found)
    text = log.read_text()
    assert not any(secret in text for secret in (TOKEN, reader.key, shop_key.key, words_key.key, "guessed"))


async def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    await log.write({"number": 1})
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    await log.write({"number": 2})
    await asyncio.to_thread(log.close)
    assert [line["number"] for line in lines_of(tmp_path / "audit.jsonl.1")] == [1]
    assert [line["number"] for line in lines_of(tmp_path / "audit.jsonl")] == [2]


async def test_a_full_disk_is_reported_and_tears_one_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:10]))
    await log.write({"number": 1})
    assert "its disk is full" in log.problems[0]
    monkeypatch.setattr(os, "write", write)
    await log.write({"number": 2})
    assert log.problems == ()
    await asyncio.to_thread(log.close)
    torn, whole = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(torn) == 10
    assert json.loads(whole)["number"] == 2


async def test_a_flood_of_refusals_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_WAITING", 3)
    log = AuditLog(tmp_path / "audit.jsonl")
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    log._writer.submit(lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result())
    for number in range(10):
        log.note({"number": number})
    gate.set()
    await log.write({"number": "last"})
    await asyncio.to_thread(log.close)
    found = lines_of(tmp_path / "audit.jsonl")
    assert [line["number"] for line in found] == [0, 1, 2, "last"]
    assert found[-1]["num_dropped_before"] == 7


def test_a_path_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(AuditLogError, match="choose another VIP5_AUDIT_LOG"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl")
