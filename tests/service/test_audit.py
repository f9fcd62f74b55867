"""The audit log names each administrative call and each refused credential, and never a secret."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
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
    told = [(line["actor"], line["path"], line["status"], line["error"]) for line in found]
    assert [each for each in told if each[1].startswith("/admin")] == [
        ("admin", "/admin/domains/toys/catalog", 200, None),
        ("admin", "/admin/domains/toys/catalog", 404, "unknown_item"),
        ("admin", "/admin/domains/toys/load", 404, "unknown_bundle"),
        ("reader", "/admin/drain", 403, "forbidden"),
        (None, "/admin/domains", 401, "unauthorized"),
    ]
    # Each worker writes its own lines, which may thus have changed places.
    assert sorted((each for each in told if not each[1].startswith("/admin")), key=str) == [
        ("other", "/recommend/sequential", 403, "forbidden"),
        (None, "/recommend/sequential", 401, "unauthorized"),
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


class StalledDisk:
    """A disk on which flushing waits until it is freed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached = threading.Event()
        self.is_free = threading.Event()
        self.num_flushes = 0
        flush = os.fsync

        def wait_and_flush(descriptor: int) -> None:
            self.num_flushes += 1
            self.is_reached.set()
            self.is_free.wait()
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", wait_and_flush)


async def test_a_flood_of_refusals_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_WAITING", 3)
    disk = StalledDisk(monkeypatch)
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(10):
        log.note({"number": number})
    disk.is_free.set()
    await log.write({"number": "last"})
    await asyncio.to_thread(log.close)
    found = lines_of(tmp_path / "audit.jsonl")
    assert [line["number"] for line in found] == [0, 1, 2, "last"]
    assert found[-1]["num_dropped_before"] == 7


async def test_many_lines_that_wait_are_flushed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = StalledDisk(monkeypatch)
    log = AuditLog(tmp_path / "audit.jsonl")
    log.note({"number": "first"})
    assert disk.is_reached.wait(10)
    for number in range(100):
        log.note({"number": number})
    disk.is_free.set()
    await log.write({"number": "last"})
    await asyncio.to_thread(log.close)
    assert len(lines_of(tmp_path / "audit.jsonl")) == 102
    assert disk.num_flushes <= 3, "an administrative call does not wait for a flush of each refusal before it"


async def test_a_stalled_disk_delays_one_call_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WAIT_S", 0.01)
    monkeypatch.setattr(audit, "MAX_WAITING", 5)
    disk = StalledDisk(monkeypatch)
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(5):
        await log.write({"number": number})
    assert "does not answer" in log.problems[0]
    disk.is_free.set()
    monkeypatch.setattr(audit, "WAIT_S", 10)
    await asyncio.to_thread(log.close)
    assert [line["number"] for line in lines_of(tmp_path / "audit.jsonl")] == list(range(5))
    assert log.problems == ()


async def test_a_stalled_disk_does_not_keep_the_process_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WAIT_S", 0.01)
    disk = StalledDisk(monkeypatch)
    log = AuditLog(tmp_path / "audit.jsonl")
    log.note({"number": 1})
    await asyncio.to_thread(log.close)
    assert "does not answer" in log.problems[0]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("audit-log"))
    disk.is_free.set()


async def test_a_call_that_is_cancelled_while_the_disk_is_slow_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = StalledDisk(monkeypatch)
    log = AuditLog(tmp_path / "audit.jsonl")
    log.note({"number": 1})
    assert disk.is_reached.wait(10)
    call = asyncio.create_task(log.write({"number": 2}))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    disk.is_free.set()
    await asyncio.to_thread(log.close)
    assert [line["number"] for line in lines_of(tmp_path / "audit.jsonl")] == [1, 2]


async def test_lines_that_a_full_disk_refused_are_counted_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    write = os.write
    monkeypatch.setattr(os, "write", lambda *_: 0)
    await log.write({"number": 1})
    await log.write({"number": 2})
    monkeypatch.setattr(os, "write", write)
    await log.write({"number": 3})
    await asyncio.to_thread(log.close)
    (line,) = lines_of(tmp_path / "audit.jsonl")
    assert (line["number"], line["num_dropped_before"]) == (3, 2)


async def test_a_line_that_a_process_did_not_end_stays_apart_from_the_next(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"number": 1}\n{"numb')
    log = AuditLog(tmp_path / "audit.jsonl")
    await log.write({"number": 2})
    await asyncio.to_thread(log.close)
    first, _, last = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert (json.loads(first)["number"], json.loads(last)["number"]) == (1, 2)


NOT_TEXT = '{"deactivate": ["\\ud800"]}'
DEEP = "[" * 4_000
SECRET = '{"bundle": "summer", "token": "a secret in the wrong place"}'
NOT_A_NUMBER = '{"set": {"item-2": {"price": NaN}}}'


@pytest.mark.parametrize(
    ("body", "status"), [(NOT_TEXT, 422), (DEEP, 400), (SECRET, 422), (NOT_A_NUMBER, 422), ("{", 400)]
)
async def test_a_body_that_is_refused_leaves_its_digest_and_the_status_of_its_answer(
    tmp_path: Path, body: str, status: int
) -> None:
    bundle_of(tmp_path / "first", seed=1)
    log = tmp_path / "audit.jsonl"
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    async with shop_of(live_settings(tmp_path, audit_log=log)) as shop:
        answer = await shop.client.patch("/admin/domains/toys/catalog", content=body, headers=headers)
    assert answer.status_code == status
    (line,) = lines_of(log)
    assert (line["status"], line["error"]) == (status, answer.json()["code"])
    assert line["body"] == {"num_bytes": len(body), "sha256": hashlib.sha256(body.encode()).hexdigest()}


async def test_a_long_path_does_not_fill_the_file(tmp_path: Path) -> None:
    bundle_of(tmp_path / "first", seed=1)
    log = tmp_path / "audit.jsonl"
    async with shop_of(live_settings(tmp_path, audit_log=log)) as shop:
        await shop.client.get(f"/admin/domains/{'x' * 50_000}", headers={"Authorization": "Bearer guessed"})
    assert log.stat().st_size < 1_000


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_a_regular_file_is_taken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(AuditLogError, match="choose another VIP5_AUDIT_LOG"):
        AuditLog(path)


def test_a_path_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(AuditLogError, match="choose another VIP5_AUDIT_LOG"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl")
