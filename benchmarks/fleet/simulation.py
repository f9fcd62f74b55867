"""A discrete-event simulation of machines behind a load balancer, by SimPy.

A request first takes the machine's front end for a fixed time, then waits for the engine. The engine takes all that
wait, up to a limit, in one batch, whose time is drawn from measured ones; then the front end answers one after another.
This is the order in which the service works: one batch at a time, and nothing is waited for once the engine is free.
Without processes for HTTP, the thread of the event loop and that of the engine share one processor evenly.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import simpy

Choice = Literal["random", "in turn", "less busy of two"]
Steps = Generator[simpy.Event, Any, None]

RETRY_S = 0.05
"""Until a proxy sends a request again whose machine has gone."""
BEFORE = 0.6
"""Part of the front end's work on a request that is done before the engine's."""


@dataclass(frozen=True)
class Machine:
    """What was measured of one machine."""

    batch_s: Mapping[int, Sequence[float]]
    """Times of batches by their number of requests, each number with at least one time, and 1 among them."""
    front_s: float
    """Processor time of a request outside of the engine: HTTP, plan, features, answer."""
    num_front: int = 0
    """Processes for HTTP, on processors of their own; 0: that work is done on the engine's processor."""
    max_rows: int = 64
    """Most requests in a batch."""
    of_batch_s: float = 0.0
    """Processor time of the front end for a batch."""
    cold_s: float = 0.0
    """What a batch takes longer if the engine had nothing to do before it."""
    rows_per_request: float = 1.0
    """More than one if some searches are made again, wider."""

    def slowed(self, factor: float) -> Machine:
        """The same machine while everything takes so many times as long."""
        return replace(
            self,
            batch_s={rows: [factor * each for each in times] for rows, times in self.batch_s.items()},
            front_s=factor * self.front_s,
            of_batch_s=factor * self.of_batch_s,
            cold_s=factor * self.cold_s,
        )

    @property
    def capacity(self) -> float:
        """Requests a second with batches of the largest measured size."""
        rows = min(max(self.batch_s), self.max_rows)
        engine_s = sum(self.batch_s[rows]) / len(self.batch_s[rows]) / rows * self.rows_per_request
        front_s = self.front_s + self.of_batch_s / rows
        if self.num_front == 0:
            return 1 / (engine_s + front_s)
        return 1 / max(engine_s, front_s / self.num_front)


@dataclass(frozen=True)
class Fleet:
    """Like machines, spread evenly over zones."""

    machine: Machine
    num_machines: int
    num_zones: int = 1
    choice: Choice = "less busy of two"


@dataclass(frozen=True)
class Loss:
    """A zone whose machines stop at once; the balancer goes on sending to them until it notices."""

    at_s: float
    noticed_after_s: float
    zone: int = 0


@dataclass
class Outcome:
    """Requests of one run, in the order of their answers."""

    arrived_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    num_retried: int = 0
    busy: float = 0.0
    """Engines' processor time relative to the time, over all machines."""
    mean_batch: float = 0.0

    def percentile_ms(self, percent: float, *, since_s: float = 0.0, until_s: float = float("inf")) -> float:
        """Latency that so many percent of the requests have at most; of those that arrived in a span."""
        pairs = zip(self.arrived_s, self.latency_s, strict=True)
        return percentile_ms([latency for arrived, latency in pairs if since_s <= arrived < until_s], percent)


def percentile_ms(latencies_s: Sequence[float], percent: float) -> float:
    """Latency that so many percent have at most; not a number if there are none."""
    kept = sorted(latencies_s)
    return 1e3 * kept[min(len(kept) - 1, int(percent / 100 * len(kept)))] if kept else float("nan")


class _Processor:
    """One processor that those who work on it share evenly."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._left_s: dict[simpy.Event, float] = {}
        self._since_s = 0.0
        self._plan = 0

    def work(self, seconds: float) -> simpy.Event:
        """Happens when so much processor time was had."""
        self._advance()
        done = self._env.event()
        self._left_s[done] = seconds
        self._plan_next()
        return done

    def _advance(self) -> None:
        share_s = (self._env.now - self._since_s) / max(1, len(self._left_s))
        self._since_s = self._env.now
        for done in self._left_s:
            self._left_s[done] -= share_s

    def _plan_next(self) -> None:
        self._plan += 1
        if self._left_s:
            first = min(self._left_s, key=self._left_s.__getitem__)
            wait_s = max(0.0, self._left_s[first] * len(self._left_s))
            self._env.timeout(wait_s).callbacks.append(partial(self._finish, self._plan, first))

    def _finish(self, plan: int, first: simpy.Event, _: simpy.Event) -> None:
        if plan != self._plan:
            return  # somebody has come since
        self._advance()
        del self._left_s[first]
        first.succeed()
        self._plan_next()


class _Host:
    """One machine of the fleet."""

    def __init__(self, env: simpy.Environment, machine: Machine, draw: random.Random) -> None:
        self._env, self._machine, self._draw = env, machine, draw
        self._processor = _Processor(env) if machine.num_front == 0 else None
        self._front = simpy.Resource(env, capacity=max(1, machine.num_front))
        self._waiting: list[simpy.Event] = []
        self._work = env.event()
        self._running: set[simpy.Event] = set()
        self.num_inside = 0
        self.engine_s = 0.0
        self.batches: list[int] = []
        self._is_up = True
        env.process(self._engine())

    def is_up(self) -> bool:
        return self._is_up

    def answer(self) -> Generator[simpy.Event, Any, bool]:
        """Whether the request was answered; False if the machine has stopped meanwhile."""
        if not self.is_up():
            return False
        self.num_inside += 1
        yield from self._in_front(BEFORE * self._machine.front_s)
        is_done = False
        while self.is_up() and not is_done:
            yield self._queued()
            is_done = self._draw.random() * self._machine.rows_per_request < 1
        if self.is_up():
            yield from self._in_front((1 - BEFORE) * self._machine.front_s)
        self.num_inside -= 1
        return self.is_up()

    def stop(self) -> None:
        """Nothing that is inside is answered."""
        self._is_up = False
        for done in [each for each in self._running if not each.triggered]:
            done.succeed()

    def _in_front(self, seconds: float) -> Steps:
        with self._front.request() as place:
            yield place
            yield self._take(seconds)

    def _take(self, seconds: float) -> simpy.Event:
        """Processor time of a thread."""
        return self._env.timeout(seconds) if self._processor is None else self._processor.work(seconds)

    def _queued(self) -> simpy.Event:
        """Happens when the batch is done into which the request comes."""
        done = self._env.event()
        self._waiting.append(done)
        self._running.add(done)
        if not self._work.triggered:
            self._work.succeed()
        return done

    def _engine(self) -> Steps:
        while True:
            was_idle = not self._waiting
            if was_idle:
                self._work = self._env.event()
                yield self._work
            batch = self._waiting[: self._machine.max_rows]
            del self._waiting[: len(batch)]
            seconds = _time(self._machine.batch_s, len(batch), self._draw) + was_idle * self._machine.cold_s
            yield self._take(seconds)
            self.engine_s += seconds
            self.batches.append(len(batch))
            if self._machine.of_batch_s:
                self._env.process(self._in_front(self._machine.of_batch_s))
            for done in batch:
                self._running.discard(done)
                if not done.triggered:
                    done.succeed()


def _time(batch_s: Mapping[int, Sequence[float]], rows: int, draw: random.Random) -> float:
    """A batch's time, drawn for a measured size; between two of them in proportion, beyond the largest by the row."""
    if rows in batch_s:
        return draw.choice(batch_s[rows])
    sizes = sorted(batch_s)
    below = max(size for size in sizes if size < rows)
    above = min((size for size in sizes if size > rows), default=None)
    if above is None:
        return draw.choice(batch_s[below]) * rows / below
    share = (rows - below) / (above - below)
    return (1 - share) * draw.choice(batch_s[below]) + share * draw.choice(batch_s[above])


def simulate(fleet: Fleet, rate: float, seconds: float, *, loss: Loss | None = None, seed: int = 0) -> Outcome:
    """Send `rate` requests a second at random times (Poisson), and wait for all answers."""
    env, draw = simpy.Environment(), random.Random(seed)
    hosts = [_Host(env, fleet.machine, draw) for _ in range(fleet.num_machines)]
    balancer = _Balancer(env, fleet, hosts, draw)
    outcome = Outcome()
    if loss is not None:
        env.process(balancer.lose(loss))
    arrivals = env.process(_arrivals(env, balancer, rate, seconds, draw, outcome))
    env.run(arrivals)
    batches = [rows for host in hosts for rows in host.batches]
    outcome.mean_batch = sum(batches) / max(1, len(batches))
    outcome.busy = sum(host.engine_s for host in hosts) / env.now / len(hosts)
    return outcome


def _arrivals(
    env: simpy.Environment, balancer: _Balancer, rate: float, seconds: float, draw: random.Random, outcome: Outcome
) -> Steps:
    requests = []
    while env.now < seconds:
        requests.append(env.process(balancer.ask(outcome)))
        yield env.timeout(draw.expovariate(rate))
    yield env.all_of(requests)


class _Balancer:
    """Sends each request to a machine, and again to another if that one has stopped."""

    def __init__(self, env: simpy.Environment, fleet: Fleet, hosts: Sequence[_Host], draw: random.Random) -> None:
        self._env, self._fleet, self._draw = env, fleet, draw
        self._hosts = hosts
        self._known = list(hosts)  # those taken to be up
        self._turn = 0

    def ask(self, outcome: Outcome) -> Steps:
        arrived_s = self._env.now
        while True:
            is_answered = yield from self._host().answer()
            if is_answered:
                break
            outcome.num_retried += 1
            yield self._env.timeout(RETRY_S)
        outcome.arrived_s.append(arrived_s)
        outcome.latency_s.append(self._env.now - arrived_s)

    def lose(self, loss: Loss) -> Steps:
        yield self._env.timeout(loss.at_s)
        lost = [host for place, host in enumerate(self._hosts) if place % self._fleet.num_zones == loss.zone]
        for host in lost:
            host.stop()
        yield self._env.timeout(loss.noticed_after_s)
        self._known = [host for host in self._known if host not in lost]

    def _host(self) -> _Host:
        if self._fleet.choice == "in turn":
            self._turn += 1
            return self._known[self._turn % len(self._known)]
        if self._fleet.choice == "random" or len(self._known) == 1:
            return self._draw.choice(self._known)
        return min(self._draw.sample(self._known, 2), key=lambda host: host.num_inside)
