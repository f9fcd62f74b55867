"""JSON responses, and cancellation when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi.responses import Response
from starlette.types import Receive

from feature_cache.background import awaited
from service.answering.answers import Recommendation
from service.errors import ClientDisconnectedError

T = TypeVar("T")


def json_response(answer: Recommendation) -> Response:
    """Skips the framework's validation of response models: what describes the answer to clients is tested."""
    return Response(answer.json(), media_type="application/json")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises ClientDisconnectedError if the client closes the connection."""
    working = asyncio.current_task()
    assert working is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        with suppress(Exception):  # a connection that fails is one that ends
            while (await receive())["type"] != "http.disconnect":
                pass
        is_gone = True
        working.cancel()  # it waits for the work, as this runs

    watching = awaited(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not working.uncancel():
            message = "the client closed the connection before the answer was complete"
            raise ClientDisconnectedError(message) from None
        raise
    finally:
        watching.cancel()
