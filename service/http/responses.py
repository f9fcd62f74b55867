"""JSON responses, and cancellation when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive

from feature_cache.background import awaited
from service.answering.answers import Recommendation
from service.errors import ClientDisconnectedError

T = TypeVar("T")


def json_response(answer: Recommendation) -> Response:
    """Skips the framework's validation of response models: what describes the answer to clients is tested."""
    return Response(answer.json(), media_type="application/json")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises ClientDisconnectedError if the client closes the connection."""
    answer = awaited(work)
    disconnected = awaited(_disconnect(request.receive))
    try:
        await asyncio.wait((answer, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnectedError("the client closed the connection before the answer was complete")
        return answer.result()
    finally:
        answer.cancel()
        disconnected.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
