"""Writes the head of an answer together with what follows in the same pass of the event loop.

uvicorn writes head and body one after the other, and uvloop sends each at once: two system calls and two packets for
an answer, and two wake-ups of its client.
"""

from __future__ import annotations

import asyncio
from typing import Any

HEAD = b"HTTP/1."
INFORMATIONAL = b" 1"
"""What follows the version in a head such as `100 Continue`, which has no body and must not wait."""


class JoinedWrites(asyncio.Transport):
    """A connection's transport around the event loop's own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data[:7] == HEAD and data[8:10] != INFORMATIONAL:
            self._head = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._head = b""
        self._transport.abort()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + len(self._head)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  # the base class's signature
        return self._transport.get_extra_info(name, default)
