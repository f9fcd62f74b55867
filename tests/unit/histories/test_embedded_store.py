"""Histories in one process: what was acknowledged is in the file, and an erased user is gone."""

from __future__ import annotations

import asyncio
import errno
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from feature_cache.background import Background
from service.errors import HistoriesUnavailableError, JournalError
from service.histories import embedded as module
from service.histories.embedded import EmbeddedOptions, EmbeddedStore
from service.histories.events import Event, Outcome, Retention, Shown, UserKey
from service.histories.file import EventRecord, HistoryFile
from service.histories.memory import Batch
from tests.unit.versions.faulty_os import KILLED, Fault, KilledError, Kind, faulty_os

NOW_S = 1_000_000.0
ANN, BOB = UserKey("toys", "ann"), UserKey("toys", "bob")
RETENTION = Retention(max_events=5, lifetime_ms=1_000_000, max_shown=3)


@asynccontextmanager
async def store_at(path: Path, max_users: int = 10, now_s: float = NOW_S) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(EmbeddedOptions(path, max_users, 100_000), RETENTION, lambda: now_s)
    store.load()
    try:
        async with Background().kept("histories", store.run, end=store.end):
            yield store
    finally:
        store.close()


def event(number: int, event_id: str = "") -> Event:
    return Event(f"item-{number}", round(NOW_S * 1000) - 1000 + number, "view", event_id)


async def test_what_is_kept_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "histories"
    async with store_at(path) as store:
        await store.add([(ANN, event(2)), (ANN, event(1)), (BOB, event(3))])
        await store.note_shown(ANN, ["item-1", "item-2"])
        await store.add([(ANN, event(2))])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with store_at(path) as store:
        assert await store.read(ANN, 10) == [event(1), event(2)]
        assert await store.read(ANN, 1) == [event(2)]
        assert await store.shown(ANN) == [Shown("item-1", 10**9), Shown("item-2", 10**9)]
        popular = await store.popular("toys")
        assert popular.keys() == {"item-1", "item-2", "item-3"}
        assert popular["item-3"] == pytest.approx(2 ** (-0.997 / 100))


async def test_events_are_sorted_in_away_from_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added, threads = Batch.add, set()

    def noted(batch: Batch, user: UserKey, event: Event) -> Outcome:
        threads.add(threading.current_thread())
        return added(batch, user, event)

    monkeypatch.setattr(Batch, "add", noted)
    async with store_at(tmp_path / "histories") as store:
        assert await store.add([(ANN, event(1)), (BOB, event(2))]) == ["stored", "stored"]
    assert threads
    assert threading.main_thread() not in threads


async def test_the_file_is_written_anew_when_it_has_grown_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 2_000)
    path = tmp_path / "histories"
    sizes = []
    async with store_at(path) as store:
        for number in range(120):
            await store.add([(ANN, event(number))])
            await store.note_shown(ANN, [f"item-{number}"])
            sizes.append(path.stat().st_size)
        before = await store.read(ANN, 10), await store.shown(ANN), await store.popular("toys")
    assert max(sizes) < 30_000
    assert any(later < earlier for earlier, later in pairwise(sizes))
    async with store_at(path) as store:
        assert (await store.read(ANN, 10), await store.shown(ANN)) == before[:2]
        assert await store.popular("toys") == pytest.approx(before[2])


async def test_users_who_were_not_heard_of_for_longest_are_dropped(tmp_path: Path) -> None:
    users = [UserKey("toys", f"user-{number}") for number in range(4)]
    async with store_at(tmp_path / "histories", max_users=3) as store:
        for user in (*users[:3], users[0], users[3]):
            await store.add([(user, event(len(await store.read(user, 10))))])
        assert [len(await store.read(user, 10)) for user in users] == [2, 0, 1, 1]
        assert await store.erase(users[1]) == 0
    text = (tmp_path / "histories").read_text()
    assert "user-1" not in text
    assert "user-2" in text


async def test_changes_that_wait_are_written_with_one_flush_and_in_order(tmp_path: Path) -> None:
    async with store_at(tmp_path / "histories") as store:
        with faulty_os() as counting:
            results = await asyncio.gather(
                *(store.add([(ANN, event(number))]) for number in range(3)),
                store.erase(ANN),
                *(store.add([(ANN, event(number))]) for number in (7, 7)),
            )
        assert results == [["stored"], ["stored"], ["stored"], 3, ["stored"], ["duplicate"]]
        assert await store.read(ANN, 10) == [event(7)]
    assert counting.names.count("write") == 3
    (line,) = [each for each in (tmp_path / "histories").read_text().splitlines() if "ann" in each]
    assert "item-1" not in line


async def test_a_full_disk_refuses_changes_and_takes_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "histories"
    async with store_at(path) as store:
        await store.add([(ANN, event(1))])
        with faulty_os(Fault(0, "refused", errno.ENOSPC, num_calls=1_000)):
            for change in (
                store.add([(ANN, event(2)), (BOB, event(2))]),
                store.note_shown(ANN, ["x"]),
                store.erase(ANN),
            ):
                with pytest.raises(HistoriesUnavailableError, match="nothing was changed") as refused:
                    await change
                assert refused.value.retry_after_s
            assert not store.is_up
            assert "No space left" in store.problems[0]
        assert await store.read(ANN, 10) == [event(1)]
        assert await store.read(BOB, 10) == []
        assert await store.add([(BOB, event(3))]) == ["stored"]
        assert store.problems == []
    async with store_at(path) as store:
        assert (await store.read(ANN, 10), await store.read(BOB, 10)) == ([event(1)], [event(3)])


KINDS: tuple[Kind, ...] = ("refused", "done but refused", "short", "torn", *KILLED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_rewriting", [False, True], ids=["append", "replace"])
def test_after_any_fault_the_file_has_all_of_a_change_or_none(
    tmp_path: Path, kind: Kind, *, is_rewriting: bool
) -> None:
    def records(*users: UserKey) -> list[EventRecord]:
        return [EventRecord.of(user, event(number), counted=True) for user in users for number in (1, 2)]

    for at in range(12):
        path = tmp_path / f"{at}"
        is_told_done = False
        with faulty_os() as double:
            file = HistoryFile(path)
            file.read()
            file.append(records(ANN))
            double.fault = Fault(len(double.names) + at, kind)
            with suppress(HistoriesUnavailableError, KilledError):
                if is_rewriting:
                    file.replace(iter(records(BOB)))
                else:
                    file.append(records(BOB))
                is_told_done = True
            with suppress(KilledError, OSError):
                file.close()
        with closing(HistoryFile(path)) as file:
            found = file.read()
        after = records(BOB) if is_rewriting else records(ANN, BOB)
        assert found in ([after] if is_told_done else [records(ANN), after]), (at, double.names)


def test_a_torn_line_is_removed_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "histories"
    path.write_bytes(b'[["e","toys","ann","item-1",5,"","",1]]\n[["e","toys"')
    file = HistoryFile(path)
    (record,) = file.read()
    assert isinstance(record, EventRecord)
    file.append([record])
    file.close()
    with closing(HistoryFile(path)) as again:
        assert again.read() == [record, record]
    path.write_bytes(b"nonsense\n")
    with pytest.raises(JournalError, match=r"line 1 of the file of histories histories cannot be read.*HISTORY_FILE"):
        HistoryFile(path).read()


async def test_two_processes_cannot_share_a_file(tmp_path: Path) -> None:
    async with store_at(tmp_path / "histories"):
        with pytest.raises(JournalError, match="different file for each process"):
            async with store_at(tmp_path / "histories"):
                pass


async def test_a_file_in_a_folder_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="VIP5_HISTORY_FILE"):
        async with store_at(tmp_path / "nowhere" / "histories"):
            pass
