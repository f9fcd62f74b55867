"""Liveness: the process is not live if a lane has failed or is stuck in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class WatchedLane(Protocol):
    """The state of a lane that liveness depends on."""

    @property
    def name(self) -> str: ...

    @property
    def busy_s(self) -> float:
        """Seconds since the start of the engine call in progress; 0 if there is none."""
        ...


@dataclass(frozen=True)
class Crash:
    """The failure of a lane outside of its batches."""

    lane: str
    error: BaseException


class Liveness:
    """Collects reasons to restart the process."""

    def __init__(self, stall_s: float) -> None:
        """A lane is stuck if one engine call takes longer than `stall_s`."""
        self._stall_s = stall_s
        self._lanes: tuple[WatchedLane, ...] = ()
        self.crash: Crash | None = None
        self.on_crash: Callable[[], None] = lambda: None
        """Called on the failed lane's thread."""

    def watch(self, lanes: Iterable[WatchedLane]) -> None:
        self._lanes = tuple(lanes)

    def note_crash(self, lane: str, error: BaseException) -> None:
        """Record a failure; only the first is stored."""
        self.crash = self.crash or Crash(lane, error)
        self.on_crash()

    def reasons(self) -> list[str]:
        """Why the process should be restarted; empty while it is live."""
        crashed = [f"the {self.crash.lane} lane has failed: {self.crash.error!r}"] if self.crash else []
        stuck = [(lane.name, lane.busy_s) for lane in self._lanes]
        return crashed + [
            f"the {name} lane has been running one batch for {busy_s:.0f} s; the limit is {self._stall_s:g} s"
            for name, busy_s in stuck
            if busy_s > self._stall_s
        ]
