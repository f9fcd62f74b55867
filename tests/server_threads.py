"""Servers of the standard library, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer

POLL_S = 0.01
"""How soon a server notices that it is to end."""


@contextmanager
def serving_in_a_thread(server: BaseServer) -> Iterator[None]:
    """Answer inside the block, and close the server after it."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
