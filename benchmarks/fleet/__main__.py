"""How many machines does a load need, and what happens when some of them are lost?

Question  Does a simulation of one machine have the latencies that are measured on it at 30, 50 and 70 % of its
          capacity? Of fleets: how many machines keep a p99, how busy are they, and what does the loss of a zone do?
Method    The shipped demonstration on one processor, a client on another, which sends requests at random times
          (Poisson). Phases of several loads tell by the processor times of the service's threads and its numbers of
          batches what a request costs the event loop, and what a batch and each of its rows cost the engine (least
          squares); a batch costs more if the lane was idle before. Batches of held-out customers in the engine alone
          tell how much these differ. Between the phases are slots of the loads whose latencies are compared, so that
          both meet the same machine. The simulation (SimPy) gets the costs, how much each phase used beside what these
          say (the machine's speed changes), the rates and the client's own time for a request, and nothing that was
          measured of latencies. Other work on the machine during a run is told: with more than a few percent, the
          comparison says nothing. Fleets of GPUs stand on figures that were calculated, and are marked so.
Output    Measured and simulated percentiles side by side, and a table of fleets; the last line is JSON.

    python -m benchmarks.fleet [--seconds 30] [--loads 0.3 0.5 0.7] [--rates 1000 10000 100000] [--limit-ms 100]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # its types are a package of their own

from benchmarks.answers import DEMO
from benchmarks.fleet.load import Sent
from benchmarks.fleet.measured import (
    Phase,
    costs_of,
    guessed_rate,
    machine_of,
    phase_of,
    requests_of_demonstration,
    slowness_of,
    spread_of_batches,
    told,
)
from benchmarks.fleet.simulation import Fleet, Loss, Machine, percentile_ms, simulate
from tests.e2e.processes import Server, serving

PERCENTS = (50, 95, 99)
FIRST_S = 6.0
LOADS = (0.2, 0.35, 0.5, 0.6, 0.7)
"""Of phases that tell the costs."""
PHASE_S = 4.0
NUM_TURNS = 6
"""Of phases and of slots that are compared, so that both meet the machine as fast."""
NUM_ZONES = 3
MOST_REQUESTS = 300_000.0  # of a fleet's run
CALCULATED_GPU = Machine(
    {1: [0.004], 32: [32 / 5_500], 128: [128 / 10_000]}, front_s=0.0014, num_front=16, max_rows=128
)
"""An H200 with T5-small in tfloat32, from its matrix and memory rates and the launches of a search; a worker's time is
measured on a CPU. Nothing of it ran on a GPU."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate machines that were measured.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of requests at each load (default: 30)")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.3, 0.5, 0.7], help="of a machine's capacity")
    parser.add_argument("--rates", type=float, nargs="*", default=[1e3, 1e4, 1e5], help="of fleets, a second")
    parser.add_argument("--limit-ms", type=float, default=100.0, help="p99 that a fleet must keep (default: 100)")
    options = parser.parse_args()
    machine, costs, compared = _measure(options.loads, options.seconds, sorted(os.sched_getaffinity(0)))
    machines = {"one processor, measured": machine, "GPU, calculated": CALCULATED_GPU}
    fleets = [
        {"machine": name, **_fleet(each, rate_of_fleet, options.limit_ms)}
        for name, each in machines.items()
        for rate_of_fleet in options.rates
    ]
    found = {"benchmark": "fleet", "capacity": round(machine.capacity, 1), "costs_us": costs}
    print(json.dumps({**found, "loads": compared, "fleets": fleets}))
    return 0


def _measure(
    loads: Sequence[float], seconds: float, processors: Sequence[int]
) -> tuple[Machine, dict[str, float], list[dict[str, Any]]]:
    """A machine of one processor, what its work costs in µs, and what was measured and simulated at each load."""
    requests = requests_of_demonstration()
    os.sched_setaffinity(0, processors[:1])
    spread = spread_of_batches()
    with serving(DEMO, {"VIP5_NUM_THREADS": "1", "VIP5_WORKERS": "0"}) as server:
        os.sched_setaffinity(0, processors[-1:])  # the service stays on the first one
        rate = guessed_rate(server, requests)
        firsts = [phase_of(server, requests, load * rate, FIRST_S, seed=0)[0] for load in LOADS]
        rate = 1 / costs_of(firsts).busy_s
        phases: list[Phase] = []
        slots: dict[float, list[_Slot]] = {load: [] for load in loads}
        for turn in range(NUM_TURNS):
            turned = LOADS if turn % 2 else LOADS[::-1]
            phases += [phase_of(server, requests, load * rate, PHASE_S, seed=turn)[0] for load in turned]
            for load in loads:
                slots[load].append(_Slot.of(server, requests, load * rate, seconds / NUM_TURNS, seed=100 + turn))
    os.sched_setaffinity(0, processors)
    costs = costs_of(phases)
    machine = machine_of(costs, spread)
    print(f"one machine: capacity {machine.capacity:.0f}/s; in µs: {json.dumps(told(costs))}", flush=True)
    speeds = [machine.slowed(each) for each in slowness_of(phases, costs)]
    return machine, told(costs), [_compare(machine, speeds, load * rate, each) for load, each in slots.items()]


@dataclass(frozen=True)
class _Slot:
    """Some seconds of one load, and how much of them was other work of this machine."""

    phase: Phase
    sent: Sent
    seconds: float
    others_s: float

    @classmethod
    def of(cls, server: Server, requests: list[bytes], rate: float, seconds: float, seed: int) -> _Slot:
        began_s, busy_s, client_s = time.monotonic(), _busy_s(), time.process_time()
        phase, sent = phase_of(server, requests, rate, seconds, seed)
        used_s = phase.loop_s + phase.others_s + time.process_time() - client_s
        return cls(phase, sent, time.monotonic() - began_s, _busy_s() - busy_s - used_s)


def _compare(machine: Machine, speeds: Sequence[Machine], rate: float, slots: Sequence[_Slot]) -> dict[str, Any]:
    """Latencies at a rate, measured and simulated at one speed and at each measured one, and how to judge them."""
    seconds = sum(slot.seconds for slot in slots)
    latencies_s = [each for slot in slots for each in slot.sent.latencies_s]
    client_s = sum(slot.sent.client_s for slot in slots) / len(slots)
    rows_per_batch = sum(slot.phase.rows for slot in slots) / sum(slot.phase.batches for slot in slots)
    outcome = simulate(Fleet(machine, 1), rate, 10 * seconds)
    by_slot = [[percentile_ms(slot.sent.latencies_s, each) for slot in slots] for each in PERCENTS]
    measured = {each: round(percentile_ms(latencies_s, each), 2) for each in PERCENTS}
    at_each = [simulate(Fleet(each, 1), rate, 10 * seconds / len(speeds), seed=n) for n, each in enumerate(speeds)]
    pooled_s = [latency for each in at_each for latency in each.latency_s]
    steady = {each: round(outcome.percentile_ms(each) + 1e3 * client_s, 2) for each in PERCENTS}
    simulated = {each: round(percentile_ms(pooled_s, each) + 1e3 * client_s, 2) for each in PERCENTS}
    found: dict[str, Any] = {
        "load": round(rate / machine.capacity, 3),
        "rate": round(rate, 1),
        "measured_ms": measured,
        "slots_ms": [[round(min(each), 2), round(max(each), 2)] for each in by_slot],
        "simulated_ms": simulated,
        "at_one_speed_ms": steady,
        "ratio": {each: round(simulated[each] / measured[each], 2) for each in PERCENTS},
        "rows_of_batches": [round(rows_per_batch, 2), round(outcome.mean_batch, 2)],
        "late_p99_ms": round(percentile_ms([each for slot in slots for each in slot.sent.late_s], 99), 2),
        "client_ms": round(1e3 * client_s, 3),
        "service_busy": round(sum(slot.phase.loop_s + slot.phase.others_s for slot in slots) / seconds, 3),
        "other_work": round(sum(slot.others_s for slot in slots) / seconds, 3),
    }
    print("  ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    return found


def _busy_s() -> float:
    """Processor seconds of everything on the machine so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _fleet(machine: Machine, rate: float, limit_ms: float) -> dict[str, float]:
    """The fewest machines that keep the limit even while one of three zones is lost, and what its loss does."""
    seconds = min(20.0, MOST_REQUESTS / rate)
    number = NUM_ZONES * max(1, int(rate / machine.capacity / NUM_ZONES))
    while not _keeps(machine, number * (NUM_ZONES - 1) // NUM_ZONES, rate, limit_ms):
        number += NUM_ZONES * max(1, number // (NUM_ZONES * 20))
    fleet = Fleet(machine, number, NUM_ZONES)
    usual = simulate(fleet, rate, seconds)
    loss = Loss(at_s=seconds / 4, noticed_after_s=seconds / 10)
    lost = simulate(fleet, rate, seconds, loss=loss)
    noticed_s = loss.at_s + loss.noticed_after_s
    found = {
        "rate": rate,
        "machines": number,
        "busy": round(usual.busy, 3),
        "p99_ms": round(usual.percentile_ms(99), 1),
        "p99_until_noticed_ms": round(lost.percentile_ms(99, since_s=loss.at_s, until_s=noticed_s), 1),
        "p99_with_two_zones_ms": round(lost.percentile_ms(99, since_s=noticed_s + loss.noticed_after_s), 1),
        "retried": lost.num_retried,
    }
    print("  ".join(f"{name} {value:g}" for name, value in found.items()), flush=True)
    return found


def _keeps(machine: Machine, number: int, rate: float, limit_ms: float) -> bool:
    if number < 1 or rate >= number * machine.capacity:
        return False
    return simulate(Fleet(machine, number), rate, min(5.0, MOST_REQUESTS / 4 / rate)).percentile_ms(99) <= limit_ms


if __name__ == "__main__":
    sys.exit(main())
