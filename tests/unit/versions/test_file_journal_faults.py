"""Whatever system call fails, and wherever the process is killed, the journal holds the acknowledged changes."""

from __future__ import annotations

import asyncio
import errno
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import JournalError
from service.versions.file_journal import FileJournal
from tests.unit.versions.entries import stock_entry
from tests.unit.versions.faulty_os import KILLED, Fault, FaultyOs, KilledError, Kind, faulty_os

NUM_APPENDS = 6
SINGLE: tuple[Kind, ...] = ("refused", "done but refused", "short", "torn", *KILLED)
UNCERTAIN = "may come back at a restart"


class Trial:
    """A journal whose process meets a fault, and what it told its client."""

    def __init__(self, path: Path, double: FaultyOs, entries_between_snapshots: int) -> None:
        self.path = path
        self.double = double
        self.journal = FileJournal(path, entries_between_snapshots)
        self.acknowledged: set[str] = set()
        self.uncertain: set[str] = set()
        self.outcomes: Counter[str] = Counter()

    async def start(self, beginning: str) -> None:
        if beginning != "no file":
            with self.double.off():
                await self._before(is_torn=beginning == "a torn line")
        await self.journal.open()

    async def _before(self, *, is_torn: bool) -> None:
        before = FileJournal(self.path)
        await before.open()
        for number in (1, 2):
            await before.append(stock_entry(number, f"before-{number}"))
        await before.close()
        self.acknowledged = {"before-1", "before-2"}
        if is_torn:
            self.path.write_bytes(self.path.read_bytes() + b'{"domain":"toys","revi')

    async def append(self, item_id: str) -> str:
        """What the client is told: `acknowledged`, `refused`, `uncertain` or `killed`."""
        outcome = await self._outcome(item_id)
        self.outcomes[outcome] += 1
        return outcome

    async def _outcome(self, item_id: str) -> str:
        try:
            await self.journal.append(stock_entry(len(self.acknowledged) + 1, item_id))
        except KilledError:
            self.uncertain.add(item_id)
            return "killed"
        except JournalError as error:
            assert self.journal.problems
            if UNCERTAIN in str(error):
                self.uncertain.add(item_id)
                return "uncertain"
            return "refused"
        self.acknowledged.add(item_id)
        self.uncertain.clear()
        return "acknowledged"

    async def check(self) -> set[str]:
        """A process that starts now reads what was acknowledged, and nothing that was refused."""
        with self.double.off():
            journal = FileJournal(self.path, is_written=False)
            states = await journal.open()
        found = set(states["toys"].changes.active) if states else set()
        assert self.acknowledged <= found <= self.acknowledged | self.uncertain, (self.double.fault, self.double.names)
        assert journal.problems == []
        return found


async def run(path: Path, fault: Fault | None, beginning: str, entries_between_snapshots: int) -> Trial:
    with faulty_os(fault) as double:
        trial = Trial(path, double, entries_between_snapshots)
        try:
            await trial.start(beginning)
        except JournalError:
            trial.outcomes["not started"] += 1
        except KilledError:
            trial.outcomes["killed"] += 1
        else:
            for number in range(NUM_APPENDS):
                if await trial.append(f"item-{number}") == "killed":
                    break
                await trial.check()
            double.fault = None
            if not trial.outcomes["killed"]:
                assert await trial.append("the disk works again") == "acknowledged", fault
                assert trial.journal.problems == []
        if not trial.outcomes["killed"]:
            await trial.journal.close()
    found = await trial.check()
    next_process = FileJournal(path, entries_between_snapshots)
    await next_process.open()
    await next_process.append(stock_entry(len(found) + 1, "after a restart"))
    await next_process.close()
    trial.acknowledged = {*found, "after a restart"}
    trial.uncertain.clear()
    await trial.check()
    return trial


@pytest.mark.parametrize("entries_between_snapshots", [1_000, 2], ids=["without compaction", "with compaction"])
@pytest.mark.parametrize("beginning", ["no file", "entries", "a torn line"])
@pytest.mark.parametrize("kind", SINGLE)
async def test_any_single_call_may_fail(
    tmp_path: Path, beginning: str, entries_between_snapshots: int, kind: Kind
) -> None:
    calls = await calls_of(tmp_path / "none", beginning, entries_between_snapshots)
    for at, name in enumerate(calls):
        fault = Fault(at, kind)
        if fault.is_possible(name):
            await run(new_path(tmp_path), fault, beginning, entries_between_snapshots)


@pytest.mark.parametrize("entries_between_snapshots", [1_000, 2], ids=["without compaction", "with compaction"])
@pytest.mark.parametrize(
    ("error", "num_calls"),
    [(errno.ENOSPC, 1), (errno.EINTR, 1), (errno.ENOSPC, 2), (errno.EIO, 3), (errno.EIO, 5), (errno.EIO, 1_000)],
)
async def test_several_calls_in_a_row_may_fail(
    tmp_path: Path, entries_between_snapshots: int, error: int, num_calls: int
) -> None:
    calls = await calls_of(tmp_path / "none", "entries", entries_between_snapshots)
    kinds: tuple[Kind, ...] = ("refused", "torn")
    for at, name in enumerate(calls):
        for kind in kinds:
            fault = Fault(at, kind, error, num_calls)
            if fault.is_possible(name):
                await run(new_path(tmp_path), fault, "entries", entries_between_snapshots)


async def calls_of(path: Path, beginning: str, entries_between_snapshots: int) -> list[str]:
    """The system calls of a run without a fault."""
    trial = await run(new_path(path), None, beginning, entries_between_snapshots)
    assert set(trial.outcomes) == {"acknowledged"}
    assert ("rename" in trial.double.names) == (entries_between_snapshots < NUM_APPENDS)
    return trial.double.names


def new_path(folder: Path) -> Path:
    """A journal in an empty folder."""
    shutil.rmtree(folder / "journal", ignore_errors=True)
    (folder / "journal").mkdir(parents=True)
    return folder / "journal" / "journal.jsonl"


async def test_a_failed_write_that_cannot_be_removed_stops_all_changes_until_it_can(tmp_path: Path) -> None:
    with faulty_os() as double:
        trial = Trial(tmp_path / "journal.jsonl", double, 1_000)
        await trial.start("entries")
        assert await trial.append("good") == "acknowledged"
        double.fault = Fault(len(double.names) + 4, "refused", num_calls=1_000)  # from the fsync on
        assert await trial.append("unlucky") == "uncertain"
        assert trial.acknowledged | {"unlucky"} == await trial.check()
        double.fault = Fault(len(double.names) + 3, "refused")  # the truncation
        assert await trial.append("next") == "refused"
        (problem,) = trial.journal.problems
        assert problem.startswith("the rest of a failed write to the journal journal.jsonl cannot be removed")
        double.fault = None
        assert await trial.append("last") == "acknowledged"
        assert trial.journal.problems == []
        assert trial.acknowledged == await trial.check()
        await trial.journal.close()


async def test_a_new_name_is_on_the_disk_before_the_next_change_is(tmp_path: Path) -> None:
    with faulty_os() as double:
        trial = Trial(tmp_path / "journal.jsonl", double, 2)
        await trial.start("no file")
        await trial.append("first")
        compaction = ["stat", "fstat", "open", "flock", "fstat", "fchmod", "write", "fsync", "rename", "close"]
        append = ["fstat", "stat", "fstat", "write", "fsync"]
        at = len(double.names) + len(append) + len(compaction) + 1
        double.fault = Fault(at, "refused", num_calls=1_000)  # from the opening of the folder on
        assert await trial.append("second") == "acknowledged"
        assert double.names[at - 1 : at + 1] == ["close", "open"]
        assert "cannot be shortened" in trial.journal.problems[0]
        double.fault = Fault(len(double.names) + 3, "refused")
        assert await trial.append("third") == "refused"
        double.fault, num_calls = None, len(double.names)
        assert await trial.append("fourth") == "acknowledged"
        names = double.names[num_calls:]
        assert names.index("fsync") < names.index("write")
        await trial.check()
        await trial.journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 KiB."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("mount not found: install it from the system's packages")
    folder = tmp_path / "small"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not allowed here: run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("entries_between_snapshots", [1_000, 5], ids=["without compaction", "with compaction"])
async def test_a_disk_that_is_full(small_disk: Path, entries_between_snapshots: int) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4096))
    trial = Trial(small_disk / "journal.jsonl", FaultyOs(), entries_between_snapshots)
    await trial.start("no file")
    for number in range(60):
        await trial.append(f"item-{number}-{'x' * (37 * number % 101)}")
        await trial.check()
    assert trial.outcomes["refused"]
    assert trial.outcomes["acknowledged"]
    assert not trial.outcomes["uncertain"]
    filler.unlink()
    assert await trial.append("there is space again") == "acknowledged"
    await trial.check()
    await trial.journal.close()
    await trial.check()


async def test_a_read_only_file_system_is_refused_at_the_start_unless_nothing_is_changed(small_disk: Path) -> None:
    trial = Trial(small_disk / "journal.jsonl", FaultyOs(), 1_000)
    await trial.start("entries")
    await trial.journal.close()
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match=rf"{trial.path} cannot be read and written \(Read-only file system\)"):
        FileJournal(trial.path).check()
    with pytest.raises(JournalError, match=f"the folder {small_disk} is read-only"):
        FileJournal(small_disk / "new").check()
    assert (await FileJournal(trial.path, is_written=False).open())["toys"].revision == 2
    await trial.check()
