"""Time limits that tell a slow reply from a process that is too busy to read it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from feature_cache.background import awaited

T = TypeVar("T")

LATE_TURNS = 5


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T:
    """The result of `work` by the deadline, on the loop's clock. Raises TimeoutError, and what `work` raises.

    If this process was busy, a reply may have arrived in time without having been read. It gets the few turns of the
    loop that reading it takes, so that a delay of this process counts neither against the request nor against Redis.
    """
    task = awaited(work)
    try:
        await asyncio.wait({task}, timeout=deadline - asyncio.get_running_loop().time())
        for _ in range(LATE_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()
