"""A lane of rankings over an engine that waits at a gate."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.batching.batch_lane import BatchLane
from service.observability.metrics import Metrics
from service.settings.options import QueueLimits
from tests.service.plans import GatedEngine

LIMITS = QueueLimits(max_waiting=4, max_batch_rows=3, max_batch_tokens=100, attribution_part_s=math.inf)
FAR = math.inf


def unexpected(lane: str, error: BaseException) -> None:
    raise AssertionError(f"the {lane} lane has failed") from error


@asynccontextmanager
async def opened_lane(engine: GatedEngine) -> AsyncIterator[BatchLane]:
    """At the end the gate is opened and the lane closed."""
    lane = BatchLane(engine, LIMITS, Metrics(), unexpected)
    lane.start()
    yield lane
    engine.gate.set()
    await lane.close(30)
