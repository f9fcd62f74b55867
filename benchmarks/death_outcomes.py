"""What became of a service that was sent a signal, which promises did not hold, and the table of that."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

DRAINS = ("drain",)


@dataclass
class Outcome:
    """One case. What does not apply is None."""

    phase: str
    signals: str
    exit_status: int | None = None
    """None: the service went on."""
    ends_s: float | None = None
    """From the last signal to the end of all processes."""
    num_orphans: int = 0
    is_port_free: bool | None = None
    change: str | None = None
    """Of the change in progress: its answer, and whether a restart from the journal shows it."""
    num_lost_changes: int = 0
    num_asked: int = 0
    num_unanswered: int = 0
    num_on_killed_worker: int = 0
    broken: list[str] = field(default_factory=list)
    """Promises that did not hold."""


def judge(outcome: Outcome, wrong: Sequence[str]) -> None:
    if outcome.num_lost_changes:
        outcome.broken.append("an acknowledged change is lost")
    if wrong:
        outcome.broken.append(f"failed: {wrong[0]}")
    allowed = {"worker killed": outcome.num_on_killed_worker, "SIGTERM": 0}.get(outcome.signals, outcome.num_asked)
    if outcome.phase in DRAINS and outcome.signals == "SIGTERM":
        allowed = outcome.num_asked  # it is the second one
    if outcome.num_unanswered > allowed:
        outcome.broken.append(f"{outcome.num_unanswered} requests without an answer, {allowed} allowed")
    due = -signal.SIGKILL if outcome.signals == "engine killed" else 0
    if outcome.exit_status != due:
        outcome.broken.append(f"exit status {outcome.exit_status}")


def note_left(outcome: Outcome) -> None:
    if outcome.num_orphans:
        outcome.broken.append("processes outlive the service")
    if not outcome.is_port_free:
        outcome.broken.append("the port is not free")


def row_of(outcome: Outcome) -> str:
    requests = f"{outcome.num_unanswered} of {outcome.num_asked}" if outcome.num_asked else ""
    if outcome.num_on_killed_worker:
        requests += f" ({outcome.num_on_killed_worker} on the killed worker)"
    cells = (
        outcome.phase,
        outcome.signals,
        outcome.exit_status,
        outcome.ends_s,
        outcome.num_orphans,
        "yes" if outcome.is_port_free else "no",
        requests,
        outcome.change or "",
        outcome.num_lost_changes,
        "; ".join(outcome.broken) or "kept",
    )
    return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "| phase | signal | exit status | ends after s | orphans | port free | without an answer | the change | "
    "lost changes | promises |\n|---|---|---|---|---|---|---|---|---|---|"
)
