"""What routes share: the parts of the app that they call, how bodies are read, how a client that left is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import Message, Receive

from service.epochs.administration import Administration
from service.epochs.domains import Domains
from service.errors import BodyTimeoutError, BodyTooLargeError, ClientGoneError, ContentTypeError
from service.explainer import Explainer
from service.liveness import Liveness
from service.problems import trace_of
from service.readiness import Readiness
from service.recommender import Recommender
from service.trace import RequestTrace

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """All that answers requests, over HTTP or from the command line."""

    domains: Domains
    recommender: Recommender
    explainer: Explainer
    administration: Administration
    problems: Callable[[], Sequence[str]]
    """What makes answers less than they could be now: embeddings that cannot be fetched, versions that are missing."""


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def readiness_of(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


def liveness_of(request: Request) -> Liveness:
    liveness: Liveness = request.app.state.liveness
    return liveness


def ready_service_of(request: Request) -> Service:
    """Raises NotReadyError and DrainingError."""
    readiness_of(request).require()
    return service_of(request)


async def _trace_of(request: Request) -> RequestTrace:
    # Not `trace_of` itself: FastAPI runs what is not a coroutine in a thread, at a millisecond or more.
    return trace_of(request)


Trace = Annotated[RequestTrace, Depends(_trace_of)]


def json_response(answer: BaseModel) -> Response:
    """What was made here need not be validated again, as the framework would."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection. Raises ClientGoneError then."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request.receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGoneError("the client closed the connection before the answer was there")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class JsonRoute(APIRoute):
    """A route that reads JSON of bounded length, whatever its length was said to be."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            return await handler(await with_json_body(request))

        return read_and_handle


async def with_json_body(request: Request) -> Request:
    """The request with its body read.

    Raises ContentTypeError, BodyTooLargeError, BodyTimeoutError and ClientGoneError.
    """
    _check_content_type(request.headers.get("content-type", ""))
    _check_content_encoding(request.headers.get("content-encoding", ""))
    receive_s: float = request.app.state.receive_s
    try:
        async with asyncio.timeout(receive_s):
            body = await _read_body(request, request.app.state.max_body_bytes)
    except TimeoutError as error:
        raise BodyTimeoutError(f"the body was not complete within {receive_s} s; send it faster") from error
    return Request(request.scope, _replay(body, request.receive))


def _check_content_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ContentTypeError(f"the Content-Type is {content_type[:100]!r}; send JSON as application/json")


def _check_content_encoding(content_encoding: str) -> None:
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise ContentTypeError(f"the Content-Encoding is {content_encoding[:100]!r}; send JSON that is not compressed")


async def _read_body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body is {declared} bytes long, the limit is {max_bytes}; send less")
    chunks: list[bytes] = []
    length = 0
    async for chunk in _stream(request):
        length += len(chunk)
        if length > max_bytes:
            raise BodyTooLargeError(f"the body is longer than {max_bytes} bytes, which is the limit; send less")
        chunks.append(chunk)
    return b"".join(chunks)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client closed the connection before its request was complete")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then whatever comes after it."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
