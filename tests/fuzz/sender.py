"""Sends drafts over a connection that stays open, and measures what they cost the service."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.fuzz.drafts import Draft
from tests.fuzz.service import PATIENCE_S, Caller
from tests.fuzz.worker import resident_bytes
from tests.service.live import AUTHORIZED


@dataclass(frozen=True)
class Reply:
    """An answer; `seconds` are the service's processor time, in all its processes."""

    status: int
    media_type: str
    content: bytes
    seconds: float


class Sender:
    """One client of a service."""

    def __init__(self, url: str, caller: Caller) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2 * PATIENCE_S)
        self._caller = caller
        children = Path(f"/proc/{caller.process_id}/task/{caller.process_id}/children").read_text(encoding="ascii")
        self._processes = [caller.process_id, *map(int, children.split())]

    def send(self, draft: Draft, credentials: Mapping[str, str]) -> Reply:
        headers = AUTHORIZED | dict(draft.headers) | dict(credentials)
        content = draft.content
        if content is not None:
            headers = {"Content-Type": "application/json"} | headers
        before = self._processor_s()
        try:
            response = self._ask(draft, content, headers)
        except (http.client.RemoteDisconnected, ConnectionError):  # it was kept open for too long
            self._connection.close()
            response = self._ask(draft, content, headers)
        found = response.read()
        seconds = self._processor_s() - before
        return Reply(response.status, response.headers.get("content-type", ""), found, seconds)

    def memory_mib(self) -> float:
        """Of all processes together."""
        return sum(resident_bytes(each) for each in self._processes) / (1 << 20)

    def _ask(self, draft: Draft, content: bytes | None, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        self._connection.request(
            draft.method,
            draft.target,
            content,
            {name: value.encode() for name, value in headers.items()},
        )
        return self._connection.getresponse()

    def _processor_s(self) -> float:
        return sum(self._caller.processor_s(each) for each in self._processes)
