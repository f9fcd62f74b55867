"""Refuses requests of a client of which one was just refused by a lane, before their bodies are parsed.

So a client that sends many times what it gets does not take the event loop from others.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from fastapi import Request

from service.batching.shares import Client
from service.http.app_state import AppState, state_of
from service.http.problems import trace_of

LaneName: TypeAlias = Literal["ranking", "text"]

READ_BYTES = 16_384
"""Larger bodies are not read before a refusal; their deadline is taken to be the service's default."""
DEADLINE_MS = re.compile(rb'"deadline_ms"\s*:\s*(\d{1,9})\b')


def refuse_unread(request: Request, lane: LaneName) -> None:
    """Refuse a large body before it is read. Raises QueueFullError and OverloadedError."""
    declared = request.headers.get("content-length", "")
    if not declared.isdigit() or int(declared) > READ_BYTES:
        state = state_of(request.app)
        _refuse(state, trace_of(request).client, lane, state.default_deadline_s)


async def refuse_read(request: Request, lane: LaneName) -> None:
    """Refuse a request whose body was read. Raises QueueFullError and OverloadedError."""
    refuse_body(state_of(request.app), trace_of(request).client, lane, await request.body())


def refuse_body(state: AppState, client: str, lane: LaneName, body: bytes) -> None:
    """Refuse a client's request of this body. Raises QueueFullError and OverloadedError."""
    given = [int(each) for each in DEADLINE_MS.findall(body)]
    # Of several, also those inside of texts, the longest: it is refused least.
    _refuse(state, client, lane, max(given) / 1000 if given else state.default_deadline_s)


def _refuse(state: AppState, client: str, lane: LaneName, deadline_s: float) -> None:
    lanes = state.service.lanes
    found = lanes.ranking if lane == "ranking" else lanes.text
    refusal = found.recent_refusal(Client(client), deadline_s)
    if refusal is not None:
        raise refusal
