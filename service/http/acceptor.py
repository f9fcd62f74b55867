"""Accepts connections one by one, so that a shortage of file descriptors is seen where it arises.

Event loops accept all that wait at once, and libuv closes in silence what it has no descriptor for.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from feature_cache.background import Background
from service.http.descriptors import EXHAUSTED, Descriptors

MOST_PER_TURN = 64
"""Connections accepted before the event loop turns to others."""
PAUSE_S = 0.05
"""Pause after a connection for which there was no descriptor; it waits in the system's queue."""


class Acceptor:
    """Accepts on one socket until it is closed; takes the place of an asyncio.Server in uvicorn."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        descriptors: Descriptors,
        background: Background,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._descriptors = descriptors
        self._background = background
        self._connecting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False

    def start(self, backlog: int) -> None:
        self._listener.setblocking(False)  # noqa: FBT003  # the standard library's signature
        self._listener.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no more; may be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        for task in self._connecting:
            task.cancel()

    async def wait_closed(self) -> None:
        pass

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(MOST_PER_TURN):
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._descriptors.note_exhausted()
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(PAUSE_S, self._resume)
                return
            self._connect(client)
            if self._descriptors.is_short(client.fileno()):
                return  # let others be closed first

    def _connect(self, client: socket.socket) -> None:
        async def connect() -> None:
            try:
                await self._loop.connect_accepted_socket(self._make_protocol, client)
            except BaseException:
                client.close()
                raise

        task = self._background.once("accept", connect)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
