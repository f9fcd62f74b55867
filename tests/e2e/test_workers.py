"""An engine process and its workers: whoever ends, whenever, nothing is lost or left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.children import are_gone, children_of, until
from tests.e2e.live import change, client_of, live_bundles, live_environment
from tests.e2e.processes import COMMAND, Server, environment, serving
from tests.service.live import AUTHORIZED

ASK = {"domain": "toys", "history": ["item-1", "item-2"], "k": 3}
NUM_WORKERS = 2


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_bundles(tmp_path_factory.mktemp("workers"), ("first", "second"))


@pytest.fixture
def env(bundles: Path, tmp_path: Path) -> dict[str, str]:
    journal = {"VIP5_JOURNAL": str(tmp_path / "journal"), "VIP5_WORKER_ACK_S": "5"}
    return live_environment(bundles, VIP5_WORKERS=str(NUM_WORKERS), **journal)


@pytest.fixture
def server(bundles: Path, env: dict[str, str]) -> Iterator[Server]:
    with serving(bundles / "first", env) as server:
        yield server
    assert are_gone(children_of_ended(server))


def children_of_ended(server: Server) -> list[int]:
    """Processes that were started by one that has ended, and outlived it."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent_of(pid) == server.process.pid]  # noqa: PTH208


def parent_of(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def port_of(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def is_free(port: int) -> bool:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def new_connection(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=60)


def ask_all(server: Server, num_connections: int = 40) -> Counter[int]:
    """Statuses of requests on connections of their own, which the workers share."""
    statuses: Counter[int] = Counter()
    for _ in range(num_connections):
        with new_connection(server) as client:
            statuses[client.post("/recommend/sequential", json=ASK).status_code] += 1
    return statuses


def count_of(server: Server, name: str, *labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    with new_connection(server) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if re.match(rf"{name}(\{{|\s)", line) and all(label in line for label in labels)
    )


def test_all_workers_answer_alike_and_are_counted_together(server: Server) -> None:
    assert len(children_of(server)) == NUM_WORKERS
    answers = []
    for _ in range(20):
        with new_connection(server) as client:
            answers.append(client.post("/recommend/sequential", json=ASK).json())
    assert all(answer["items"] == answers[0]["items"] for answer in answers)
    counted = count_of(server, "vip5_requests_total", 'route="/recommend/sequential"', 'status="200"')
    assert counted == len(answers)


async def test_a_killed_worker_costs_its_own_connections_and_is_replaced(server: Server) -> None:
    before = children_of(server)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as first:
        answers: list[httpx.Response | Exception] = []

        async def keep_asking() -> None:
            for _ in range(60):
                try:
                    answers.append(await first.post("/recommend/sequential", json=ASK))
                except httpx.TransportError as error:
                    answers.append(error)

        asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
        await first.get("/domains")
        os.kill(before[0], signal.SIGKILL)
        await asyncio.gather(*asking)
    lost = [each for each in answers if isinstance(each, Exception)]
    assert len(lost) <= 8, "a request on each of the worker's connections"
    assert all(each.status_code == 200 for each in answers if isinstance(each, httpx.Response))
    await asyncio.to_thread(
        until, lambda: len(set(children_of(server)) - set(before)) == 1, "no worker took the place of the killed one"
    )
    num_answered = len(answers) - len(lost)
    counted = count_of(server, "vip5_requests_total", 'route="/recommend/sequential"', 'status="200"')
    assert num_answered <= counted <= num_answered + len(lost)
    assert ask_all(server) == {200: 40}


def test_the_counts_are_exactly_the_clients_also_of_workers_that_were_killed(server: Server) -> None:
    own: Counter[int] = Counter()
    for victim in children_of(server):
        own += ask_all(server, 20)
        os.kill(victim, signal.SIGKILL)  # no request is running
        until(partial(is_replaced, server, victim), "no worker took the place of the killed one")
        server.wait_ready()
    own += ask_all(server, 20)
    assert own == {200: 60}
    assert count_of(server, "vip5_requests_total", 'route="/recommend/sequential"') == own[200]


def is_replaced(server: Server, victim: int) -> bool:
    """Whether all workers listen, none of which is the victim."""
    is_gone = victim not in children_of(server)
    return is_gone and count_of(server, "vip5_workers") == NUM_WORKERS


@pytest.mark.parametrize("has_stopped_worker", [False, True], ids=["", "one of them stopped"])
def test_workers_end_with_the_engine_process(server: Server, *, has_stopped_worker: bool) -> None:
    workers = children_of(server)
    if has_stopped_worker:
        os.kill(workers[0], signal.SIGSTOP)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    until(lambda: are_gone(workers), "workers outlive the engine process")
    assert server.wait_event("engine_process_gone")["level"] == "CRITICAL"
    until(lambda: is_free(port_of(server)), "the port is taken")


@pytest.mark.parametrize("num_signals", [1, 2])
def test_a_signal_ends_all_processes(server: Server, num_signals: int) -> None:
    workers = children_of(server)
    for _ in range(num_signals):
        server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert are_gone(workers)
    assert is_free(port_of(server))


def test_a_signal_at_the_start_leaves_nothing_behind(bundles: Path, env: dict[str, str]) -> None:
    arguments = [*COMMAND, "serve", "--bundle", str(bundles / "first"), "--port", "0"]
    with subprocess.Popen(arguments, env=environment(env), stdout=subprocess.PIPE, text=True) as process:
        server = Server(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "worker_started" in line:
                break
        workers = children_of(server)
        assert workers
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert are_gone(workers)


def test_embedded_histories_are_one_for_all_workers_and_survive_them(
    bundles: Path, env: dict[str, str], tmp_path: Path
) -> None:
    env |= {"VIP5_HISTORY_STORE": "embedded", "VIP5_HISTORY_FILE": str(tmp_path / "histories.jsonl")}
    path, told = "/domains/toys/users/ann/history", [f"item-{number}" for number in range(1, 21)]

    def histories(server: Server, num_connections: int) -> list[list[str]]:
        """What workers say, each on some of the connections."""
        found = []
        for _ in range(num_connections):
            with new_connection(server) as client:
                found.append([each["item_id"] for each in client.get(path).raise_for_status().json()["events"]])
        return found

    with serving(bundles / "first", env) as server:
        for item_id in told:
            event = {"domain": "toys", "user_id": "ann", "item_id": item_id}
            with new_connection(server) as client:
                client.post("/events", json=event).raise_for_status()
        assert histories(server, 20) == [told] * 20
        victim = children_of(server)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: is_replaced(server, victim), "no worker took the place of the killed one")
        assert histories(server, 20) == [told] * 20
        server.process.terminate()
        assert server.process.wait(60) == 0
    with serving(bundles / "first", env) as server:
        assert histories(server, 4) == [told] * 4


FAULTY = (sys.executable, "-m", "tests.e2e.faulty_serve")


@pytest.mark.parametrize("num_workers", [0, NUM_WORKERS])
def test_a_signal_while_the_bundle_is_loaded_ends_the_process_at_once(
    bundles: Path, env: dict[str, str], tmp_path: Path, num_workers: int
) -> None:
    (tmp_path / "point").write_text("load")  # for ever
    env |= {"FAULT_FOLDER": str(tmp_path), "VIP5_WORKERS": str(num_workers)}
    arguments = [*FAULTY, "serve", "--bundle", str(bundles / "first"), "--port", "0"]
    with subprocess.Popen(arguments, env=environment(env), stdout=subprocess.PIPE, text=True) as process:
        until((tmp_path / "reached").exists, "the load does not begin")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert [json.loads(line)["event"] for line in output.splitlines()][-2:] == ["draining", "ended"]


async def test_a_signal_while_a_version_is_loaded_ends_the_process_in_the_stated_time(
    bundles: Path, env: dict[str, str], tmp_path: Path
) -> None:
    env |= {"FAULT_FOLDER": str(tmp_path), "VIP5_DRAIN_S": "0.1"}
    with serving(bundles / "first", env, FAULTY) as server:
        workers = children_of(server)
        async with client_of(server) as client:
            (tmp_path / "point").write_text("open")  # for ever
            loading = asyncio.create_task(
                client.post("/admin/domains/toys/load", json={"bundle": "second"}, headers=AUTHORIZED)
            )
            await asyncio.to_thread(until, (tmp_path / "reached").exists, "the load does not begin")
            server.process.terminate()
            await asyncio.to_thread(server.wait_event, "ended_late")
            assert await asyncio.to_thread(server.process.wait, 60) == 0
            await asyncio.gather(loading, return_exceptions=True)
        until(lambda: are_gone(workers), "workers outlive the engine process")


def test_a_taken_port_is_reported_and_starts_nothing(bundles: Path, env: dict[str, str], server: Server) -> None:
    arguments = [*COMMAND, "serve", "--bundle", str(bundles / "first"), "--port", str(port_of(server))]
    other = {**env, "VIP5_JOURNAL": env["VIP5_JOURNAL"] + "-other"}
    second = subprocess.run(arguments, env=environment(other), capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode != 0
    assert "cannot listen" in second.stderr
    assert ask_all(server) == {200: 40}


async def test_a_stopped_worker_cannot_hold_a_change_up(server: Server) -> None:
    before = children_of(server)
    os.kill(before[0], signal.SIGSTOP)
    async with client_of(server) as client:
        await until_reached(client, server)
        (top, *_) = await items_of(server)
        await change(client, "PATCH", "/catalog", deactivate=[top])
    await asyncio.to_thread(until, lambda: before[0] not in children_of(server), "a stopped worker is kept")
    await asyncio.to_thread(until, lambda: len(children_of(server)) == NUM_WORKERS, "no worker took its place")
    await asyncio.to_thread(server.wait_ready)
    for _ in range(20):
        assert top not in await items_of(server)


async def until_reached(client: httpx.AsyncClient, server: Server) -> None:
    """Connect until a worker that runs answers; the stopped one keeps its share of the connections waiting."""
    while True:
        try:
            assert (await client.get("/domains", timeout=2)).status_code == 200
        except httpx.TransportError:
            assert server.process.poll() is None
        else:
            return


async def items_of(server: Server, **fields: object) -> list[str]:
    """What a new connection is recommended; asked again if its worker ends."""
    while True:
        async with httpx.AsyncClient(base_url=server.url, timeout=2) as client:
            try:
                answer = await client.post("/recommend/sequential", json=ASK | fields)
            except httpx.TransportError:
                continue
        return [str(each["item_id"]) for each in answer.json()["items"]]


async def test_changes_while_workers_die_are_in_every_later_answer(server: Server) -> None:
    for number in range(4):
        victim = children_of(server)[number % NUM_WORKERS]
        item_id = f"item-{number + 3}"
        killing = asyncio.create_task(asyncio.to_thread(os.kill, victim, signal.SIGKILL))
        await changed(server, item_id)
        await killing
        for _ in range(10):
            assert item_id not in await items_of(server, k=20)
        await asyncio.to_thread(
            until,
            lambda victim=victim: victim not in (now := children_of(server)) and len(now) == NUM_WORKERS,  # type: ignore[misc]
            "no worker took its place",
        )


async def changed(server: Server, item_id: str) -> None:
    """An item taken out of stock; asked again under the same key if the connection's worker died."""
    while True:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            try:
                await change(client, "PATCH", "/catalog", deactivate=[item_id], idempotency_key=item_id)
            except httpx.TransportError:
                continue
        return
