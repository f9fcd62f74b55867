"""Answers plain requests for recommendations before FastAPI's machinery, which costs as much as planning them.

Plain is a valid body that has come whole, in a request that none of the layers below treats in its own way. Whatever
else there is to a request, it is handed over to those layers with the body, and they decide. Both ways give the same
status, headers and body (tests/service/test_quick_route.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TypeAlias

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import Vip5Error
from service.errors import BodyTimeoutError, UnauthorizedError
from service.http.api_keys import ApiKey
from service.http.app_state import AppState
from service.http.body_budget import SMALL_BYTES
from service.http.callers import note_key
from service.http.early_refusals import refuse_body
from service.http.incoming import incoming_of
from service.http.problems import answer_problem
from service.http.rate_limits import check_rate
from service.http.responses import while_connected
from service.http.route_classes import API_KEY, RecommendRoute
from service.observability.trace import RequestTrace
from service.schemas.ranking import DirectRequest, SequentialRequest
from service.settings.options import ProxyOptions

Body: TypeAlias = SequentialRequest | DirectRequest

BODIES: Mapping[str, type[Body]] = {
    "/recommend/sequential": SequentialRequest,
    "/recommend/direct": DirectRequest,
}
"""By path, the bodies of service/http/routes/recommend.py."""

OTHERS_DECIDE = frozenset((b"content-encoding", b"expect", b"origin"))
"""Request headers that the layers below look at."""


def needs_proxies(state: AppState, proxies: ProxyOptions) -> bool:
    """Whether the layer of service/http/proxies.py has a say in plain requests, so that it must come before."""
    has_proxies = bool(proxies.trusted or proxies.root_path or proxies.allowed_hosts is not None)
    return has_proxies or state.rate_limits is not None  # which count by the address that the layer finds


class QuickRoute:
    """ASGI middleware inside RequestContext, and inside of Proxies if that is needed."""

    def __init__(self, app: ASGIApp, state: AppState) -> None:
        self._app = app
        self._state = state
        self._max_bytes = min(SMALL_BYTES, state.max_body_bytes)
        self._bodies = BODIES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        kind = self._bodies.get(path)
        if kind is None or not _has_plain_headers(scope):
            await self._app(scope, receive, send)
            return
        trace: RequestTrace = scope["state"]["trace"]
        trace.route = path
        key = self._key_of(scope)
        if key is None and self._state.api_keys is not None:
            await self._app(scope, receive, send)
            return
        try:
            if self._state.rate_limits is not None:
                await self._count(scope, receive, key)
            incoming = incoming_of(scope)
            given = None if incoming is None else incoming.whole_body()
            if given is None:
                message = await self._first_message(receive)
                receive_again = _replay(message, receive)
                given = _whole(message)
            else:
                receive_again = receive
            body = None if given is None else self._body_of(given, kind, key)
            content = b"" if body is None else await self._content_of(body, scope, receive, key)
        except (Vip5Error, ValidationError) as error:
            response = answer_problem(Request(scope, receive), error, self._state.metrics, self._state.private_paths)
            await response(scope, receive, send)
            return
        if body is None:
            await self._app(scope, receive_again, send)
            return
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _count(self, scope: Scope, receive: Receive, key: ApiKey | None) -> None:
        """Count the request as the layers below would, which then do not. Raises RateLimitedError."""
        request = Request(scope, receive)
        if key is not None:
            note_key(request, key)
        await check_rate(request)
        request.state.is_counted = True

    async def _content_of(self, body: Body, scope: Scope, receive: Receive, key: ApiKey | None) -> bytes:
        self._state.readiness.require()
        trace: RequestTrace = scope["state"]["trace"]
        if key is not None and self._state.rate_limits is None:  # else it was noted when it was counted
            note_key(Request(scope), key)
        work = self._state.service.recommender.recommend(body, trace)
        incoming = incoming_of(scope)
        waiting = while_connected(receive, work) if incoming is None else incoming.while_connected(work)
        return (await waiting).json()

    async def _first_message(self, receive: Receive) -> Message:
        """Raises BodyTimeoutError."""
        try:
            async with asyncio.timeout(self._state.receive_s):
                return await receive()
        except TimeoutError as error:
            raise BodyTimeoutError.after(self._state.receive_s) from error

    def _key_of(self, scope: Scope) -> ApiKey | None:
        """The request's API key, if it may ask for recommendations; the layers below report what is wrong with it."""
        keys = self._state.api_keys
        if keys is None:
            return None
        headers = Headers(scope=scope)
        try:
            key = keys.check(headers.get("Authorization"), headers.get(API_KEY))
        except UnauthorizedError:
            return None
        return key if RecommendRoute.scope in key.routes else None

    def _body_of(self, content: bytes, kind: type[Body], key: ApiKey | None) -> Body | None:
        """None unless it is small and valid, and of a domain that the key may use.

        Raises QueueFullError and OverloadedError if the lane has just refused a request of the same client.
        """
        if len(content) > self._max_bytes:
            return None
        if self._state.running_service is not None:
            refuse_body(self._state, "" if key is None else key.id, "ranking", content)
        try:
            body = kind.model_validate(json.loads(content))
        except (ValueError, RecursionError):  # the layers below say what is wrong with it
            return None
        return body if key is None or key.allows_domain(body.domain) else None


def _has_plain_headers(scope: Scope) -> bool:
    num_hosts = 0
    is_json = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            if is_json or value != b"application/json":
                return False
            is_json = True
        elif name == b"host":
            num_hosts += 1
        elif name == b"content-length":
            if not (value.isdigit() and int(value) <= SMALL_BYTES):
                return False
        elif name in OTHERS_DECIDE:
            return False
    return is_json and num_hosts <= 1


def _whole(message: Message) -> bytes | None:
    """A body that has come in one message."""
    if message["type"] != "http.request" or message.get("more_body"):
        return None
    content: bytes = message.get("body", b"")
    return content


def _replay(message: Message, receive: Receive) -> Receive:
    """Replays the message, then continues with `receive`."""
    messages = [message]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
