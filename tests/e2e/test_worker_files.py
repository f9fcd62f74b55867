"""A worker that starts anew finds other files than the engine process has verified."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from tests.e2e.children import children_of, until
from tests.e2e.live import live_bundles, live_environment
from tests.e2e.processes import Server, serving

ASK = {"domain": "toys", "history": ["item-1", "item-2"], "k": 3}


def degraded(server: Server) -> str:
    """What is reported; empty while the connection's worker is the one that ended."""
    try:
        with httpx.Client(base_url=server.url, timeout=10) as client:
            return "\n".join(client.get("/health/ready").json()["degraded"])
    except httpx.TransportError:
        return ""


def test_a_replaced_bundle_is_reported_and_never_served_until_its_files_are_back(tmp_path: Path) -> None:
    folder = live_bundles(tmp_path, ("first", "second"))
    with serving(folder / "first", live_environment(folder, VIP5_WORKERS="2")) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            due = client.post("/recommend/sequential", json=ASK).json()
        (folder / "first").rename(folder / "aside")
        (folder / "second").rename(folder / "first")
        victim, other = children_of(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: "cannot serve what this process serves" in degraded(server), "the other files are not reported")
        assert other in children_of(server)
        for _ in range(5):
            with httpx.Client(base_url=server.url, timeout=60) as client:
                answer = client.post("/recommend/sequential", json=ASK).json()
            assert (answer["bundle"], answer["items"]) == (due["bundle"], due["items"])

        (folder / "first").rename(folder / "second")
        (folder / "aside").rename(folder / "first")
        server.wait_event("worker_started")
        until(lambda: num_workers(server) == 2, "the worker has not come back")


def num_workers(server: Server) -> float:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("vip5_workers "))
