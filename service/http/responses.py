"""JSON responses, and cancellation when the client disconnects."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi.responses import Response
from starlette.types import Receive

from feature_cache.background import awaited
from service.answering.answers import Recommendation
from service.http.leaving import while_watched

T = TypeVar("T")


def json_response(answer: Recommendation) -> Response:
    """Skips the framework's validation of response models: what describes the answer to clients is tested."""
    return Response(answer.json(), media_type="application/json")


def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The result of `work`. Cancels it and raises ClientDisconnectedError if the client closes the connection."""

    def watching(leave: Callable[[], None]) -> Callable[[], object]:
        return awaited(_watch(receive, leave)).cancel

    return while_watched(watching, work)


async def _watch(receive: Receive, leave: Callable[[], None]) -> None:
    with suppress(Exception):  # a connection that fails is one that ends
        while (await receive())["type"] != "http.disconnect":
            pass
    leave()
