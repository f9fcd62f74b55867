"""Signing is introduced, and its secret changed, without losing a change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.errors import JournalError
from service.versions.formats import encode_entry
from tests.e2e.journals import (
    STREAM,
    copied,
    items,
    journal_of,
    put_back,
    served,
    stock,
)
from tests.e2e.test_redis_signed_journal import OTHER, SIGNING
from tests.redis_servers import RedisServer
from tests.unit.versions.entries import stock_entry


async def test_without_a_secret_signed_data_is_read(server: RedisServer) -> None:
    async with journal_of(server, 2, signing=SIGNING) as one, journal_of(server) as plain:
        await stock(one, 1, 2)
        await one.catch_up()
        await stock(one, 3, 3)
        await plain.open()
        assert (served(plain), plain.problems) == (items(1, 2, 3), [])


async def test_signing_is_introduced_without_losing_a_change(server: RedisServer) -> None:
    introducing = replace(SIGNING, accepts_unsigned=True)
    async with (
        journal_of(server, 3) as plain,
        journal_of(server, signing=introducing) as lenient,
        journal_of(server, signing=SIGNING) as strict,
    ):
        await stock(plain, 1, 4)
        await plain.catch_up()
        await stock(plain, 5, 5)
        await lenient.open()
        await stock(lenient, 6, 6)
        await stock(plain, 7, 7)
        await stock(lenient, 8, 9)
        await plain.catch_up()
        assert served(plain) == served(lenient) == items(*range(1, 10))
        assert lenient.problems == []

        await lenient.resolve("served")
        await strict.open()
        assert (served(strict), strict.problems) == (items(*range(1, 10)), [])
        await stock(strict, 10, 10)
        await lenient.catch_up()
        await stock(lenient, 11, 11)
        await strict.catch_up()
        assert (served(strict), strict.problems) == (items(*range(1, 12)), [])
        await plain.catch_up()
        with server.client as client:
            client.xadd(STREAM, {"entry": encode_entry(stock_entry(12, "junk"))})
        await strict.catch_up()
        assert served(strict) == items(*range(1, 12))


async def test_the_secret_is_changed_without_losing_a_change(server: RedisServer) -> None:
    knows_next = replace(SIGNING, other=OTHER.secret)
    knows_former = replace(OTHER, other=SIGNING.secret)
    async with journal_of(server, signing=knows_next) as one, journal_of(server, signing=knows_former) as other:
        await stock(one, 1, 2)
        await other.open()
        await stock(other, 3, 3)
        await one.catch_up()
        await stock(one, 4, 4)
        await other.catch_up()
        await other.resolve("served")
        await one.catch_up()
        async with journal_of(server, signing=OTHER) as last:
            await last.open()
            for journal in (one, other, last):
                assert (served(journal), journal.problems) == (items(1, 2, 3, 4), [])


@pytest.mark.parametrize("keep", ["served", "stored"])
async def test_two_signed_pasts_wait_for_a_decision_which_is_signed(server: RedisServer, keep: str) -> None:
    async with journal_of(server, signing=SIGNING) as one, journal_of(server, signing=SIGNING) as other:
        await stock(one, 1, 2)
        await other.catch_up()
        older = copied(server)
        await one.append(stock_entry(3, "one"))
        put_back(server, older)
        await other.append(stock_entry(3, "other"))
        with pytest.raises(JournalError):
            await one.catch_up()
        await one.resolve(keep)  # type: ignore[arg-type]
        await other.catch_up()
        await stock(other, 4, 4)
        await one.catch_up()
        expected = items(1, 2, 4) | ({"one"} if keep == "served" else {"other"})
        for journal in (one, other):
            assert (served(journal), journal.problems) == (expected, [])
