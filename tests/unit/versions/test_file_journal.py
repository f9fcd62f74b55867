"""The journal in a file outlives its process, whatever stopped that."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.errors import JournalError, RevisionConflictError
from service.versions.file_journal import SNAPSHOT, FileJournal
from service.versions.state import DomainState, States
from tests.unit.versions.entries import stock_entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


async def written(path: Path, number: int, entries_between_snapshots: int = 1_000) -> States:
    """The states of a journal with so many entries, as the next process reads them."""
    journal = FileJournal(path, entries_between_snapshots)
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


async def test_damage_in_the_middle_is_skipped_and_kept_and_reported_until_it_is_repaired(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await written(path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = [b"gar\rbage\n", b'{"domain":"toys","revision":3,"kind":"of a newer release"}\n']
    path.write_bytes(b"".join([lines[0], *damaged, lines[3]]))

    journal = FileJournal(path, entries_between_snapshots=1)
    assert set(toys(await journal.open()).changes.active) == {"item-1", "item-4"}
    problem = (
        "the journal journal.jsonl has lines that cannot be read, whose changes are not served: 2, 3; stop the "
        "service, and repair or remove them"
    )
    assert journal.problems == [problem]
    assert caplog.text.count("journal_damaged") == 1
    await journal.append(stock_entry(5, "another"))
    assert journal.problems == [problem]
    await journal.close()

    again = FileJournal(path)
    assert set(toys(await again.open()).changes.active) == {"item-1", "item-4", "another"}
    assert again.problems == [problem]
    assert all(line in path.read_bytes() for line in damaged)
    assert [each.name for each in path.parent.iterdir()] == [path.name]

    path.write_bytes(path.read_bytes().replace(b"".join(damaged), lines[1] + lines[2]))
    repaired = FileJournal(path)
    assert set(toys(await repaired.open()).changes.active) == {"item-1", "item-2", "item-3", "item-4", "another"}
    assert repaired.problems == []


async def test_a_change_after_a_damaged_last_line_is_kept_when_that_is_repaired(path: Path) -> None:
    await written(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage")  # not even a newline

    journal = FileJournal(path)
    assert toys(await journal.open()).revision == 1
    await journal.append(stock_entry(2, "another"))
    await journal.close()
    assert path.read_bytes().startswith(lines[0] + b"garbage\n")

    path.write_bytes(path.read_bytes().replace(b"garbage\n", lines[1]))
    state = toys(await read(path))
    assert (state.revision, set(state.changes.active)) == (3, {"item-1", "item-2", "another"})


@pytest.mark.parametrize(
    "content", [b"snapshot {garbage\n", b"snapshot {", b"snapsh", b"garbage\n", b"host: 127.0.0.1\n"]
)
async def test_a_first_line_that_may_be_a_snapshot_is_not_passed_over(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    journal = FileJournal(path)
    with pytest.raises(JournalError, match=rf"line 1 of the journal {path} is damaged or not a journal's.* restore"):
        await journal.open()
    assert path.read_bytes() == content


async def test_many_damaged_lines_are_counted(path: Path) -> None:
    await written(path, 1)
    path.write_bytes(path.read_bytes() + b"garbage\n" * 7 + b"\n")
    journal = FileJournal(path)
    await journal.open()
    assert ": 2, 3, 4, 5, 6 and 2 more; " in journal.problems[0]


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


async def test_another_process_cannot_write_the_file_after_it_was_replaced(path: Path) -> None:
    await written(path, 1)
    first, second = FileJournal(path, entries_between_snapshots=1), FileJournal(path)
    await asyncio.gather(first.open(), second.open())
    await first.append(stock_entry(2, "a"))
    assert path.read_bytes().startswith(SNAPSHOT)
    with pytest.raises(JournalError, match="another process has locked the journal"):
        await second.append(stock_entry(2, "b"))
    await first.append(stock_entry(3, "c"))
    await first.close()
    with pytest.raises(JournalError, match="another process has written the journal"):
        await second.append(stock_entry(2, "b"))


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


async def test_changes_of_many_domains_at_once_are_all_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(path, entries_between_snapshots=3)
    await journal.open()
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(0.001))
    domains = [f"domain-{number}" for number in range(8)]
    for revision in range(1, 5):
        await asyncio.gather(*(journal.append(stock_entry(revision, "a", domain=domain)) for domain in domains))
    await journal.close()
    assert {name: state.revision for name, state in (await read(path)).items()} == dict.fromkeys(domains, 4)


async def test_a_folder_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    for is_written in (True, False):
        journal = FileJournal(tmp_path / "none" / "journal", is_written=is_written)
        with pytest.raises(JournalError, match=f"{tmp_path}/none does not exist; create it, or set VIP5_JOURNAL"):
            await journal.open()


async def test_a_folder_in_place_of_the_file_is_refused_at_the_start(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match=f"the journal {path} is a folder, not a file; set VIP5_JOURNAL to a file"):
        FileJournal(path).check()
    with pytest.raises(JournalError, match="/dev/null is a device or pipe, not a file"):
        FileJournal(Path("/dev/null")).check()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.EPERM], ids=errno.errorcode.get)
async def test_a_file_that_cannot_be_written_is_refused_at_the_start(
    path: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(path, 1)
    really_open = os.open

    def denied(file: str | Path, flags: int, *args: int) -> int:
        if Path(file) == path and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(error, os.strerror(error))
        return really_open(file, flags, *args)

    monkeypatch.setattr(os, "open", denied)
    told = rf"the journal {path} cannot be read and written \({os.strerror(error)}\).* set VIP5_JOURNAL to another file"
    with pytest.raises(JournalError, match=told):
        await FileJournal(path).open()
    reader = FileJournal(path, is_written=False)
    assert toys(await reader.open()).revision == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: becomes another user")
def test_what_belongs_to_another_user_is_refused_at_the_start() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "journal").touch(mode=0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(JournalError, match=rf"{folder}/journal cannot be read and written \(Permission denied"):
                FileJournal(folder / "journal").check()
            with pytest.raises(JournalError, match=f"the folder {folder} is read-only for this user; set VIP5_JOURNAL"):
                FileJournal(folder / "new").check()
        finally:
            os.seteuid(0)


async def test_a_journal_that_is_moved_away_takes_no_more_changes_until_it_is_back(path: Path) -> None:
    journal = FileJournal(path)
    await journal.open()
    await journal.append(stock_entry(1, "a"))
    path.rename(path.with_name("moved"))
    with pytest.raises(JournalError, match="another program has moved or changed the journal"):
        await journal.append(stock_entry(2, "b"))
    assert "another program has moved or changed the journal" in journal.problems[0]
    path.with_name("moved").rename(path)
    await journal.append(stock_entry(2, "c"))
    assert journal.problems == []
    await journal.close()
    assert set(toys(await read(path)).changes.active) == {"a", "c"}


async def test_a_symbolic_link_stays_one(path: Path) -> None:
    real = path.with_name("real")
    path.symlink_to(real)
    assert toys(await written(path, 5, entries_between_snapshots=2)).revision == 5
    assert path.is_symlink()
    assert toys(await read(real)).revision == 5


async def test_a_journal_that_cannot_be_shortened_says_so(path: Path) -> None:
    path.with_name(".journal.jsonl.new").mkdir()
    journal = FileJournal(path, entries_between_snapshots=2)
    await journal.open()
    for revision in (1, 2, 3):
        await journal.append(stock_entry(revision, str(revision)))
    (problem,) = journal.problems
    assert "the journal journal.jsonl cannot be shortened" in problem
    path.with_name(".journal.jsonl.new").rmdir()
    await journal.append(stock_entry(4, "4"))
    assert journal.problems == []
    await journal.close()
    assert path.read_bytes().startswith(SNAPSHOT)
    assert toys(await read(path)).revision == 4
