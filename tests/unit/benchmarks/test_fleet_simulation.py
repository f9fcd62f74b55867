"""The simulation agrees with what queueing theory says of the cases that it covers, and loses no request."""

from __future__ import annotations

import itertools
import random
import socketserver
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import astuple
from typing import Any, ClassVar

import pytest
import simpy

from benchmarks.fleet.load import request_of, send_at_random
from benchmarks.fleet.measured import Costs, Phase, costs_of, slowness_of
from benchmarks.fleet.simulation import Fleet, Loss, Machine, _Host, simulate
from tests.server_threads import serving_in_a_thread


def machine(batch_s: dict[int, list[float]], *, front_s: float = 0.0, num_front: int = 1, max_rows: int = 1) -> Machine:
    return Machine(batch_s, front_s, num_front, max_rows)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_engine_of_constant_time_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    service_s = 0.01
    outcome = simulate(Fleet(machine({1: [service_s]}), 1), load / service_s, 300.0, seed=3)

    mean_s = sum(outcome.latency_s) / len(outcome.latency_s)
    expected_s = service_s + load * service_s / (2 * (1 - load))
    assert mean_s == pytest.approx(expected_s, rel=0.05)
    assert outcome.busy == pytest.approx(load, rel=0.05)


def test_one_engine_of_exponential_times_has_exponential_latencies() -> None:
    draw, load, service_s = random.Random(5), 0.5, 0.01
    times = [draw.expovariate(1 / service_s) for _ in range(20_000)]
    outcome = simulate(Fleet(machine({1: times}), 1), load / service_s, 300.0, seed=4)

    assert outcome.percentile_ms(50) == pytest.approx(1e3 * service_s / (1 - load) * 0.693, rel=0.05)
    assert outcome.percentile_ms(99) == pytest.approx(1e3 * service_s / (1 - load) * 4.605, rel=0.1)


def test_batches_answer_more_than_one_request_at_a_time_could() -> None:
    batches = machine({1: [0.010], 8: [0.020]}, max_rows=8)
    outcome = simulate(Fleet(batches, 1), 200.0, 60.0)

    assert batches.capacity == pytest.approx(400)
    assert outcome.percentile_ms(99) < 60
    assert 0.5 < outcome.busy <= 1


def test_work_of_the_front_end_on_the_engine_s_processor_delays_the_engine() -> None:
    times = {1: [0.010]}
    apart = simulate(Fleet(machine(times, front_s=0.004), 1), 50.0, 120.0)
    shared = simulate(Fleet(machine(times, front_s=0.004, num_front=0), 1), 50.0, 120.0)

    assert shared.percentile_ms(50) > apart.percentile_ms(50)
    assert machine(times, front_s=0.004, num_front=0).capacity == pytest.approx(1 / 0.014)


def test_of_two_machines_the_less_busy_has_shorter_waits_than_a_random_one() -> None:
    times = machine({1: [0.010]})
    random_one, less_busy = (
        simulate(Fleet(times, 8, choice=choice), 8 * 80.0, 60.0) for choice in ("random", "less busy of two")
    )

    assert less_busy.percentile_ms(99) < 0.6 * random_one.percentile_ms(99)


def test_a_lost_zone_loses_no_request_and_the_others_carry_its_load() -> None:
    fleet = Fleet(machine({1: [0.010]}), 9, num_zones=3)
    rate, loss = 9 * 50.0, Loss(at_s=20.0, noticed_after_s=2.0)
    outcome = simulate(fleet, rate, 60.0, loss=loss, seed=1)
    without = simulate(fleet, rate, 60.0, seed=1)

    assert without.num_retried == 0
    assert outcome.num_retried > 0
    assert len(outcome.latency_s) == pytest.approx(rate * 60, rel=0.05)
    after_ms = outcome.percentile_ms(99, since_s=30.0)
    assert after_ms > without.percentile_ms(99, since_s=30.0)
    assert after_ms < outcome.percentile_ms(99, since_s=20.0, until_s=22.0)


def test_times_between_measured_sizes_are_in_proportion_and_beyond_them_by_the_row() -> None:
    sizes = machine({1: [0.01], 3: [0.03]}, max_rows=6)
    outcome = simulate(Fleet(sizes, 1), 1.0, 5.0)
    assert outcome.percentile_ms(50) == pytest.approx(10)

    burst = simulate(Fleet(machine({1: [0.01], 3: [0.03]}, front_s=0.0, max_rows=100), 1), 5_000.0, 0.02)
    assert max(burst.latency_s) == pytest.approx(len(burst.latency_s) * 0.01, rel=0.2)


def test_two_threads_share_a_processor_evenly() -> None:
    """A request comes 4 ms into a batch of 10: its 3 ms in front take 6, and the batch ends 3 ms later."""
    env, ends = simpy.Environment(), list[float]()
    host = _Host(env, machine({1: [0.010]}, front_s=0.005, num_front=0), random.Random(0))

    def ask(at_s: float) -> Generator[simpy.Event, Any, None]:
        yield env.timeout(at_s)
        yield from host.answer()
        ends.append(env.now)

    env.process(ask(0.0))
    env.process(ask(0.007))
    env.run(1.0)

    # 0-3 in front, 3-7 batch, 7-13 both, 13-16 batch; then the answer of 2 ms beside the second batch.
    assert ends[0] == pytest.approx(0.020)
    assert ends[1] == pytest.approx(0.020 + 0.008 + 0.002)


def test_a_batch_that_finds_the_engine_idle_takes_longer() -> None:
    """A single server with another first time is idle for (1 - load) / (1 + rate * difference) of the time."""
    cold = Machine({1: [0.010]}, 0.0, num_front=1, max_rows=1, cold_s=0.005)
    outcome = simulate(Fleet(cold, 1), 50.0, 200.0)

    assert outcome.busy == pytest.approx(1 - 0.5 / (1 + 50 * 0.005), rel=0.04)
    assert simulate(Fleet(cold, 1), 0.5, 20.0).percentile_ms(50) == pytest.approx(15)


def test_searches_that_are_made_again_take_their_place_in_later_batches() -> None:
    wider = Machine({1: [0.010]}, 0.0, num_front=1, max_rows=1, rows_per_request=1.25)
    outcome = simulate(Fleet(wider, 1), 1.0, 4000.0)

    assert wider.capacity == pytest.approx(80)
    assert outcome.busy == pytest.approx(0.0125, rel=0.1)


def test_costs_are_found_from_what_the_threads_used() -> None:
    told = Costs(0.001, 0.0005, 0.003, 0.002, 0.004, 1.1, 0.0)
    phases = []
    for rows, cold_share in ((1.0, 0.9), (1.5, 0.8), (3.0, 0.4), (6.0, 0.2), (11.0, 0.05)):
        batches = 440 / rows
        cold = cold_share * batches
        others_s = batches * told.batch_s + 440 * told.row_s + cold * told.cold_s
        loop_s = 400 * told.request_s + batches * told.of_batch_s
        phases.append(Phase(400, 440, batches, cold, loop_s, others_s))

    found = costs_of(phases)

    assert astuple(found)[:-1] == pytest.approx(astuple(told)[:-1])
    assert found.worst == pytest.approx(0, abs=1e-6)


def test_a_slow_phase_is_told_and_a_machine_as_slow_takes_as_much_longer() -> None:
    costs = Costs(0.001, 0.0005, 0.003, 0.002, 0.004, 1.0, 0.0)
    phases = [Phase(400, 400, 100, 50, factor * 0.45, factor * (0.3 + 0.8 + 0.2)) for factor in (1.0, 1.3)]
    assert slowness_of(phases, costs) == pytest.approx([1.0, 1.3])

    usual = Machine({1: [0.010], 2: [0.015]}, 0.004, num_front=0, of_batch_s=0.001, cold_s=0.002)
    slow = usual.slowed(1.3)
    assert slow.capacity == pytest.approx(usual.capacity / 1.3)
    at_leisure = [simulate(Fleet(each, 1), 1.0, 60.0).percentile_ms(50) for each in (usual, slow)]
    assert at_leisure[1] == pytest.approx(1.3 * at_leisure[0])


class Answering(socketserver.StreamRequestHandler):
    """A server that answers nobody until five have asked."""

    status: ClassVar[bytes] = b"200 OK"
    asked = itertools.count(1)
    have_five_asked = threading.Event()

    def handle(self) -> None:
        with suppress(ConnectionError):
            while self.rfile.readline():
                while self.rfile.readline() != b"\r\n":
                    pass
                assert self.rfile.read(8) == b'{"k": 1}'
                if next(self.asked) >= 5:
                    self.have_five_asked.set()
                if not self.have_five_asked.wait(20):
                    return
                self.wfile.write(b"HTTP/1.1 " + self.status + b"\r\ncontent-length: 2\r\n\r\n{}")


@pytest.fixture
def answering() -> Iterator[str]:
    """The server's address."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering)
    with serving_in_a_thread(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"
        Answering.have_five_asked.set()


def test_requests_are_sent_at_their_rate_whether_or_not_others_are_answered(
    answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request_of("/recommend/sequential", b'{"k": 1}')]
    sent = send_at_random(answering, requests, 400.0, 0.5)

    assert len(sent.latencies_s) == pytest.approx(200, rel=0.3)
    assert len(sent.late_s) == len(sent.latencies_s)
    assert min(sent.latencies_s) > 0
    assert sent.client_s > 0
    monkeypatch.setattr(Answering, "status", b"429 Too Many Requests")
    with pytest.raises(RuntimeError, match="429"):
        send_at_random(answering, requests, 400.0, 0.5)
