"""Slots of the engine: which are free, and filling and vacating them beside the requests that are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from model.engine.protocol import Engine, Placement
from model.errors import EngineError
from service.versions.domain_version import Tenancy


class Slots:
    """Knows who may have which slot. Placing and vacating take turns, as the engine asks for."""

    def __init__(self, engine: Engine, taken: Iterable[int], fence: Callable[[], Awaitable[None]]) -> None:
        """`fence` waits until every batch that ran when it was called has ended."""
        self._engine = engine
        self._taken = set(taken)
        self._fence = fence
        self._turn = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def num_taken(self) -> int:
        return len(self._taken)

    def take(self) -> int:
        """The first free slot, which is the caller's from now on."""
        slot = next(slot for slot in range(len(self._taken) + 1) if slot not in self._taken)
        self._taken.add(slot)
        return slot

    async def place(self, slot: int, placement: Placement) -> None:
        """Raises EngineError where the device has no room or refuses for another reason."""
        try:
            async with self._turn:
                await asyncio.to_thread(self._engine.place, slot, placement)
        except (MemoryError, RuntimeError) as error:  # torch tells of a full device by a kind of the latter
            raise EngineError(
                f"the version could not be placed on the device ({_first_line(error)}); unload what is not "
                "needed, or serve it by a service of its own"
            ) from error

    async def free(self, slot: int) -> None:
        """Vacate a slot that nobody uses."""
        async with self._turn:
            await asyncio.to_thread(self._engine.vacate, slot)
        self._taken.discard(slot)

    def retire(self, tenancy: Tenancy) -> None:
        """Free a tenancy's slot as soon as the last request that holds on to it has ended."""
        task = asyncio.create_task(self._free_when_left(tenancy))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _free_when_left(self, tenancy: Tenancy) -> None:
        await tenancy.holders.gone()
        # A request that was given up may have left rows in a batch that still runs.
        await self._fence()
        await self.free(tenancy.slot)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
