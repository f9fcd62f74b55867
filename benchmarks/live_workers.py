"""Clients that ask a service with workers while it changes, and what their answers prove.

One process asks over many connections: some are kept, some are new for each request, so that all workers are reached
again and again. A connection that breaks is counted and opened again.
"""

from __future__ import annotations

import bisect
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

BROKEN = 0
"""The status of a request whose connection broke before the whole answer had come."""
PATIENCE_S = 60.0
PATH = "/recommend/sequential"


@dataclass(frozen=True)
class Seen:
    """One request and its answer; times are those of the system-wide monotonic clock."""

    sent_at: float
    received_at: float
    status: int
    request: Mapping[str, Any]
    body: Mapping[str, Any] = field(default_factory=dict)


class Client(threading.Thread):
    """Asks over one connection at a time. With `is_new`, each request has a connection of its own."""

    def __init__(
        self, url: str, requests: Iterator[Mapping[str, Any]], must_end: threading.Event, *, is_new: bool
    ) -> None:
        super().__init__(daemon=True)
        self.seen: list[Seen] = []
        self._host = urlsplit(url).netloc
        self._requests = requests
        self._must_end = must_end
        self._is_new = is_new

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        for request in self._requests:
            if self._must_end.is_set():
                break
            if connection is None:
                connection = http.client.HTTPConnection(self._host, timeout=PATIENCE_S)
            self.seen.append(ask(connection, request))
            if self._is_new or self.seen[-1].status == BROKEN:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def ask(connection: http.client.HTTPConnection, request: Mapping[str, Any]) -> Seen:
    """One request. BROKEN if the connection ended first, which includes one that could not be opened."""
    sent_at = time.monotonic()
    try:
        connection.request("POST", PATH, json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException):
        return Seen(sent_at, time.monotonic(), BROKEN, request)
    return Seen(sent_at, time.monotonic(), response.status, request, body)


@dataclass(frozen=True)
class Change:
    """A change that was answered: what holds for all that is asked afterwards, until the next one is sent."""

    sent_at: float
    answered_at: float
    kind: str
    revision: int
    """Of the catalog."""
    bundles: frozenset[str]
    """Hashes of the bundles that may answer."""


def violations(seen: Sequence[Seen], changes: Sequence[Change]) -> tuple[int, int]:
    """Answers that were asked for and given between a change's answer and the next change, and those that contradict.

    `changes` are in order. A catalog may not be older than the last answered change in any case.
    """
    num_held = num_violated = 0
    answered_at = [change.answered_at for change in changes]
    for each in seen:
        place = bisect.bisect_left(answered_at, each.sent_at) - 1
        if each.status != HTTPStatus.OK or place < 0:
            continue
        change = changes[place]
        is_settled = place + 1 == len(changes) or each.received_at < changes[place + 1].sent_at
        num_held += is_settled
        is_old = each.body["catalog_revision"] < change.revision
        is_other = each.body["bundle"] not in change.bundles or each.body["catalog_revision"] != change.revision
        num_violated += is_old or (is_settled and is_other)
    return num_held, num_violated


def counts_of(metrics: str, route: str = PATH) -> Counter[int]:
    """Requests by status, as /metrics has them."""
    found: Counter[int] = Counter()
    for line in metrics.splitlines():
        if line.startswith("vip5_requests_total{") and f'route="{route}"' in line:
            status = line.partition('status="')[2].partition('"')[0]
            found[int(status)] += int(float(line.rpartition(" ")[2]))
    return found


def uncounted(own: Counter[int], counted: Counter[int]) -> str | None:
    """How the service's counts contradict a client's; None if they agree.

    A request whose connection broke may have been answered, and counted, before its worker ended. All others are
    counted exactly: the surplus is at most the number of broken ones.
    """
    num_broken = own[BROKEN]
    answered = {status: number for status, number in own.items() if status != BROKEN}
    missing = {status: number - counted[status] for status, number in answered.items() if counted[status] < number}
    surplus = sum(counted.values()) - sum(answered.values())
    if missing:
        return f"not counted, by status: {missing}"
    return f"{surplus} more counted than answered, and {num_broken} broken" if surplus > num_broken else None
