"""What the server knows of a request: its body, and whether its client is still there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import ClientDisconnectedError, MalformedRequestError
from service.http.incoming import EXTENSION, Incoming, incoming_of

BODY = b'{"domain": "toys"}'


class Cycle:
    """Uvicorn's part of a request, as far as it is used."""

    def __init__(self) -> None:
        self.body = bytearray(BODY)
        self.disconnected = False
        self.message_event = asyncio.Event()


def begun(**known: Any) -> Incoming:  # noqa: ANN401
    incoming = Incoming(**known)
    incoming.begin(Cycle())  # type: ignore[arg-type]  # as far as it is used
    return incoming


async def never(started: asyncio.Event, ended: list[str]) -> None:
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("work")


async def test_a_body_is_known_once_all_of_it_has_come() -> None:
    incoming = begun()
    assert incoming.whole_body() is None
    incoming.is_complete = True
    assert incoming.whole_body() == BODY
    assert incoming.whole_body() == BODY, "to look at it takes nothing away"


async def test_no_body_is_known_of_a_client_that_is_gone_or_of_a_request_with_a_fault() -> None:
    gone = begun(is_complete=True)
    gone.note_gone()
    assert gone.whole_body() is None
    assert begun(is_complete=True, fault=MalformedRequestError("broken")).whole_body() is None


async def test_work_for_a_client_that_leaves_is_cancelled() -> None:
    incoming, started, ended = begun(), asyncio.Event(), list[str]()
    waiting = asyncio.create_task(incoming.while_connected(never(started, ended)))
    await started.wait()
    incoming.note_gone()
    with pytest.raises(ClientDisconnectedError):
        await waiting
    assert ended == ["work"]
    assert incoming.cycle.message_event.is_set()


async def test_work_that_others_cancel_is_not_taken_for_a_client_that_left() -> None:
    incoming, started, ended = begun(), asyncio.Event(), list[str]()
    waiting = asyncio.create_task(incoming.while_connected(never(started, ended)))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == ["work"]


async def test_a_client_that_leaves_after_the_answer_cancels_nothing() -> None:
    incoming = begun()

    async def work() -> int:
        return 3

    assert await incoming.while_connected(work()) == 3
    incoming.note_gone()
    await asyncio.sleep(0)


def test_other_servers_tell_nothing() -> None:
    incoming = Incoming()
    assert incoming_of({"type": "http"}) is None
    assert incoming_of({"type": "http", "extensions": {}}) is None
    assert incoming_of({"type": "http", "extensions": {EXTENSION: incoming}}) is incoming
