"""The requests of one worker in the lanes of the engine process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from model.engine.protocol import GeneratedText, Ranking
from model.errors import EngineError
from service.batching.job import Job
from service.batching.lanes import Lanes
from service.batching.shares import Client
from service.channel.channel import Channel
from service.channel.errors import failure_message
from service.channel.messages import RANKING, TEXT, Admitted, Load, Ranked, Scored, Submit, Token, WireText, Written
from service.channel.plans import PlanReader
from service.versions.domain_version import DomainVersion


class EngineJobs:
    """Submits what a worker sends, and sends the results. Used on the event loop only."""

    def __init__(self, lanes: Lanes, channel: Channel, version_of: Callable[[int], DomainVersion | None]) -> None:
        """`version_of` gives a version that the worker holds by its number."""
        self._lanes = lanes
        self._channel = channel
        self._version_of = version_of
        self._reader = PlanReader()
        self._jobs: dict[int, Job[Any, Any]] = {}
        self._answered: set[tuple[int, Client]] = set()  # lanes and clients, since the last flush
        channel.before_flush = self._add_forecasts

    def submit(self, message: Submit) -> None:
        """Put a request into its lane. Raises KeyError for a filter that the worker never sent."""
        request = message.request
        version = self._version_of(message.plan.prompts.version)
        if version is None:
            self._reader.skip(message.plan)
            self._channel.send(failure_message(request, EngineError("the version is not served any more; retry")))
            return
        plan = self._reader.read(message.plan, version.domain.slot, version.domain.eligible({}))
        client = Client(message.client, message.weight)
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
                job = self._lanes.ranking.submit(plan, deadline=message.deadline, client=client)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  # the worker is told
            self._channel.send(failure_message(request, error))
            self._answered.add((lane, client))
            return
        self._jobs[request] = job
        job.when_settled(lambda: self._send_result(request, job, lane, client))
        if message.streams:
            self._channel.send(Admitted(request))

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

    def _token_sender(self, request: int) -> Callable[[int], None]:
        return lambda token_id: self._channel.send(Token(request, token_id))

    def _send_result(self, request: int, job: Job[Any, Any], lane: int, client: Client) -> None:
        if self._jobs.pop(request, None) is None:
            return
        self._answered.add((lane, client))
        error = job.failure()
        if error is not None:
            self._channel.send(failure_message(request, error))
            return
        result = job.outcome()
        times = (job.queue_s, job.timings.encode_s, job.timings.decode_s)
        if isinstance(result, Ranking):
            leaves = result.leaves.astype("<i8", copy=False).tobytes()
            scores = np.asarray(result.scores, dtype="<f8").tobytes()
            self._channel.send(Ranked(request, leaves, scores, result.exact_prefix, result.num_beams, times))
        elif isinstance(result, GeneratedText):
            self._channel.send(Written(request, list(result.token_ids), result.score, result.finish_reason, times))
        else:
            self._channel.send(Scored(request, result, times))

    def _add_forecasts(self) -> None:
        answered, self._answered = self._answered, set()
        for lane, client in answered:
            entry = self._lanes.text if lane == TEXT else self._lanes.ranking
            completion_s, num_waiting, is_full = entry.forecast_for(client)
            self._channel.send(Load(lane, client.name, completion_s, num_waiting, is_full))
