"""Reads JSON request bodies within limits on size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.types import Message, Receive

from service.errors import BodyTimeoutError, BodyTooLargeError, ClientDisconnectedError, ContentTypeError
from service.http.app_state import state_of
from service.http.body_budget import HeldBody


async def with_json_body(request: Request, held: HeldBody | None = None) -> Request:
    """The request with its body read, and counted in `held`, if that is given.

    Raises ContentTypeError, BodyTooLargeError, BodyTimeoutError, ClientDisconnectedError and OverloadedError.
    """
    _check_content_type(request.headers.get("content-type", ""))
    _check_content_encoding(request.headers.get("content-encoding", ""))
    state = state_of(request.app)
    try:
        async with asyncio.timeout(state.receive_s):
            body = await _read_body(request, state.max_body_bytes, held)
    except TimeoutError as error:
        raise BodyTimeoutError.after(state.receive_s) from error
    return Request(request.scope, _replay(body, request.receive))


def _check_content_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ContentTypeError(f"the Content-Type is {content_type[:100]!r}; send JSON as application/json")


def _check_content_encoding(content_encoding: str) -> None:
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise ContentTypeError(f"the Content-Encoding is {content_encoding[:100]!r}; send uncompressed JSON")


async def _read_body(request: Request, max_bytes: int, held: HeldBody | None) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body has {declared} bytes, the limit is {max_bytes}; send less")
    chunks: list[bytes] = []
    length = 0
    async for chunk in _stream(request):
        length += len(chunk)
        if length > max_bytes:
            raise BodyTooLargeError(f"the body exceeds the limit of {max_bytes} bytes; send less")
        if held is not None:
            held.grow_to(length)
        chunks.append(chunk)
    return b"".join(chunks)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError("the client closed the connection before its request was complete")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Replays the body, then continues with `receive`."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
