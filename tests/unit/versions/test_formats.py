"""Releases that follow each other read each other's journals, or say that they cannot."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path

import pytest

from service.errors import JournalError
from service.versions.file_journal import SNAPSHOT, FileJournal
from service.versions.formats import UnreadableError, decode_entry, decode_states, encode_entry, encode_states
from service.versions.journal import fold
from service.versions.state import ENTRIES, STATES, Canary, DomainState, Roles, States, apply_entry
from tests.unit.versions.entries import FIRST, SECOND, roles_entry, stock_entry
from tests.unit.versions.other_releases import FORMER_ENTRIES, FORMER_STATES, next_entry, next_states
from tests.unit.versions.test_state import ENTRIES_OF_TOYS


def test_the_release_before_is_read() -> None:
    assert [decode_entry(line) for line in FORMER_ENTRIES] == list(ENTRIES_OF_TOYS)
    states = decode_states(FORMER_STATES)
    assert states["toys"].keys == (("k", 1),)
    whole = reduce(apply_entry, ENTRIES_OF_TOYS, DomainState())
    assert states["toys"].changes == whole.changes
    assert states["toys"].features == whole.features


def test_the_release_before_reads_what_is_written() -> None:
    for entry in ENTRIES_OF_TOYS:
        written = encode_entry(entry)
        assert json.loads(written)["format"] == 1
        assert ENTRIES.validate_json(written) == entry  # as the release before reads
    states: States = reduce(fold, ENTRIES_OF_TOYS, {})
    assert json.loads(encode_states(states))["toys"]["format"] == 1
    assert STATES.validate_json(encode_states(states)) == states


def test_what_is_written_is_read_back() -> None:
    states: States = reduce(fold, ENTRIES_OF_TOYS, {})
    assert decode_states(encode_states(states)) == states
    assert decode_states(encode_states({})) == {}
    assert [decode_entry(encode_entry(entry)) for entry in ENTRIES_OF_TOYS] == list(ENTRIES_OF_TOYS)


def test_a_field_that_may_be_ignored_is() -> None:
    fields = json.loads(encode_entry(stock_entry(1, "a"))) | {"reason": "flood"}
    assert decode_entry(json.dumps(fields).encode()) == stock_entry(1, "a")
    assert decode_states(next_states(format=1))["toys"].revision == 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (next_entry(1), "its format is 2, and this release reads formats up to 1"),
        (encode_entry(stock_entry(1, "a")).replace(b'"format":1', b'"format":"x"'), "its format is 'x'"),
        (next_entry(1, format=1), "its kind, 'prices', is unknown"),
        (b'{"domain":"toys","revision":1}', "tag"),
        (b'{"domain":"toys","revision":1,"kind":"catalog"}', "changes"),
        (b"garbage", "it is not JSON"),
        (b"", "it is not JSON"),
        (b'{"domain":"\xff"}', "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode_entry(content)


@pytest.mark.parametrize("content", [next_states(), b"garbage", b"[]", b'{"toys":1}', b'{"toys":{"revision":"x"}}'])
def test_states_that_cannot_be_read_say_so(content: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_states(content)


async def test_a_journal_file_of_the_release_before_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(
        SNAPSHOT + FORMER_STATES + b"\n" + FORMER_ENTRIES[0].replace(b'"revision":1', b'"revision":7') + b"\n"
    )
    journal = FileJournal(path)
    assert (await journal.open())["toys"].revision == 7
    await journal.append(stock_entry(8, "z"))
    await journal.close()
    lines = path.read_bytes().splitlines()
    assert (await FileJournal(path).open())["toys"].changes.active == {"a": True, "b": False, "z": False}
    assert ENTRIES.validate_json(lines[-1]).revision == 8  # as the release before reads


async def test_a_journal_file_that_the_next_release_has_written_keeps_its_entries(tmp_path: Path) -> None:
    """A downgrade by one release, changes, and the upgrade again."""
    path = tmp_path / "journal.jsonl"
    lines = [encode_entry(stock_entry(1, "a")), next_entry(2), encode_entry(stock_entry(3, "b"))]
    path.write_bytes(b"\n".join(lines) + b"\n")
    journal = FileJournal(path, entries_between_snapshots=1)
    assert set((await journal.open())["toys"].changes.active) == {"a", "b"}
    assert journal.num_unread == 1
    assert "lines that cannot be read, whose changes are not served: 2;" in journal.problems[0]
    await journal.append(stock_entry(4, "c"))
    await journal.close()
    assert path.read_bytes().splitlines()[:3] == lines


async def test_a_snapshot_of_the_next_release_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(SNAPSHOT + next_states() + b"\n" + encode_entry(stock_entry(7, "z")) + b"\n")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"its format is 2, .*start a release that reads it"):
        await FileJournal(path).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", ["NaN", "Infinity", "1e999", "-0.1", "1.1"])
def test_an_entry_with_a_share_that_is_none_cannot_be_read(share: str) -> None:
    entry = roles_entry(1, Roles(FIRST, canary=Canary(SECOND, 0.25, "salt")))
    content = encode_entry(entry)
    assert decode_entry(content) == entry

    with pytest.raises(UnreadableError, match="share"):
        decode_entry(content.replace(b"0.25", share.encode()))
