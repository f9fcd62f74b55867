"""The app in uvicorn, without what uvicorn does about signals, and with our own acceptor of connections."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.http.acceptor import Acceptor
from service.http.app_state import AppState, state_of
from service.http.connections import protocol_class
from service.http.cross_origin import CrossOrigin
from service.http.descriptors import Descriptors
from service.http.shedding import shedding
from service.settings.settings import Settings


class Server(uvicorn.Server):
    """Leaves signals to its caller: uvicorn would re-raise them, and the process would not exit with status 0.

    With `descriptors`, it accepts connections itself.
    """

    def __init__(self, config: uvicorn.Config, state: AppState, descriptors: Descriptors | None) -> None:
        super().__init__(config)
        self._state = state
        self._descriptors = descriptors

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._descriptors is None or sockets is None:
            await super().startup(sockets)
            return
        await super().startup(sockets=[])

        def make_protocol() -> asyncio.Protocol:
            protocol = self.config.http_protocol_class
            return protocol(self.config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]

        for each in sockets:
            acceptor = Acceptor(each, make_protocol, self._descriptors, self._state.service.background)
            acceptor.start(self.config.backlog)
            self.servers.append(acceptor)  # type: ignore[arg-type]  # what uvicorn uses of an asyncio.Server

    def close(self) -> None:
        """Accept no more connections; for a server that has failed, as uvicorn does so at an orderly end only."""
        for each in getattr(self, "servers", ()):
            each.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(
    app: FastAPI, settings: Settings, descriptors: Descriptors | None = None, served: ASGIApp | None = None
) -> Server:
    """Without `descriptors`, connections never give way to others. `served` is what is around the app, if anything."""
    state = state_of(app)
    cross_origin = CrossOrigin() if app is state.admin_app else state.cross_origin
    limits = settings.connection_limits
    http = protocol_class(limits, state.metrics, cross_origin)
    config = uvicorn.Config(
        served or app,
        http=http if descriptors is None else shedding(http, descriptors, state.metrics, settings.root_path),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # service/http/proxies.py reads them
        timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]  # uvicorn only hands it to the event loop
        timeout_graceful_shutdown=math.ceil(settings.drain_s),
    )
    return Server(config, state, descriptors)
