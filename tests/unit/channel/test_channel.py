"""The ends of a channel: order, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from service.channel.channel import Channel


class Ping(msgspec.Struct, array_like=True, tag="ping"):
    number: int
    content: object = None


class End:
    """One end, and what it has seen."""

    def __init__(self, handle: Callable[[Any], None] | None = None) -> None:
        self.heard: list[int] = []
        self.is_lost = asyncio.Event()
        self._handle = handle
        self.channel: Channel

    async def connect(self, own: socket.socket) -> None:
        self.channel = await Channel.over(own, Ping, self._note, self.is_lost.set)

    def _note(self, message: Ping) -> None:
        self.heard.append(message.number)
        if self._handle is not None:
            self._handle(message)


async def ends(handle: Callable[[Any], None] | None = None) -> tuple[End, End]:
    sockets = socket.socketpair()
    both = End(), End(handle)
    for end, own in zip(both, sockets, strict=True):
        await end.connect(own)
    return both


async def test_messages_keep_their_order_and_the_last_ones_arrive() -> None:
    first, second = await ends()
    for number in range(500):
        first.channel.send(Ping(number, b"x" * number))
        if number % 7 == 0:
            await asyncio.sleep(0)
    first.channel.close()
    await asyncio.wait_for(second.is_lost.wait(), 10)
    assert second.heard == list(range(500))
    assert not second.channel.is_broken


async def test_a_message_that_cannot_be_handled_ends_the_channel_and_is_not_handled_again() -> None:
    def fail(message: Ping) -> None:
        if message.number == 1:
            raise RuntimeError("of the handler")

    first, second = await ends(fail)
    for number in range(3):
        first.channel.send(Ping(number))
    await asyncio.wait_for(asyncio.gather(first.is_lost.wait(), second.is_lost.wait()), 10)
    assert second.heard == [0, 1]
    assert (first.channel.is_broken, second.channel.is_broken) == (False, True)


async def test_a_message_that_cannot_be_written_ends_the_channel_instead_of_blocking_it() -> None:
    first, second = await ends()
    first.channel.send(Ping(0, object()))
    await asyncio.wait_for(asyncio.gather(first.is_lost.wait(), second.is_lost.wait()), 10)
    assert first.channel.is_broken


async def test_a_peer_that_reads_nothing_loses_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.channel.channel.MAX_UNREAD_BYTES", 1 << 20)
    ours, theirs = socket.socketpair()
    end = End()
    with theirs:
        await end.connect(ours)
        for number in range(64):
            end.channel.send(Ping(number, bytes(1 << 16)))
            await asyncio.sleep(0)
        await asyncio.wait_for(end.is_lost.wait(), 10)
    assert end.channel.is_broken
