"""Keeps the service reachable while file descriptors are short, and says so.

Systems hand out the lowest free number, so the number of a new connection tells how many descriptors are in use. The
last numbers below the limit are a reserve: connections that get one are there for probes, and to tell others to go.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from service.observability.metrics import Metrics
from service.observability.metrics.metrics import DescriptorEffect

logger = logging.getLogger(__name__)

MOST_DESCRIPTORS = 65_536
LARGEST_RESERVE = 64
MIN_IDLE_S = 1.0
"""A connection without a request for so long may be closed in favour of a new one."""
WATCH_S = 1.0
REPORT_S = 10.0
"""Interval between log lines, and how long a shortage is reported after it was last noticed."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accepting a connection or opening a file fails with, as asyncio takes it too."""


def raise_limit() -> int:
    """Raise this process's limit of open files as far as it may; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


OnLoopError: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]


class Connection(Protocol):
    """A client's connection."""

    def close(self) -> None: ...


class Descriptors:
    """Decides which connections stay while descriptors are short. All methods run on the event loop."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._reserve = min(LARGEST_RESERVE, limit // 8)
        self._metrics = metrics
        self._idle_since: dict[Connection, float] = {}  # the longest idle first
        self._surplus: dict[Connection, None] = {}  # the oldest first
        self._effects: Counter[str] = Counter()  # since the last log line
        self._num_open = 0
        self._short_at = self._logged_at = float("-inf")

    @property
    def problems(self) -> list[str]:
        """The shortage, for an operator, until it has been over for a while."""
        if _now() - self._short_at >= REPORT_S:
            return []
        problem = (
            f"file descriptors are short: {self._num_open} of {self._limit} are in use, so idle connections are closed "
            "and new ones refused; raise the limit of open files, or limit the connections in a proxy"
        )
        return [problem]

    def is_short(self, number: int) -> bool:
        """Whether a descriptor of this number is of the reserve."""
        return number >= self._limit - self._reserve

    def admit(self, connection: Connection, number: int) -> bool:
        """Take in a new connection, whose descriptor has this number; False if it is only there for a probe."""
        if self.is_short(number):
            self._note_short(number)
            has_room = self._close_idle(MIN_IDLE_S)
            if number >= self._limit - self._reserve // 2 and not self._close_idle(MIN_IDLE_S):
                self._close_surplus()
            if not has_room:
                self._surplus[connection] = None
                return False
        self.note_idle(connection)
        return True

    def note_idle(self, connection: Connection) -> None:
        """A connection without a request in progress."""
        self._idle_since[connection] = _now()

    def note_busy(self, connection: Connection) -> None:
        self._idle_since.pop(connection, None)

    def note_closed(self, connection: Connection) -> None:
        self._idle_since.pop(connection, None)
        self._surplus.pop(connection, None)

    def note_refused(self) -> None:
        """A request was refused because descriptors are short."""
        self._count("refused")

    def note_exhausted(self) -> None:
        """No descriptor was left for a connection or a file."""
        self._note_short(self._limit)
        self._count("exhausted")
        for _ in range(self._reserve):
            if not self._close_idle(0.0) and not self._close_surplus():
                return

    async def watch(self) -> None:
        """Look for a shortage until cancelled: some event loops close connections that they cannot take, in silence."""
        while True:
            self.measure()
            await asyncio.sleep(WATCH_S)

    def measure(self) -> None:
        """See which number the next descriptor has."""
        try:
            number = os.open(os.devnull, os.O_RDONLY)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self.note_exhausted()
        else:
            os.close(number)
            if self.is_short(number):
                self._note_short(number)

    def _close_idle(self, min_idle_s: float) -> bool:
        """Close the connection that has been idle for longest; whether there was one."""
        connection = next(iter(self._idle_since), None)
        if connection is None or _now() - self._idle_since[connection] < min_idle_s:
            return False
        self._close(connection, "idle_closed")
        return True

    def _close_surplus(self) -> bool:
        connection = next(iter(self._surplus), None)
        if connection is None:
            return False
        self._close(connection, "refused")
        return True

    def _close(self, connection: Connection, effect: DescriptorEffect) -> None:
        self._count(effect)
        self.note_closed(connection)
        connection.close()

    def _note_short(self, number: int) -> None:
        self._num_open, self._short_at = number, _now()
        if self._short_at - self._logged_at >= REPORT_S:
            self._logged_at = self._short_at
            counts = {effect: self._effects[effect] for effect in ("idle_closed", "refused", "exhausted")}
            logger.warning("descriptors_short", extra={"num_open": number, "limit": self._limit, **counts})
            self._effects.clear()

    def _count(self, effect: DescriptorEffect) -> None:
        self._effects[effect] += 1
        self._metrics.count_descriptor_shortage(effect)


def loop_error_handler(descriptors: Descriptors, metrics: Metrics) -> OnLoopError:
    """Counts errors that no task of ours has raised, such as those of a callback or of accepting a connection."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            descriptors.note_exhausted()
            return
        metrics.count_background_failure("event_loop")
        loop.default_exception_handler(context)  # logs it

    return handle


def _now() -> float:
    return asyncio.get_running_loop().time()
