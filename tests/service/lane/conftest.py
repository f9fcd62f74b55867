"""A lane of rankings, and its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.batching.batch_lane import BatchLane
from tests.service.lanes import opened_lane
from tests.service.plans import GatedEngine


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def lane(engine: GatedEngine) -> AsyncIterator[BatchLane]:
    async with opened_lane(engine) as lane:
        yield lane
