"""What becomes of the service when its processes end at the worst moments?

Question  A worker or the engine process is killed (SIGKILL), or the service gets SIGTERM once or twice, in every phase
          of start, change and drain. Which requests get no answer? Is an acknowledged change lost? Does a process
          outlive the service, is the port free again, what is the exit status?
Method    `vip5 serve --workers N`, whose engine process waits at a named point (tests/e2e/faulty_serve.py) until the
          signal has been sent. In changes and drains, requests on connections of their own are with the engine at that
          moment. Afterwards the service is started from its journal and compared: three changes that were acknowledged
          before must be there; so must the one in progress if it was acknowledged, and otherwise it must be made as a
          whole or not at all.
Output    A row for each case, as a Markdown table; the last line is JSON. Exit status 1 if a promise is broken.

    python -m benchmarks.process_deaths [--workers 2] [--only "before publish"]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.death_outcomes import DRAINS, HEAD, Outcome, judge, note_left, row_of
from benchmarks.dying_service import LOOK_S, PATIENCE_S, Case, owners_of, wait_until
from tests.e2e.live import live_bundles
from tests.redis_servers import free_port
from tests.service.live import AUTHORIZED

STARTS = ("load", "workers start", "join")
CHANGES = ("before prepare", "after prepare", "before publish", "before answer")
SIGNALS = ("worker killed", "engine killed", "SIGTERM", "SIGTERM twice")
BEFORE = ("item-1", "item-2", "item-3")
"""Taken out of stock, one after another, before the change in progress."""
CHANGING = "item-4"
NUM_REQUESTS = 8


# Start


def at_start(case: Case, signals: str, num_workers: int) -> Outcome:
    outcome = Outcome(case.phase, signals)
    case.wait_at(case.phase)
    case.start()
    if case.phase == "workers start":
        wait_until(lambda: case.note_pids() or case.server.process.poll() is not None, "no worker was started")
    else:
        case.until_reached()
        if case.phase == "join":
            wait_until(lambda: len(case.note_pids()) == num_workers, "not all workers were started")
    case.strike(signals)
    case.let_go()
    if signals == "worker killed":
        case.server.wait_event("listening")
        case.server.wait_ready()
        outcome.num_asked, outcome.num_unanswered = NUM_REQUESTS, len(asyncio.run(ask_some(case.url)))
        case.note_pids()
        case.strike("SIGTERM")
    case.end(outcome)
    due = {"engine killed": -signal.SIGKILL}.get(signals, 0)
    if outcome.exit_status != due:
        outcome.broken.append(f"exit status {outcome.exit_status}")
    return outcome


async def ask_some(url: str) -> list[Exception]:
    """Failures of requests on connections of their own."""
    failures: list[Exception] = []
    for number in range(NUM_REQUESTS):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            try:
                (await ask(client, number)).raise_for_status()
            except httpx.HTTPError as error:
                failures.append(error)
    return failures


async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
    body = {"domain": "toys", "history": [f"item-{number + 10}"], "k": 5}
    return await client.post("/recommend/sequential", json=body)


async def patch(client: httpx.AsyncClient, item_id: str) -> httpx.Response:
    return await client.patch("/admin/domains/toys/catalog", headers=AUTHORIZED, json={"deactivate": [item_id]})


# Changes and drains


async def while_serving(case: Case, signals: str) -> Outcome:
    outcome = Outcome(case.phase, signals)
    await asyncio.to_thread(case.start)
    await asyncio.to_thread(case.server.wait_event, "listening")
    await asyncio.to_thread(case.server.wait_ready)
    workers = case.note_pids()
    async with httpx.AsyncClient(base_url=case.url, timeout=PATIENCE_S) as admin:
        for item_id in BEFORE:
            (await patch(admin, item_id)).raise_for_status()
    clients = [httpx.AsyncClient(base_url=case.url, timeout=PATIENCE_S) for _ in range(NUM_REQUESTS)]
    admin = httpx.AsyncClient(base_url=case.url, timeout=PATIENCE_S)
    (case.folder / "held").write_text("")
    asked = [asyncio.create_task(ask(client, number)) for number, client in enumerate(clients)]
    await asyncio.to_thread(
        wait_until,
        lambda: sum(owners_of(case.port, workers).values()) >= NUM_REQUESTS,
        "not all connections were accepted",
    )
    owners = await asyncio.to_thread(owners_of, case.port, workers)
    case.wait_at(case.phase)
    changing = None
    if case.phase in CHANGES:
        changing = asyncio.create_task(patch(admin, CHANGING))
    else:
        case.server.process.terminate()
    await asyncio.to_thread(case.until_reached)
    victim = max(workers, key=lambda pid: owners.get(pid, 0))
    case.strike(signals, victim)
    await asyncio.sleep(LOOK_S)
    case.let_go()
    results = await asyncio.gather(*asked, return_exceptions=True)
    change = None if changing is None else (await asyncio.gather(changing, return_exceptions=True))[0]
    outcome.num_asked = len(asked)
    outcome.num_unanswered = sum(isinstance(each, BaseException) for each in results)
    outcome.num_on_killed_worker = owners.get(victim, 0) if signals == "worker killed" else 0
    wrong = [each.text for each in results if isinstance(each, httpx.Response) and each.status_code != httpx.codes.OK]
    for client in (*clients, admin):
        await client.aclose()
    if signals == "worker killed" and case.phase in CHANGES:
        await asyncio.to_thread(case.server.wait_ready)
        case.note_pids()
        case.strike("SIGTERM")
    await asyncio.to_thread(case.end, outcome)
    await compare(case, outcome, change)
    judge(outcome, wrong)
    return outcome


async def compare(case: Case, outcome: Outcome, change: Any) -> None:  # noqa: ANN401
    """Start from the journal, and see which changes are there."""
    case.forget_point()
    case.port = free_port()
    await asyncio.to_thread(case.start)
    await asyncio.to_thread(case.server.wait_event, "listening")
    await asyncio.to_thread(case.server.wait_ready)
    async with httpx.AsyncClient(base_url=case.url, timeout=PATIENCE_S) as client:
        request = {"domain": "toys", "history": ["item-50"], "k": 100, "num_beams": 120}
        answer = await client.post("/recommend/sequential", json=request)
        answer.raise_for_status()
        served = {each["item_id"] for each in answer.json()["items"]}
        state = (await client.get("/admin/domains/toys", headers=AUTHORIZED)).json()
    is_made = state["catalog_revision"] == len(BEFORE) + 1
    outcome.num_lost_changes = sum(item_id in served for item_id in BEFORE)
    if change is not None:
        is_acknowledged = isinstance(change, httpx.Response) and change.status_code == httpx.codes.OK
        answered = change.status_code if isinstance(change, httpx.Response) else "no answer"
        outcome.change = f"{answered}, {'made' if is_made else 'not made'}"
        outcome.num_lost_changes += is_acknowledged and not is_made
        if is_made == (CHANGING in served):
            outcome.broken.append("the change was made by half")
    await asyncio.to_thread(case.kill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--only", help="one phase")
    parser.add_argument("--signal", help="one of the kinds of signals")
    options = parser.parse_args()
    phases = [each for each in (*STARTS, *CHANGES, *DRAINS) if options.only in (None, each)]
    kinds = [each for each in SIGNALS if options.signal in (None, each)]
    outcomes = []
    print(HEAD)
    with tempfile.TemporaryDirectory() as bundles:
        live_bundles(Path(bundles), ("first",))
        for phase, signals in itertools.product(phases, kinds):
            if (phase, signals) == ("load", "worker killed"):
                continue  # there is none yet
            with tempfile.TemporaryDirectory() as folder:
                case = Case(Path(bundles), Path(folder), phase, options.workers)
                try:
                    if phase in STARTS:
                        outcome = at_start(case, signals, options.workers)
                    else:
                        outcome = asyncio.run(while_serving(case, signals))
                finally:
                    case.kill()
            note_left(outcome)
            outcomes.append(outcome)
            print(row_of(outcome), flush=True)
    print(json.dumps([asdict(each) for each in outcomes]))
    sys.exit(any(each.broken for each in outcomes))


if __name__ == "__main__":
    main()
