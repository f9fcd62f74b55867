"""How a process ends: drained without losing what it accepted, or at once with status 1 where a lane has failed."""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import PATIENCE_S, ROOT, Server, serving
from tests.tiny import tiny_bundle

NUM_CLIENTS = 12
ASK: dict[str, Any] = {"domain": "toys", "k": 20, "exactness": "certified"}
TELL: dict[str, Any] = {"domain": "toys", "item_id": "item-5", "max_new_tokens": 200, "temperature": 5.0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("ending"), num_items=2000)


def test_on_sigterm_everything_accepted_is_answered_before_the_process_ends(bundle: Path) -> None:
    limits = {"VIP5_MAX_BATCH_ROWS": "2", "VIP5_DRAIN_S": "100"}
    with serving(bundle, limits) as server, ThreadPoolExecutor(NUM_CLIENTS) as clients:
        asked = [clients.submit(_ask, server, number) for number in range(NUM_CLIENTS)]
        _wait_accepted(server, NUM_CLIENTS)
        assert not all(each.done() for each in asked), "some are waiting or running"
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        responses = [each.result(PATIENCE_S) for each in asked]
        assert server.process.wait(PATIENCE_S) == 0

    assert [response.status_code for response in responses] == [200] * NUM_CLIENTS
    assert all(len(response.json().get("items", [])) == 20 or response.json()["text"] for response in responses)


def test_a_lane_that_fails_ends_the_process_with_status_1_and_says_why_last(bundle: Path, tmp_path: Path) -> None:
    """The lane's own loop is broken from outside, as no request can break it."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(BREAKING, encoding="utf-8")
    with serving(bundle, {"PYTHONPATH": f"{ROOT}:{tmp_path}", "BREAK_AFTER": "1"}) as server:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            response = client.post("/recommend/sequential", json={"domain": "toys", "history": ["item-1"]})
        assert server.process.wait(PATIENCE_S) == 1

    assert response.status_code == 500
    assert response.json()["code"] == "engine_error"
    last = server.remaining_lines()[-1]
    assert (last["event"], last["level"], last["lane"]) == ("lane_failed", "CRITICAL", "ranking")
    assert "broken by a test" in last["exc_info"]


BREAKING = """
import os
if os.environ.get("BREAK_AFTER"):
    from service.batching.forecast import BatchForecast
    begin = BatchForecast.begin
    def break_after_the_warm_up(self, jobs, counts=[int(os.environ["BREAK_AFTER"])]):
        counts[0] -= 1
        if counts[0] < 0:
            raise RuntimeError("broken by a test")
        begin(self, jobs)
    BatchForecast.begin = break_after_the_warm_up
"""


ANSWERED = re.compile(r'vip5_requests_total\{.*route="/(recommend/sequential|explain)".*\}')


def _ask(server: Server, number: int) -> httpx.Response:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        if number % 4 == 0:
            return client.post("/explain", json=TELL | {"seed": number})
        return client.post("/recommend/sequential", json=ASK | {"history": [f"item-{number + 1}"]})


def _wait_accepted(server: Server, number: int) -> None:
    """Until so many requests have been taken up: they are with the engine or wait for it, or are done."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        while True:
            samples = _samples(client.get("/metrics").text)
            held = samples.get("vip5_num_requests_running", 0) + samples.get("vip5_num_requests_waiting", 0)
            done = sum(value for name, value in samples.items() if ANSWERED.match(name))
            if held + done >= number:
                return


def _samples(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}
