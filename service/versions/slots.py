"""Slots of the engine: allocates, fills and frees them while requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from feature_cache.background import Background
from model.engine.protocol import Engine, Placement
from model.errors import EngineError
from service.versions.domain_version import PlacedDomain


class Slots:
    """Allocates slots. One slot is placed or vacated at a time, as the engine requires."""

    def __init__(
        self, engine: Engine, allocated: Iterable[int], fence: Callable[[], Awaitable[None]], background: Background
    ) -> None:
        """`fence` waits for the batches that are running when it is called."""
        self._engine = engine
        self._allocated = set(allocated)
        self._fence = fence
        self._background = background
        self._lock = asyncio.Lock()
        self._pending: set[asyncio.Task[None]] = set()

    @property
    def num_allocated(self) -> int:
        return len(self._allocated)

    def allocate(self) -> int:
        """The lowest free slot."""
        slot = next(slot for slot in range(len(self._allocated) + 1) if slot not in self._allocated)
        self._allocated.add(slot)
        return slot

    async def place(self, slot: int, placement: Placement) -> None:
        """Raises EngineError if the device is out of memory or fails otherwise."""
        try:
            async with self._lock:
                await asyncio.to_thread(self._engine.place, slot, placement)
        except (MemoryError, RuntimeError) as error:  # torch's OutOfMemoryError is a RuntimeError
            raise EngineError(
                f"the version could not be placed on the device ({_first_line(error)}); unload domains that are not "
                "needed, or serve it from another instance"
            ) from error

    async def free(self, slot: int) -> None:
        """Vacate a slot that no request uses."""
        async with self._lock:
            await asyncio.to_thread(self._engine.vacate, slot)
        self._allocated.discard(slot)

    def free_when_unused(self, placed: PlacedDomain) -> None:
        """Free the slot of a placed domain, in the background, when its last lease is released."""
        task = self._background.once("free_slot", lambda: self._wait_and_free(placed))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    async def _wait_and_free(self, placed: PlacedDomain) -> None:
        await placed.references.wait_zero()
        # A cancelled request may still have rows in a running batch.
        await self._fence()
        await self.free(placed.slot)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
