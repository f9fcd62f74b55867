"""Whether the process can still do its work: it cannot with a lane that has failed, or that is stuck in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


class Watched(Protocol):
    """A lane, as it is watched."""

    @property
    def name(self) -> str: ...

    @property
    def busy_s(self) -> float:
        """Seconds since the engine was called, if it has not come back; else 0."""
        ...


@dataclass(frozen=True)
class Crash:
    """A lane that has failed itself, and not by one of its batches."""

    lane: str
    error: BaseException


class Liveness:
    """Reasons for ending the process and starting it anew."""

    def __init__(self, stall_s: float) -> None:
        """A lane is stuck where the engine has not come back for so long."""
        self._stall_s = stall_s
        self._lanes: tuple[Watched, ...] = ()
        self.crash: Crash | None = None
        self.on_crash: Callable[[], None] = lambda: None
        """Called on the thread of the lane that has failed."""

    def watch(self, lanes: Iterable[Watched]) -> None:
        self._lanes = tuple(lanes)

    def note_crash(self, lane: str, error: BaseException) -> None:
        """The first failure is kept."""
        self.crash = self.crash or Crash(lane, error)
        self.on_crash()

    def reasons(self) -> list[str]:
        """Why the process should be ended; empty while it works."""
        crashed = [f"the {self.crash.lane} lane has failed: {self.crash.error!r}"] if self.crash else []
        stuck = [(lane.name, lane.busy_s) for lane in self._lanes]
        return crashed + [
            f"the {name} lane has been in one batch for {busy_s:.0f} s, the limit is {self._stall_s:g} s"
            for name, busy_s in stuck
            if busy_s > self._stall_s
        ]
