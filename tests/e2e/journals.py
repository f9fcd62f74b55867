"""Journals in a real Redis, and what may happen to its data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from feature_cache.remote.address import RedisAddress
from feature_cache.remote.link import connect
from feature_cache.signing import Signing
from service.errors import JournalBrokenError
from service.observability.metrics import Metrics
from service.versions.journal import Update
from service.versions.redis_journal import RedisJournal
from service.versions.state import DomainState, States
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry

STREAM, LINKS, HISTORY, SNAPSHOT, REVISIONS = (
    f"vip5:{{shop}}:{part}" for part in ("journal", "links", "history", "snapshot", "revisions")
)
FORMER_APPEND = """
local revision = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if revision ~= tonumber(ARGV[2]) - 1 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('XADD', KEYS[1], '*', 'entry', ARGV[3])
return 1
"""
"""How releases append that know no histories."""


@asynccontextmanager
async def journal_of(
    server: RedisServer,
    entries_between_snapshots: int = 1000,
    metrics: Metrics | None = None,
    url: str = "",
    signing: Signing | None = None,
    service_id: str = "shop",
) -> AsyncIterator[RedisJournal]:
    link = connect(RedisAddress.parse(url or server.url))
    journal = RedisJournal(link, service_id, metrics or Metrics(), entries_between_snapshots, signing)
    try:
        yield journal
    finally:
        await journal.close()


async def stock(journal: RedisJournal, first: int, last: int) -> None:
    """Append entries with these revisions, each of which takes the item of its number out of stock."""
    for revision in range(first, last + 1):
        await journal.append(stock_entry(revision, f"item-{revision}"))


def copied(server: RedisServer) -> dict[bytes, bytes]:
    """All that a Redis holds."""
    with server.client as client:
        return {key: client.dump(key) for key in client.keys("*")}


def put_back(server: RedisServer, copy: dict[bytes, bytes]) -> None:
    """As a Redis does that starts from an older file, or a server that lags and takes over."""
    with server.client as client, client.pipeline(transaction=True) as pipeline:
        pipeline.flushall()
        for key, content in copy.items():
            pipeline.restore(key, 0, content)
        pipeline.execute()


def append_otherwise(server: RedisServer, content: bytes, revision: int, domain: str = "toys") -> None:
    """As another release appends."""
    with server.client as client:
        assert client.eval(FORMER_APPEND, 2, STREAM, REVISIONS, domain, revision, content) == 1


def toys(states: States | Update) -> DomainState:
    return (states.states if isinstance(states, Update) else states).get("toys", DomainState())


def served(journal: RedisJournal) -> set[str]:
    """Items that are out of stock in what a journal gives."""
    return {item_id for item_id, is_active in toys(journal._followed.states).changes.active.items() if not is_active}


def items(*numbers: int) -> set[str]:
    return {f"item-{number}" for number in numbers}


async def keeps_snapshot(journal: RedisJournal, server: RedisServer) -> None:
    """A replica that made changes 1 and 2 makes 3 to 6, loses the last one, and does not replace the snapshot."""
    await stock(journal, 3, 5)
    await journal.catch_up()
    older = copied(server)
    await stock(journal, 6, 6)
    put_back(server, older)
    with pytest.raises(JournalBrokenError):
        await journal.catch_up()
    assert copied(server)[SNAPSHOT.encode()] == older[SNAPSHOT.encode()]
    assert served(journal) == items(*range(1, 7))
