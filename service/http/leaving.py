"""Work for a client that leaves is cancelled, however that is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

from service.errors import ClientDisconnectedError

T = TypeVar("T")

GONE = "the client closed the connection before the answer was complete"

Watching: TypeAlias = Callable[[Callable[[], None]], Callable[[], object]]
"""Takes what is to be called when the client leaves, and returns what ends the watch."""


async def while_watched(watching: Watching, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises ClientDisconnectedError if the client leaves.

    Work that others cancel raises CancelledError.
    """
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    def leave() -> None:
        nonlocal is_gone
        is_gone = True
        working.cancel()  # it waits for the work, as this is called

    end = watching(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            raise ClientDisconnectedError(GONE) from None
        raise
    finally:
        end()
