"""Time limits that tell a slow answer from a process that is too busy to look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

LATE_TURNS = 5


async def in_time(work: Coroutine[Any, Any, T], deadline: float) -> T:
    """What `work` gives by the deadline, on the loop's clock. Raises TimeoutError, and what it raises.

    Where this process was busy, an answer may have been there in time that nobody has looked at. It gets the few turns
    of the loop that reading it takes: neither the request nor Redis is to pay for a delay of our own.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_forget)
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


def _forget(task: asyncio.Task[T]) -> None:
    """Take note of an error that nobody waits for any more, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()
