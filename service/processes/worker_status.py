"""What a worker says of itself: regularly, and at once when its problems have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from service.channel.channel import Channel
from service.channel.messages import Status

STATUS_S = 1.0
"""Interval at which a worker says that it works."""
LOOK_S = 0.05
"""Interval at which a worker looks whether it has something new to say."""


class StatusReport:
    """Sends the status of a worker. Used on the event loop only."""

    def __init__(self, channel: Channel, status: Callable[[], Status]) -> None:
        self._channel = channel
        self._status = status
        self._sent: Status | None = None
        self._sent_at = 0.0

    def send(self) -> None:
        """Say how the worker is now."""
        self._send(self._status())

    async def run(self) -> None:
        """Keep the engine process informed until cancelled."""
        while True:
            self._send_if_due()
            await asyncio.sleep(LOOK_S)

    def _send_if_due(self) -> None:
        status, sent = self._status(), self._sent
        is_new = sent is None or (status.problems, status.is_redis_up) != (sent.problems, sent.is_redis_up)
        if is_new or time.monotonic() - self._sent_at >= STATUS_S:
            self._send(status)

    def _send(self, status: Status) -> None:
        self._sent, self._sent_at = status, time.monotonic()
        self._channel.send(status)
