"""Sends very many random requests to every route of a running service, and says what went wrong.

    python -m tests.fuzz.many [OPERATION …] [--seed 1] [--examples 5000] [--minutes 90] [--workers 0]

schemathesis makes --drafts requests for each route from the OpenAPI document. They are varied cheaply
(`tests.fuzz.drafts`), sent over a connection that stays open, and half of the successful ones are followed by requests
with what their answers brought (`tests.fuzz.following`). A status of 5xx that the request did not ask for, an answer
that is not as the document says, a body that breaks the document's rules and is accepted, a request of more than 2 s of
the service's processor time (twice, the second time by itself), an error in its log and its end are faults. `drain`
gets wrong credentials until all is over, and then the right ones.

All routes take turns of --turn requests, which seed, route and number of the turn decide alone: other seeds, routes and
`--first` (the first turn) go on where a run ended. Prints a line of JSON for each route after each round, with the sums
since the start, and exits with 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

import httpx
import schemathesis

from tests.e2e.processes import PROCESSES
from tests.fuzz.bodies import Operation, name_of, operations_in
from tests.fuzz.drafts import ABSENT, NO_BODY, Draft, drafts_of, varied
from tests.fuzz.following import next_of
from tests.fuzz.replies import Document, code_of, is_server_error
from tests.fuzz.sender import Reply, Sender
from tests.fuzz.service import PATIENCE_S, Shop, shop
from tests.fuzz.worker import MAX_SECONDS

ENDING = "drain"
DISRUPTIVE = {"unload_domain"}
"""Their requests never name what is served, unless they follow a link."""
ANSWERED_APART = {"recommend_sequential_batch", "recommend_direct_batch"}
"""Invalid ones of their requests fail alone, with status 200 for all."""
CREDENTIALS_LOST = 0.02
FOLLOWED = 0.5
MOST_STEPS = 4
MOST_FAULTS = 20
START_S = 1_800.0
"""Limit on the service's start, which may have little of the machine."""


@dataclass
class Sums:
    """What requests of one operation found so far."""

    operation: str
    seed: int
    requests: int = 0
    followed: int = 0
    """How many of them came by a link."""
    statuses: dict[str, int] = field(default_factory=dict)
    """By status, with the code of a problem from 500 on."""
    slowest_s: float = 0.0
    hangs: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.hangs or self.faults)

    def count(self, reply: Reply) -> None:
        name = f"{reply.status} {code_of(reply.content)}".strip() if reply.status >= 500 else str(reply.status)
        self.requests += 1
        self.statuses[name] = self.statuses.get(name, 0) + 1
        self.slowest_s = round(max(self.slowest_s, reply.seconds), 2)


@dataclass
class Storm:
    """A service, the requests that are varied, and what was found."""

    place: Shop
    sender: Sender
    document: Document
    drafts: Mapping[str, Sequence[Draft]]
    sums: dict[str, Sums]
    versions: Sequence[str] = ()

    def turn(self, name: str, seed: int, number: int, count: int) -> None:
        """Send so many requests of an operation, and those that follow from them."""
        chance = Random(f"{name} {seed} {number}")
        for _ in range(count):
            draft = varied(self.drafts[name], chance, is_named=name not in DISRUPTIVE)
            for step in range(MOST_STEPS):
                draft = self._with_version(draft, chance)
                reply = self.send(draft, chance)
                self.sums[draft.operation].followed += step > 0
                is_over = not 200 <= reply.status < 300 or chance.random() > FOLLOWED
                following = None if is_over else next_of(draft, reply.content, self.drafts, chance)
                if following is None or self.place.has_ended:
                    break
                draft = following
            if self.place.has_ended:
                return
        self.place.restore()

    def send(self, draft: Draft, chance: Random) -> Reply:
        sums = self.sums[draft.operation]
        is_unknown = draft.operation == ENDING or chance.random() < CREDENTIALS_LOST
        credentials = {"Authorization": chance.choice(ABSENT)} if is_unknown else {}
        reply = self.sender.send(draft, credentials)
        sums.count(reply)
        if reply.seconds > MAX_SECONDS:
            again = self.sender.send(draft, credentials)
            sums.count(again)
            sums.hangs += again.seconds > MAX_SECONDS
        self._check(draft, reply, sums)
        self._remember(reply)
        if draft.operation in DISRUPTIVE and reply.status == 204:
            self.place.restore()
        return reply

    def _check(self, draft: Draft, reply: Reply, sums: Sums) -> None:
        fault = self.document.fault_in(draft.operation, reply.status, reply.media_type, reply.content)
        if is_server_error(draft.operation, reply.status, reply.content):
            fault = f"{reply.status} {reply.content[:300]!r}"
        elif 200 <= reply.status < 300 and not self._is_admitted(draft):
            fault = fault or f"status {reply.status} for a body that the document forbids"
        if fault and len(sums.faults) < MOST_FAULTS:
            content = draft.content
            shown = content if content is None or len(content) < 4_000 else content[:4_000] + b"..."
            sums.faults.append(f"{fault}: {draft.method} {draft.target[:500]} {dict(draft.headers)} {shown!r}")

    def _is_admitted(self, draft: Draft) -> bool:
        if draft.body is NO_BODY or draft.operation in ANSWERED_APART:
            return True
        try:
            body = json.loads(draft.content or b"")
        except (ValueError, RecursionError):
            return False
        return self.document.admits(draft.operation, body)

    def _remember(self, reply: Reply) -> None:
        if b'"versions":' in reply.content and reply.status == 200:
            found = json.loads(reply.content).get("versions", [])
            self.versions = [each["version"] for each in found] or self.versions

    def _with_version(self, draft: Draft, chance: Random) -> Draft:
        """Mostly name a version that was loaded a moment ago."""
        is_named = self.versions and isinstance(draft.body, dict) and "version" in draft.body and chance.random() < 0.7
        return replace(draft, body={**draft.body, "version": chance.choice(self.versions)}) if is_named else draft

    def errors(self) -> list[str]:
        """Errors in the service's log since the last call."""
        return [json.dumps(line)[:4_000] for line in self.place.errors()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="OPERATION", help="such as recommend_sequential (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=5_000)
    parser.add_argument("--drafts", type=int, default=300)
    parser.add_argument("--turn", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first turn")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=0, help="processes for HTTP (then no histories are kept)")
    options = parser.parse_args()
    PROCESSES.num_workers, PROCESSES.patience_s = options.workers, START_S
    ends_at = time.monotonic() + options.minutes * 60
    with shop(has_histories=not options.workers) as place:
        storm = storm_at(place, options.names, options.seed, options.drafts)
        is_clean = run(storm, options, ends_at)
        if not place.has_ended and ENDING in storm.sums:
            is_clean &= end(storm)
    return 0 if is_clean else 1


def storm_at(place: Shop, names: Sequence[str], seed: int, num_drafts: int) -> Storm:
    raw: dict[str, Any] = httpx.get(f"{place.server.url}/openapi.json", timeout=PATIENCE_S).json()
    operations = operations_of(raw)
    drafts = {name: drafts_of(operations[name], seed, num_drafts) for name in names or sorted(operations)}
    sums = {name: Sums(name, seed) for name in drafts}
    return Storm(place, Sender(place.server.url, place.caller), Document(raw), drafts, sums)


def operations_of(document: dict[str, Any]) -> dict[str, Operation]:
    """All operations of an OpenAPI document, by their ids."""
    return {name_of(each): each for each in operations_in(schemathesis.openapi.from_dict(document))}


def run(storm: Storm, options: argparse.Namespace, ends_at: float) -> bool:
    """Rounds of turns; returns whether there was no fault."""
    is_clean, began_at = True, time.monotonic()
    for number in range(options.first, options.first + -(-options.examples // options.turn)):
        for name in storm.sums:
            if time.monotonic() > ends_at or storm.place.has_ended:
                break
            storm.turn(name, options.seed, number, options.turn)
        errors = storm.errors()
        is_clean &= not errors and not storm.place.has_ended and all(each.is_clean for each in storm.sums.values())
        for sums in storm.sums.values():
            show(asdict(sums))
        total = sum(each.requests for each in storm.sums.values())
        memory = round(storm.sender.memory_mib(), 1)
        seconds = round(time.monotonic() - began_at)
        found = {"turn": number, "requests": total, "seconds": seconds, "memory_mib": memory, "errors": errors}
        show(found)
        if time.monotonic() > ends_at or storm.place.has_ended:
            break
    return is_clean


def end(storm: Storm) -> bool:
    """Drain the service and ask it to end; returns whether it does so without errors."""
    reply = storm.sender.send(Draft(ENDING, "POST", "/admin/drain"), {})
    storm.place.server.process.terminate()
    status = storm.place.server.process.wait(timeout=60)
    errors = storm.errors()
    show({"drain": reply.status, "exit_status": status, "errors": errors})
    return reply.status == 200 and status == 0 and not errors


def show(found: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
