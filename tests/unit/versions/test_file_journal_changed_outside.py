"""What other programs do to the file of a journal shows at once, and one command writes it anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from service.errors import JournalError, OperationConflictError
from service.versions import file_journal
from service.versions.file_journal import FileJournal
from tests.unit.versions.entries import stock_entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "journal.jsonl"


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_journal, "WATCH_S", 0.0)


async def opened(path: Path, number: int) -> FileJournal:
    """A journal with so many entries."""
    path.parent.mkdir(exist_ok=True)
    journal = FileJournal(path)
    await journal.open()
    for revision in range(1, number + 1):
        await journal.append(stock_entry(revision, f"item-{revision}"))
    return journal


async def noticed(journal: FileJournal) -> list[str]:
    """The problems after the next look at a file that has changed."""
    async with aclosing(journal.changes()) as changes:  # type: ignore[type-var]  # a generator
        await anext(changes)
    return journal.problems


async def inactive(path: Path) -> set[str]:
    journal = FileJournal(path)
    states = await journal.open()
    assert journal.problems == []
    return set(states["toys"].changes.active)


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    path.rename(path.parent.with_name("moved"))
    path.parent.rmdir()


def cut(path: Path) -> None:
    os.truncate(path, 10)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


CHANGES = (remove, cut, empty, extend, replace)


@pytest.mark.parametrize("change", [*CHANGES, remove_folder])
@pytest.mark.parametrize("has_written", [True, False])
async def test_a_change_by_another_program_is_reported_before_anybody_changes_anything(
    path: Path, change: Callable[[Path], None], *, has_written: bool, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await opened(path, 2)
    if not has_written:
        await journal.close()
        journal = await opened(path, 0)
    change(path)
    problems = await noticed(journal)
    again = await noticed(journal)

    assert len(problems) == 1
    assert "/admin/journal/resolve" in problems[0]
    assert ("a restart would not" in problems[0]) == (not path.exists())
    assert journal.is_broken
    assert again == problems
    assert caplog.text.count("journal_changed_outside") == 1
    await journal.close()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_written", [True, False])
async def test_what_is_served_is_written_into_a_new_file_when_an_operator_says_so(
    path: Path, change: Callable[[Path], None], *, has_written: bool
) -> None:
    journal = await opened(path, 2)
    if not has_written:
        await journal.close()
        journal = await opened(path, 0)
    change(path)
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(OperationConflictError, match="restart the service to serve what the journal"):
        await journal.resolve("stored")
    await journal.resolve("served")

    assert journal.problems == []
    assert not journal.is_broken
    assert await inactive(path) == {"item-1", "item-2"}
    await journal.append(stock_entry(3, "item-3"))
    await journal.close()
    assert await inactive(path) == {"item-1", "item-2", "item-3"}
    kept = [each.read_bytes() for each in path.parent.glob("journal.jsonl.before-*")]
    assert kept == ([] if left is None else [left])


async def test_a_file_that_another_process_writes_is_not_taken_from_it(path: Path) -> None:
    second, first = await opened(path, 0), await opened(path, 0)
    await first.append(stock_entry(1, "item-1"))
    assert "another process has written the journal" in (await noticed(second))[0]
    with pytest.raises(JournalError, match="another process has locked the journal"):
        await second.resolve("served")
    await first.append(stock_entry(2, "item-2"))
    await first.close()

    assert await inactive(path) == {"item-1", "item-2"}


async def test_a_full_disk_leaves_what_is_there_when_a_new_file_is_due(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await opened(path, 2)
    path.rename(path.with_name("moved"))

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(JournalError, match="No space left on device"):
            await journal.resolve("served")
    assert [each.name for each in path.parent.iterdir()] == ["moved"]
    path.with_name("moved").rename(path)
    await journal.append(stock_entry(3, "item-3"))

    assert journal.problems == []
    await journal.close()
    assert await inactive(path) == {"item-1", "item-2", "item-3"}


async def test_a_reported_change_ends_when_the_file_is_put_back(path: Path) -> None:
    journal = await opened(path, 2)
    path.rename(path.with_name("moved"))
    assert await noticed(journal)
    path.with_name("moved").rename(path)
    with pytest.raises(OperationConflictError):
        await journal.resolve("served")

    assert journal.problems == []
    await journal.close()
