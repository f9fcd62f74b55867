"""How far a replica has come: what it says it serves is in all its answers, and it is behind until all is applied."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from service.versions.domain_version import DomainVersion
from service.versions.progress import Progress


@dataclass
class FakeJournal:
    is_shared: bool = True
    epoch: int = 0
    idle_at: float = 0.0
    is_broken: bool = False
    lacking: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=lambda: ["the journal is broken"])


def version_with_rankings(number: int) -> DomainVersion:
    return cast("DomainVersion", SimpleNamespace(rankings=SimpleNamespace(value=number)))


def progress_of(journal: FakeJournal) -> Progress:
    return Progress(journal)  # type: ignore[arg-type]


def test_a_revision_is_served_when_no_ranking_uses_what_was_before() -> None:
    progress = progress_of(FakeJournal())
    busy, idle = version_with_rankings(1), version_with_rankings(0)
    progress.note_published("toys", 0, 1, [idle])
    assert progress.revisions() == {"toys": 1}
    progress.note_published("toys", 0, 2, [busy])
    progress.note_published("toys", 0, 3, [idle])
    assert (progress.revisions(), progress.is_settled) == ({"toys": 1}, False)
    busy.rankings.value = 0  # type: ignore[misc]
    assert (progress.revisions(), progress.is_settled) == ({"toys": 3}, True)


def test_revisions_of_a_history_that_was_given_up_are_not_served() -> None:
    journal = FakeJournal()
    progress = progress_of(journal)
    progress.note_published("toys", 0, 7, [])
    journal.epoch = 1
    assert progress.revisions() == {}
    progress.note_published("toys", 1, 2, [])
    assert progress.revisions() == {"toys": 2}


def test_a_replica_is_behind_until_all_that_was_read_is_applied() -> None:
    journal = FakeJournal()
    progress = progress_of(journal)
    began_at = progress.applied_at
    progress.begin()
    progress.begin()
    journal.idle_at = began_at + 1  # nothing new came, and the former is not applied
    assert (progress.applied_at, progress.is_applying) == (began_at, True)
    progress.end(began_at + 0.5)
    assert progress.applied_at == began_at
    progress.end(began_at + 0.2)
    assert (progress.applied_at, progress.is_applying) == (began_at + 1, False)


def test_what_cannot_be_served_is_no_progress_and_what_was_read_is() -> None:
    journal = FakeJournal(idle_at=time.monotonic())
    progress = progress_of(journal)
    before_s = progress.behind_s
    progress.faults["toys"] = "no bundle"
    journal.idle_at += 1_000
    assert progress.applied_at == journal.idle_at
    assert progress.behind_s >= before_s, "it does not count as followed"
    progress.faults.clear()
    assert progress.behind_s < 0, "and does, as soon as nothing is in the way"


def test_a_journal_that_nobody_else_writes_is_never_behind() -> None:
    assert progress_of(FakeJournal(is_shared=False)).behind_s == 0.0
