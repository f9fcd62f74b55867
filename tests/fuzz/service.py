"""The service that random requests go to: a process of its own, whose memory and processor time are its own too."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any, TypeAlias

import requests
from PIL import Image
from schemathesis import Case as AnyCase
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.processes import Server, serving
from tests.fuzz.known import BUNDLES, DOMAIN, NUM_ITEMS
from tests.fuzz.worker import MAX_SECONDS, resident_bytes
from tests.service.live import AUTHORIZED, TOKEN, bundle_of
from tests.tiny import tiny_catalog

Case: TypeAlias = AnyCase[Any]
NUM_USERS = 500
"""Most users whose histories are kept, so that they do not fill the memory."""
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    allow_header_conformance,
]


@dataclass
class Caller:
    """Sends requests and counts what comes back. By default, the service is an app in this very process."""

    process_id: int = field(default_factory=os.getpid)
    session: requests.Session | None = None
    statuses: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    hangs: int = 0

    def send(self, case: Case) -> Response:
        """The answer, which is not yet checked. Raises what `requests` raises if there is none."""
        before = self._processor_s()
        response = case.call(session=self.session, headers=AUTHORIZED, timeout=PATIENCE_S)
        seconds = self._processor_s() - before
        self.slowest_s = max(self.slowest_s, seconds)
        self.hangs += seconds > MAX_SECONDS
        self.statuses[response.status_code] += 1
        return response

    def send_and_check(self, case: Case) -> None:
        """Raises schemathesis's group of failures."""
        case.validate_response(self.send(case), checks=CHECKS)

    def _processor_s(self) -> float:
        return self.processor_s(self.process_id)

    @staticmethod
    def processor_s(process_id: int) -> float:
        """What a process has taken so far; 0 if it has ended."""
        try:
            stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS


@dataclass(frozen=True)
class Shop:
    """A running service with two bundles to choose from, and its caller."""

    server: Server
    caller: Caller

    @property
    def has_ended(self) -> bool:
        return self.server.process.poll() is not None

    def errors(self) -> list[dict[str, Any]]:
        """Lines of the log at the level of an error, or with a traceback, since the last call."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                line = self.server.lines.get_nowait()
            except Empty:
                return found
            if line.get("level") in {"ERROR", "CRITICAL"} or "exc_info" in line:
                found.append(line)

    def restore(self) -> None:
        """Serve the domain again if a request unloaded it."""
        if self._ask("GET").status_code == 404:
            self._ask("POST", "/load", {"bundle": BUNDLES[0], "activate": True}).raise_for_status()

    def reset(self) -> None:
        """Serve the domain as if nothing had been changed but its catalog."""
        self._ask("DELETE")
        self.restore()

    def _ask(self, method: str, path: str = "", body: dict[str, Any] | None = None) -> requests.Response:
        assert self.caller.session is not None
        url = f"{self.server.url}/admin/domains/{DOMAIN}{path}"
        return self.caller.session.request(method, url, json=body, timeout=PATIENCE_S)


@dataclass
class Found:
    """What requests of one kind found so far."""

    kind: str
    seed: int
    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    hangs: int = 0
    slowest_s: float = 0.0
    start_mib: float = 0.0
    """Memory of the service after the first turn of this kind."""
    end_mib: float = 0.0
    errors: list[dict[str, Any]] = field(default_factory=list)
    has_ended: bool = False
    fault: str = ""

    @property
    def is_clean(self) -> bool:
        return not (self.hangs or self.errors or self.has_ended or self.fault)

    def add(self, shop: Shop) -> None:
        """Take what its caller counted, which begins to count anew."""
        caller = shop.caller
        self.statuses = dict(sorted((Counter(self.statuses) + caller.statuses).items()))
        self.requests = sum(self.statuses.values())
        self.hangs += caller.hangs
        self.slowest_s = round(max(self.slowest_s, caller.slowest_s), 2)
        self.errors += shop.errors()
        self.has_ended = shop.has_ended
        if not self.has_ended:
            self.end_mib = round(resident_bytes(caller.process_id) / (1 << 20), 1)
        self.start_mib = self.start_mib or self.end_mib
        caller.statuses, caller.slowest_s, caller.hangs = Counter(), 0.0, 0


@contextmanager
def shop(*, has_histories: bool = True) -> Iterator[Shop]:
    """A service whose folder of bundles, pictures, journal and histories are temporary."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundles"
        for seed, name in enumerate(BUNDLES, start=1):
            bundle_of(root / name, seed, catalog=tiny_catalog(NUM_ITEMS))
        pictures = Path(folder) / "pictures" / "images"
        pictures.mkdir(parents=True)
        for number in range(1, NUM_ITEMS // 2):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(pictures / f"{number}.png")
        env = {
            "VIP5_ADMIN_TOKEN": TOKEN,
            "VIP5_BUNDLES_ROOT": str(root),
            "VIP5_JOURNAL": str(Path(folder) / "journal"),
            "VIP5_IMAGES_ROOT": str(pictures.parent),
        }
        if has_histories:
            env |= {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(Path(folder) / "histories.jsonl")}
            env |= {"VIP5_HISTORY_USERS": str(NUM_USERS)}
        with serving(root / BUNDLES[0], env) as server, requests.Session() as session:
            session.trust_env = False  # looking for proxies costs more than the request
            session.headers.update(AUTHORIZED)
            yield Shop(server, Caller(server.process.pid, session))
