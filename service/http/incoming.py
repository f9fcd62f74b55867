"""What the server knows of a request without messages of ASGI, each of which costs a task or a wake-up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.errors import ServiceError
from service.http.leaving import while_watched

T = TypeVar("T")

EXTENSION = "vip5.incoming"
"""Key of a scope's extensions. Other servers do not set it."""


def _ignore() -> None:
    """Nobody waits."""


@dataclass(eq=False)
class Incoming:
    """Progress of one request of a connection."""

    is_complete: bool = False
    """All of the body has come."""
    fault: ServiceError | None = None
    """Why the body cannot be read."""
    on_gone: Callable[[], None] = field(default=_ignore, repr=False)
    """Called when the connection is lost."""
    _cycle: RequestResponseCycle | None = field(default=None, repr=False)

    def begin(self, cycle: RequestResponseCycle) -> None:
        """Uvicorn's part of the request."""
        self._cycle = cycle

    @property
    def cycle(self) -> RequestResponseCycle:
        assert self._cycle is not None, "its headers are not complete"
        return self._cycle

    def note_gone(self) -> None:
        """The connection is lost."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.on_gone()

    def whole_body(self) -> bytes | None:
        """The body, if all of it has come and nothing of it was read. It can still be received as a message."""
        if not self.is_complete or self.fault is not None or self.cycle.disconnected:
            return None
        return bytes(self.cycle.body)

    def while_connected(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """The result of `work`. Cancels it and raises ClientDisconnectedError if the client closes the connection."""
        return while_watched(self._watch, work)

    def _watch(self, leave: Callable[[], None]) -> Callable[[], None]:
        self.on_gone = leave
        return self._end_watch

    def _end_watch(self) -> None:
        self.on_gone = _ignore


def incoming_of(scope: Scope) -> Incoming | None:
    """None on servers that do not tell."""
    found: Incoming | None = scope.get("extensions", {}).get(EXTENSION)
    return found
