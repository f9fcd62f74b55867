"""The ingress on Ray Serve: hands each request to a replica, one that holds its domain if there is one.

It knows no model, so it is cheap and there may be many. If a replica is lost before it began to answer, another one is
asked, unless the request may have changed something.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import Vip5Error
from service.errors import ClientDisconnectedError, NotReadyError, QueueFullError
from service.http.responses import while_connected
from service.ray.forwarded import Forwarded
from service.ray.metrics_by_replica import joined
from service.ray.options import ReplicaOptions
from service.ray.problems import messages_of_problem
from service.settings.loading import load_settings

logger = logging.getLogger(__name__)

ATTEMPTS = 4
RETRY_AFTER_S = 2
OTHERS_S = 10.0
"""How long all replicas may take to answer a question that is put to all."""
CHANGING = ("/events", "/admin/")
"""Paths below which requests other than GET change something."""


@serve.ingress()
class Ingress:
    """What Ray's proxies send requests to."""

    def __init__(self, replicas: DeploymentHandle[Any], options: ReplicaOptions) -> None:
        self._forwarding = Forwarding(replicas, load_settings(options.settings).max_body_bytes)

    def reconfigure(self, given: Mapping[str, Any]) -> None:
        """Know the domains that are held by some replicas only."""
        self._forwarding.domains = frozenset(given["domains"])

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._forwarding


class Forwarding:
    """The ASGI app of an ingress."""

    domains: frozenset[str] = frozenset()

    def __init__(self, replicas: DeploymentHandle[Any], max_body_bytes: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        sent = _Sent(send)
        try:
            request = Forwarded.of(scope, await self._body(Request(scope, receive)))
            match request.scope["method"], request.scope["path"]:
                case "GET", "/metrics":
                    await (await self._metrics())(scope, receive, sent)
                case "GET", "/domains":
                    await (await self._all_domains(request))(scope, receive, sent)
                case _:
                    await while_connected(receive, self._forward(request, sent))
        except (ClientDisconnectedError, ClientDisconnect):
            return
        except Exception as error:
            if sent.has_begun:
                raise  # all that is left is to break it off
            if not isinstance(error, Vip5Error):
                logger.exception("request_failed")
            for message in messages_of_problem(error, scope):
                await send(_without_id(message))

    async def _body(self, request: Request) -> bytes:
        """The body, or its beginning if it is too long for the app, which then says so."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                break
        return bytes(body)

    async def _forward(self, request: Forwarded, sent: _Sent) -> None:
        """Raises NotReadyError and QueueFullError; nothing was sent then."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._ask(request, sent)
            except RayActorError as error:
                logger.warning("replica_lost", extra={"attempt": attempt, "reason": str(error)[:200]})
                if sent.has_begun:
                    raise
                if attempt == ATTEMPTS or _changes(request):
                    raise NotReadyError(
                        "the replica that answered was lost; retry", retry_after_s=RETRY_AFTER_S
                    ) from error
            else:
                return

    async def _ask(self, request: Forwarded, send: Send) -> None:
        first = next((name for name in request.domains if name in self.domains), "")
        handle = self._replicas.options(multiplexed_model_id=first) if first else self._replicas
        response: Any = handle.answer.remote(request)  # a generator, since `stream` is set
        try:
            async for messages in response:
                for message in messages:
                    await send(_without_id(message))
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError as error:
            raise QueueFullError("too many requests wait for a replica; retry later") from error
        except DeploymentUnavailableError as error:
            raise NotReadyError("no replica can be started; retry later", retry_after_s=RETRY_AFTER_S) from error

    async def _metrics(self) -> Response:
        texts = await self._of_all("render_metrics")
        return PlainTextResponse(joined(sorted(texts)))

    async def _all_domains(self, request: Forwarded) -> Response:
        """The domains that any replica holds. Any replica's refusal is that of all."""
        if not self.domains:
            return _whole(*(await self._replicas.options(stream=False).answer_whole.remote(request)))
        answers = await self._of_all("answer_whole", request)
        refused = [answer for answer in answers if answer[0] != 200]
        if refused:
            return _whole(*refused[0])
        found = {each["name"]: each for _, body in answers for each in json.loads(body)["domains"]}
        return _whole(200, json.dumps({"domains": [found[name] for name in sorted(found)]}).encode())

    async def _of_all(self, method: str, *arguments: object) -> list[Any]:
        """What each replica answers. Raises NotReadyError."""
        try:
            return await self._replicas.broadcast(method, *arguments).results_async(timeout_s=OTHERS_S)
        except (RayActorError, DeploymentUnavailableError, TimeoutError) as error:
            raise NotReadyError("not all replicas answer; retry", retry_after_s=RETRY_AFTER_S) from error


class _Sent:
    """Sends on, and knows whether something was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


def _without_id(message: Message) -> Message:
    """Ray's proxy adds the id itself."""
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [each for each in message["headers"] if each[0] != b"x-request-id"]}


def _changes(request: Forwarded) -> bool:
    method, path = request.scope["method"], request.scope["path"]
    return method not in {"GET", "HEAD", "OPTIONS"} and (path.startswith(CHANGING) or method != "POST")


def _whole(status: int, body: bytes) -> Response:
    kind = "application/json" if status == 200 else "application/problem+json"
    return Response(body, status, media_type=kind)


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to open or close."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
