"""The journal in a file outlives its process, whatever stopped that."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from service.errors import JournalError, RevisionConflictError
from service.versions.file_journal import SNAPSHOT, FileJournal
from service.versions.state import DomainState, States
from tests.unit.versions.entries import stock_entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


async def written(path: Path, number: int, **options: int) -> States:
    """The states of a journal with so many entries, as the next process reads them."""
    journal = FileJournal(path, **options)
    await journal.open()
    for revision in range(1, number + 1):
        await journal.append(stock_entry(revision, f"item-{revision}"))
    await journal.close()
    return await read(path)


async def read(path: Path) -> States:
    return await FileJournal(path).open()


def toys(states: States) -> DomainState:
    return states.get("toys", DomainState())


async def test_nothing_is_written_before_there_is_something(path: Path) -> None:
    assert await written(path, 0) == {}
    assert not path.exists()


async def test_what_was_appended_is_read_by_the_next_process(path: Path) -> None:
    state = toys(await written(path, 3))
    assert (state.revision, set(state.changes.active)) == (3, {"item-1", "item-2", "item-3"})


async def test_an_entry_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.stat().st_size))
    await written(path, 1)
    assert path.stat().st_size in synced


@pytest.mark.parametrize("num_cut", [1, 2, 30])
async def test_a_torn_last_line_is_left_out_and_written_over(
    path: Path, num_cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    await written(path, 3)
    os.truncate(path, path.stat().st_size - num_cut)

    journal = FileJournal(path)
    assert toys(await journal.open()).revision == 2
    assert "journal_torn" in caplog.text
    assert journal.problems == []
    await journal.append(stock_entry(3, "another"))
    await journal.close()
    assert set(toys(await read(path)).changes.active) == {"item-1", "item-2", "another"}


async def test_damage_in_the_middle_keeps_what_was_before_and_is_set_aside(path: Path) -> None:
    await written(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])

    journal = FileJournal(path)
    assert toys(await journal.open()).revision == 1
    assert journal.problems == ["line 2 of the journal journal.jsonl is damaged; changes from there on are not served"]
    await journal.append(stock_entry(2, "another"))
    assert journal.problems == []
    await journal.close()
    assert set(toys(await read(path)).changes.active) == {"item-1", "another"}
    assert b"garbage" in path.with_name("journal.jsonl.damaged").read_bytes()


async def test_a_snapshot_takes_the_place_of_many_entries(path: Path) -> None:
    await written(path, 2)
    whole = toys(await written(path.with_name("other"), 7, entries_between_snapshots=3))
    assert whole.revision == 7
    lines = path.with_name("other").read_bytes().splitlines()
    assert [line.startswith(SNAPSHOT) for line in lines] == [True, False]
    assert len(path.read_bytes().splitlines()) == 2


async def test_another_process_cannot_write_the_same_file(path: Path) -> None:
    first, second = FileJournal(path), FileJournal(path)
    await asyncio.gather(first.open(), second.open())
    await first.append(stock_entry(1, "a"))
    with pytest.raises(JournalError, match="another process has locked the journal"):
        await second.append(stock_entry(1, "b"))
    await first.close()
    with pytest.raises(JournalError, match="another process has written the journal"):
        await second.append(stock_entry(1, "b"))
    assert set(toys(await read(path)).changes.active) == {"a"}


async def test_an_entry_that_comes_late_is_refused(path: Path) -> None:
    await written(path, 2)
    journal = FileJournal(path)
    await journal.open()
    with pytest.raises(RevisionConflictError):
        await journal.append(stock_entry(2, "late"))


async def test_a_disk_that_refuses_leaves_the_journal_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await written(path, 1)
    journal = FileJournal(path)
    await journal.open()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            JournalError, match=r"cannot be written \(No space left on device\), so nothing was changed"
        ):
            await journal.append(stock_entry(2, "b"))
    assert toys(await read(path)).revision == 1
    await journal.append(stock_entry(2, "c"))
    await journal.close()
    assert set(toys(await read(path)).changes.active) == {"item-1", "c"}


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "none" / "journal")
    await journal.open()
    with pytest.raises(JournalError, match="point VIP5_JOURNAL to a writable path"):
        await journal.append(stock_entry(1, "a"))
