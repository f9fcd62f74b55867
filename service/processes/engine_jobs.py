"""The requests of one worker in the lanes of the engine process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from model.engine.protocol import GeneratedText, Ranking
from model.errors import EngineError
from service.batching.batch_lane import AdmittedJobs, AnyPlan, RankingJob
from service.batching.bulk import Request
from service.batching.job import ExpectedLoad, Job
from service.batching.lanes import Lanes
from service.batching.shares import NOBODY, Client
from service.channel.channel import Channel
from service.channel.errors import failure_message
from service.channel.messages import (
    RANKING,
    TEXT,
    Admit,
    Admitted,
    GiveUp,
    Load,
    Ranked,
    Scored,
    Submit,
    Token,
    WireRequest,
    Written,
)
from service.channel.plan_messages import WireText
from service.channel.plans import PlanReader
from service.versions.domain_version import DomainVersion

_LEAF, _SCORE = np.dtype("<i8"), np.dtype("<f8")


class EngineJobs:
    """Submits what a worker sends, and sends the results. Used on the event loop only."""

    def __init__(self, lanes: Lanes, channel: Channel, version_of: Callable[[int], DomainVersion | None]) -> None:
        """`version_of` gives a version that the worker holds by its number."""
        self._lanes = lanes
        self._channel = channel
        self._version_of = version_of
        self._reader = PlanReader()
        self._jobs: dict[int, Job[Any, Any]] = {}
        self._admissions: dict[int, AdmittedJobs] = {}
        self._answered: dict[tuple[int, str], Client] = {}  # by lane and name, since the last flush
        channel.before_flush = self._add_forecasts

    def submit(self, message: Submit) -> None:
        """Put a request into its lane. Raises KeyError for a filter that the worker never sent."""
        request = message.request
        version = self._version_of(message.plan.prompts.version)
        if version is None:
            self._reader.skip(message.plan)
            self._channel.send(failure_message(request, EngineError("the version is not served any more; retry")))
            return
        domain = version.domain
        plan = self._reader.read(message.plan, domain.slot, domain.eligible({}), domain.boosts)
        client = _client_of(message)
        lane = TEXT if isinstance(message.plan, WireText) else RANKING
        try:
            if isinstance(message.plan, WireText):
                on_token = self._token_sender(request) if message.streams else None
                text_job = self._lanes.text.submit(
                    plan,  # type: ignore[arg-type]  # the plan of a WireText
                    deadline=message.deadline,
                    client=client,
                    on_token=on_token,
                )
                job: Job[Any, Any] = text_job
            else:
                job = self._submit_ranking(message, plan, client)  # type: ignore[arg-type]  # the plan is no text
        except Exception as error:  # noqa: BLE001  # the worker is told
            self._channel.send(failure_message(request, error))
            self._answered[lane, client.name] = client
            return
        self._jobs[request] = job
        job.when_settled(lambda: self._send_result(request, job, lane, client))
        if message.streams:
            self._channel.send(Admitted(request))

    def _submit_ranking(self, message: Submit, plan: AnyPlan, client: Client) -> RankingJob:
        if message.place is None:
            return self._lanes.ranking.submit(plan, deadline=message.deadline, client=client)
        admission, number = message.place
        return self._admissions[admission].submit(number, plan, deadline=message.deadline, client=client)

    def admit(self, message: Admit) -> None:
        """Hold places for the requests of one body, or tell why not."""
        client = _client_of(message)
        requests = [Request(_load_of(each), each.deadline) for each in message.requests]
        try:
            self._admissions[message.admission] = self._lanes.ranking.admitted(requests, client)
        except Exception as error:  # noqa: BLE001  # the worker is told
            self._channel.send(failure_message(message.admission, error))
        else:
            self._channel.send(Admitted(message.admission))

    def give_up(self, message: GiveUp) -> None:
        """A request needs no place, or an admission has ended."""
        if message.number is None:
            admission = self._admissions.pop(message.admission, None)
        else:
            admission = self._admissions.get(message.admission)
        if admission is not None:
            admission.give_up(message.number)

    def abandon(self, request: int) -> None:
        """The worker does not wait for a request any more."""
        job = self._jobs.pop(request, None)
        if job is not None:
            job.abandon()

    def abandon_all(self) -> None:
        """The worker is gone."""
        for job in self._jobs.values():
            job.abandon()
        self._jobs.clear()
        for admission in self._admissions.values():
            admission.give_up()
        self._admissions.clear()

    def _token_sender(self, request: int) -> Callable[[int], None]:
        return lambda token_id: self._channel.send(Token(request, token_id))

    def _send_result(self, request: int, job: Job[Any, Any], lane: int, client: Client) -> None:
        if self._jobs.pop(request, None) is None:
            return
        self._answered[lane, client.name] = client
        error = job.failure()
        if error is not None:
            self._channel.send(failure_message(request, error))
            return
        result = job.outcome()
        times = (job.queue_s, job.timings.encode_s, job.timings.decode_s)
        if isinstance(result, Ranking):
            leaves = result.leaves.astype(_LEAF, copy=False).tobytes()
            scores = result.scores.astype(_SCORE, copy=False).tobytes()
            boosted = None if result.boosted is None else np.asarray(result.boosted, dtype=_SCORE).tobytes()
            proven, num_beams = result.exact_prefix, result.num_beams
            self._channel.send(Ranked(request, leaves, scores, proven, num_beams, times, boosted, result.is_short))
        elif isinstance(result, GeneratedText):
            self._channel.send(Written(request, list(result.token_ids), result.score, result.finish_reason, times))
        else:
            self._channel.send(Scored(request, result, times))

    def _add_forecasts(self) -> None:
        answered, self._answered = self._answered, {}
        for (lane, _), client in answered.items():
            entry = self._lanes.text if lane == TEXT else self._lanes.ranking
            completion_s, num_waiting, is_full = entry.forecast_for(client)
            self._channel.send(Load(lane, client.name, completion_s, num_waiting, is_full))


def _client_of(message: Submit | Admit) -> Client:
    is_nobody = not message.client and message.weight == NOBODY.weight
    return NOBODY if is_nobody else Client(message.client, message.weight)


def _load_of(request: WireRequest) -> ExpectedLoad:
    return ExpectedLoad(request.num_rows, request.longest, request.size)
