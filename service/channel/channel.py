"""A stream of messages between two processes, in frames with all messages of one pass of the event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import msgspec

logger = logging.getLogger(__name__)

LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = (1 << 32) - 1
MAX_UNREAD_BYTES = 256 << 20
"""A peer that leaves more than this unread is taken for dead."""

_ENCODER = msgspec.msgpack.Encoder()


class Channel(asyncio.Protocol):
    """One end of a connected socket. Messages keep their order. Used on the event loop only."""

    def __init__(self, incoming: Any, on_message: Callable[[Any], None], on_lost: Callable[[], None]) -> None:  # noqa: ANN401  # a type of messages
        """`incoming` is the union of the messages that the other end sends.

        `on_lost` is called once, when the other end has closed the socket or cannot be understood.
        """
        self._decoder = msgspec.msgpack.Decoder(list[incoming])
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._outgoing: list[msgspec.Struct] = []
        self.is_broken = False
        """It was lost because this end gave it up."""
        self.before_flush: Callable[[], None] = lambda: None
        """Called before messages are written, to add some."""

    @classmethod
    async def over(
        cls,
        connected: socket.socket,
        incoming: Any,  # noqa: ANN401  # a type of messages
        on_message: Callable[[Any], None],
        on_lost: Callable[[], None],
    ) -> Channel:
        """The end of a socket, which it owns from now on."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(incoming, on_message, on_lost), sock=connected)
        return channel

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message; it is written at the end of this pass of the loop. Does nothing when the channel is lost."""
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(message)

    def close(self) -> None:
        """Write what is queued, and close the socket."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        unread: bytes | bytearray = data
        if self._unread:
            self._unread += data
            unread = self._unread
        start = 0
        while len(unread) - start >= LENGTH.size:
            end = start + LENGTH.size + LENGTH.unpack_from(unread, start)[0]
            if len(unread) < end:
                break
            if not self._deliver(memoryview(unread)[start + LENGTH.size : end]):
                self._break()
                return
            start = end
        if start or unread is data:
            self._unread = bytearray(unread[start:])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        if self._transport is not None:
            self._transport = None
            self._outgoing.clear()
            self._on_lost()

    def _deliver(self, frame: memoryview) -> bool:
        """False, with a line in the log, if the messages of a frame cannot be read or handled."""
        try:
            for message in self._decoder.decode(frame):
                self._on_message(message)
        except Exception:
            logger.exception("channel_broken")
            return False
        finally:
            frame.release()
        return True

    def _flush(self) -> None:
        if self._transport is None or not self._outgoing:
            return
        try:
            self.before_flush()
            frame = _ENCODER.encode(self._outgoing)
        except Exception:
            logger.exception("channel_broken")
            self._break()
            return
        self._outgoing.clear()
        num_unread = self._transport.get_write_buffer_size()
        if len(frame) > MAX_FRAME_BYTES or num_unread > MAX_UNREAD_BYTES:
            logger.error("channel_full", extra={"num_bytes": num_unread})
            self._break()
            return
        self._transport.writelines((LENGTH.pack(len(frame)), frame))

    def _break(self) -> None:
        """Close the socket at once: what travels cannot be trusted any more."""
        self.is_broken = True
        self._unread.clear()
        if self._transport is not None:
            self._transport.abort()
