"""The engine process's lanes, as a worker sees them."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from model.engine.plans import Plan, RankingPlan, ScoringPlan, TextPlan
from model.engine.protocol import GeneratedText, Ranking, Timings
from service.batching.bulk import Request
from service.batching.forecast import RetryJitter
from service.batching.job import Load as Work
from service.batching.queue import HEADROOM
from service.batching.shares import NOBODY, Client
from service.channel.channel import Channel
from service.channel.errors import error_of
from service.channel.messages import (
    RANKING,
    TEXT,
    Abandon,
    Admit,
    Admitted,
    Failed,
    GiveUp,
    Load,
    Ranked,
    Scored,
    Submit,
    Token,
    WireRequest,
    Written,
)
from service.channel.plans import PlanWriter
from service.errors import DeadlineError, DrainingError, OverloadedError, QueueFullError, ServiceError

R = TypeVar("R")

_LEAF, _SCORE = np.dtype("<i8"), np.dtype("<f8")

FRESH_S = 0.1
"""A forecast that is older than this refuses nothing."""
FRESH_SHARE = 0.25
"""The same as a share of the forecast: the lane must not run out of work meanwhile."""
MAX_CLIENTS = 10_000
"""Clients whose forecasts are kept."""


class RemoteJob(Generic[R]):
    """A request in a lane of the engine process. `deadline` is on the clock of time.monotonic; infinity means none."""

    def __init__(
        self,
        deadline: float,
        abandon: Callable[[], None],
        on_token: Callable[[int], None] | None,
        *,
        is_admitted: bool,
    ) -> None:
        """Without `is_admitted`, a message says when the lane has admitted it."""
        self.queue_s = 0.0
        self.timings = Timings()
        self.on_token = on_token
        self._deadline = deadline
        self._abandon = abandon
        self._submitted_at = time.monotonic()
        self._future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._admitted = None if is_admitted else asyncio.Event()
        self._refusal: Exception | None = None

    @property
    def submitted_at(self) -> float:
        return self._submitted_at

    async def admitted(self) -> None:
        """Raises what the engine process refused the job with; what fails after its admission is the result's error."""
        if self._admitted is not None:
            await self._admitted.wait()
        if self._refusal is not None:
            raise self._refusal

    async def result(self) -> R:
        timer = None
        if not math.isinf(self._deadline):
            loop = self._future.get_loop()
            timer = loop.call_later(max(0.0, self._deadline - time.monotonic()), self._expire)
        try:
            return await self._future
        finally:
            if timer is not None:
                timer.cancel()
            self._abandon()

    def _expire(self) -> None:
        self.fail(DeadlineError.of_queue(self._deadline - self._submitted_at))

    def abandon(self) -> None:
        self._abandon()

    # Called with what the engine process says.

    def admit(self) -> None:
        if self._admitted is not None:
            self._admitted.set()

    def resolve(self, result: R, times: tuple[float, float, float]) -> None:
        self.queue_s = times[0]
        self.timings = Timings(times[1], times[2])
        self.admit()
        if not self._future.done():
            self._future.set_result(result)

    def fail(self, error: Exception) -> None:
        if self._admitted is not None and not self._admitted.is_set():
            self._refusal = error
            self.admit()
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # whoever waited may be gone


class RemoteLane:
    """One lane. Refuses what the latest forecast leaves no time for; the engine process decides about the rest."""

    def __init__(self, lanes: RemoteLanes, max_waiting: int) -> None:
        self._lanes = lanes
        self._max_waiting = max_waiting
        self._forecasts: dict[str, tuple[Load, float]] = {}
        self._latest: Load | None = None
        self._heard_at = -math.inf
        self._jitter = RetryJitter()

    @property
    def num_waiting(self) -> int:
        return 0 if self._latest is None else self._latest.num_waiting

    def completion_s(self) -> float:
        if self._latest is None:
            return 0.0
        return max(0.0, self._latest.completion_s - (time.monotonic() - self._heard_at))

    def check(self, deadline: float, load: Work | None = None, client: Client = NOBODY) -> None:  # noqa: ARG002  # as other lanes
        if self._lanes.is_draining:
            raise DrainingError("the service is shutting down; retry on another replica", retry_after_s=1)
        refusal = self.recent_refusal(client, deadline - time.monotonic())
        if refusal is not None:
            raise refusal

    def recent_refusal(self, client: Client, deadline_s: float) -> ServiceError | None:
        forecast, heard_at = self._forecasts.get(client.name, (None, 0.0))
        age_s = time.monotonic() - heard_at
        if forecast is None or age_s > min(FRESH_S, FRESH_SHARE * forecast.completion_s):
            return None
        completion_s = max(0.0, forecast.completion_s - age_s)
        late_s = completion_s - deadline_s * (1 - HEADROOM)
        if forecast.is_full:
            retry_after_s = self._jitter.retry_after_s(completion_s)
            return QueueFullError(
                f"{forecast.num_waiting} requests are waiting, the limit is {self._max_waiting}; retry in "
                f"{retry_after_s} s",
                retry_after_s=retry_after_s,
            )
        if late_s <= 0:
            return None
        retry_after_s = self._jitter.retry_after_s(late_s)
        return OverloadedError(
            f"the answer would take about {completion_s:.2f} s, the deadline is in {max(deadline_s, 0):.2f} s; "
            f"retry in {retry_after_s} s, or allow a longer deadline_ms",
            retry_after_s=retry_after_s,
        )

    def note(self, load: Load) -> None:
        """The engine process's forecast for a client."""
        self._latest, self._heard_at = load, time.monotonic()
        self._forecasts.pop(load.client, None)
        self._forecasts[load.client] = load, self._heard_at
        if len(self._forecasts) > MAX_CLIENTS:
            del self._forecasts[next(iter(self._forecasts))]


class RemoteRankingLane(RemoteLane):
    """The lane of searches and scores."""

    def submit(self, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY) -> RemoteJob[Any]:
        return self._lanes.submit(plan, deadline, client, None)

    async def admit(self, requests: Sequence[Request], client: Client = NOBODY) -> RemoteAdmission:
        """As `BatchLane.admit`, by the engine process."""
        if requests:
            self.check(max(each.deadline for each in requests), client=client)
        return await self._lanes.admit(requests, client)


class RemoteTextLane(RemoteLane):
    """The lane of texts."""

    def submit(
        self,
        plan: TextPlan,
        *,
        deadline: float,
        client: Client = NOBODY,
        on_token: Callable[[int], None] | None = None,
    ) -> RemoteJob[GeneratedText]:
        return self._lanes.submit(plan, deadline, client, on_token)


class RemoteLanes:
    """The lanes of the engine process, over a channel."""

    def __init__(self, channel: Channel, max_waiting: int) -> None:
        self.is_draining = False
        self._channel = channel
        self._writer = PlanWriter()
        self._numbers = itertools.count()
        self._jobs: dict[int, RemoteJob[Any]] = {}
        self._admitting: dict[int, asyncio.Future[None]] = {}
        self._ranking = RemoteRankingLane(self, max_waiting)
        self._text = RemoteTextLane(self, max_waiting)

    @property
    def ranking(self) -> RemoteRankingLane:
        return self._ranking

    @property
    def text(self) -> RemoteTextLane:
        return self._text

    async def admit(self, requests: Sequence[Request], client: Client) -> RemoteAdmission:
        """Ask for places for the requests of one body. Raises as `BatchLane.admit`."""
        number = next(self._numbers)
        asked = self._admitting[number] = asyncio.get_running_loop().create_future()
        wire = [WireRequest(each.load.num_rows, each.load.longest, each.load.size, each.deadline) for each in requests]
        self._channel.send(Admit(number, wire, client.name, client.weight))
        admission = RemoteAdmission(self, number)
        try:
            await asked
        except BaseException:  # also when nobody waits any more
            admission.give_up()
            raise
        finally:
            del self._admitting[number]
        return admission

    def give_up(self, admission: int, number: int | None) -> None:
        self._channel.send(GiveUp(admission, number))

    def submit(
        self,
        plan: Plan,
        deadline: float,
        client: Client,
        on_token: Callable[[int], None] | None,
        place: tuple[int, int] | None = None,
    ) -> RemoteJob[Any]:
        """Send a plan, whose slot is the number of its version. `place` is an admission and a number in it."""
        number = next(self._numbers)
        streams = on_token is not None
        job: RemoteJob[Any] = RemoteJob(deadline, lambda: self._abandon(number), on_token, is_admitted=not streams)
        self._jobs[number] = job
        wire = self._writer.write(plan, plan.slot)
        self._channel.send(Submit(number, wire, deadline, client.name, client.weight, streams, place))
        return job

    def handle(self, message: Admitted | Ranked | Scored | Token | Written | Failed | Load) -> None:
        """What the engine process says of lanes and of requests in them."""
        if isinstance(message, Load):
            {RANKING: self._ranking, TEXT: self._text}[message.lane].note(message)
            return
        asked = self._admitting.get(message.request)
        if asked is not None:
            _settle(asked, message)
            return
        is_last = not isinstance(message, Admitted | Token)
        job = self._jobs.pop(message.request, None) if is_last else self._jobs.get(message.request)
        if job is not None:
            _tell(job, message)

    def _abandon(self, number: int) -> None:
        if self._jobs.pop(number, None) is not None:
            self._channel.send(Abandon(number))


def _ranking_of(message: Ranked) -> Ranking:
    leaves = np.frombuffer(message.leaves, dtype=_LEAF)
    scores = np.frombuffer(message.scores, dtype=_SCORE)
    boosted = None if message.boosted is None else np.frombuffer(message.boosted, dtype=_SCORE)
    return Ranking(leaves, scores, message.exact_prefix, message.num_beams, boosted, message.is_short)


def _text_of(message: Written) -> GeneratedText:
    return GeneratedText(tuple(message.token_ids), message.score, message.finish_reason)  # type: ignore[arg-type]  # one of the literals


def _tell(job: RemoteJob[Any], message: Admitted | Ranked | Scored | Token | Written | Failed) -> None:
    match message:
        case Ranked():
            job.resolve(_ranking_of(message), message.times)
        case Scored():
            job.resolve(message.log_probs, message.times)
        case Token():
            if job.on_token is not None:
                job.on_token(message.token_id)
        case Written():
            job.resolve(_text_of(message), message.times)
        case Admitted():
            job.admit()
        case Failed():
            job.fail(error_of(message.code, message.message, message.retry_after_s))


def _settle(asked: asyncio.Future[None], message: Admitted | Ranked | Scored | Token | Written | Failed) -> None:
    """The answer to whether there are places."""
    if asked.done():
        return
    if isinstance(message, Failed):
        asked.set_exception(error_of(message.code, message.message, message.retry_after_s))
    else:
        asked.set_result(None)


class RemoteAdmission:
    """Places in the engine process for the requests of one body."""

    def __init__(self, lanes: RemoteLanes, admission: int) -> None:
        self._lanes = lanes
        self._admission = admission

    def submit(
        self, number: int, plan: RankingPlan | ScoringPlan, *, deadline: float, client: Client = NOBODY
    ) -> RemoteJob[Any]:
        return self._lanes.submit(plan, deadline, client, None, (self._admission, number))

    def give_up(self, number: int | None = None) -> None:
        self._lanes.give_up(self._admission, number)
