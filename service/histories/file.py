"""The file of the embedded store: lines of JSON, each an event, items shown, or an item's popularity.

["e", domain, user, item, at_ms, kind, event_id, counted]   counted: whether its popularity has to be added, 0 or 1
["s", domain, user, at_ms, [items]]
["p", domain, item, weight]
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec

from service.errors import HistoriesUnavailableError, JournalError
from service.histories.events import Event, UserKey
from service.versions.append_file import AppendFile

logger = logging.getLogger(__name__)

SETTING = "VIP5_HISTORY_FILE"
MODE = 0o600
RETRY_S = 5
RECORDS_PER_LINE = 1_000
_ENCODER = msgspec.json.Encoder()


class EventRecord(msgspec.Struct, array_like=True, tag="e", frozen=True):
    """An event of a user."""

    domain: str
    user_id: str
    item_id: str
    at_ms: int
    kind: str
    event_id: str
    counted: int

    @classmethod
    def of(cls, user: UserKey, event: Event, *, counted: bool) -> EventRecord:
        return cls(*user, event.item_id, event.at_ms, event.kind, event.event_id, int(counted))

    @property
    def event(self) -> Event:
        return Event(self.item_id, self.at_ms, self.kind, self.event_id)


class ShownRecord(msgspec.Struct, array_like=True, tag="s", frozen=True):
    """Items shown to a user."""

    domain: str
    user_id: str
    at_ms: int
    item_ids: list[str]


class PopularRecord(msgspec.Struct, array_like=True, tag="p", frozen=True):
    """The popularity of an item."""

    domain: str
    item_id: str
    weight: float


Record: TypeAlias = EventRecord | ShownRecord | PopularRecord
_DECODER: msgspec.json.Decoder[list[Record]] = msgspec.json.Decoder(list[Record])


class HistoryFile:
    """Blocks, and is used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._file = AppendFile(path, is_written=True, setting=SETTING, mode=MODE)
        self._name = path.name
        self.num_bytes = 0
        self.problem = ""

    def read(self) -> list[Record]:
        """All records, without those of a last line that was torn by a crash. Locks the file. Raises JournalError."""
        content = self._file.read()
        length = content.rfind(b"\n") + 1
        lines = content[:length].split(b"\n")[:-1]
        records = [record for number, line in enumerate(lines, start=1) for record in self._records(number, line)]
        self._file.keep(length)
        self.num_bytes = length
        try:
            self._file.append(b"")
        except (OSError, JournalError) as error:
            raise JournalError(self._refusal(error)) from error
        return records

    def append(self, records: Sequence[Record]) -> None:
        """Add all or none. Raises HistoriesUnavailableError, and none was added then."""
        content = _line(records)
        try:
            self._file.append(content)
        except (OSError, JournalError) as error:
            raise self._unavailable(error) from error
        self.num_bytes += len(content)
        self.problem = ""

    def replace(self, records: Iterator[Record]) -> None:
        """Write these records in place of all others. Raises HistoriesUnavailableError; the former ones stand then."""
        content = b"".join(_line(each) for each in _batched(records))
        try:
            self._file.replace(content)
        except (OSError, JournalError) as error:
            raise self._unavailable(error) from error
        self.num_bytes = len(content)
        self.problem = ""

    def close(self) -> None:
        self._file.close()

    def _records(self, number: int, content: bytes) -> list[Record]:
        try:
            return _DECODER.decode(content)
        except msgspec.MsgspecError as error:
            raise JournalError(
                f"line {number} of the file of histories {self._name} cannot be read; restore the file from a copy, "
                f"or set {SETTING} to another file"
            ) from error

    def _unavailable(self, error: OSError | JournalError) -> HistoriesUnavailableError:
        self.problem = self._refusal(error)
        logger.error("history_file_failed", extra={"reason": self.problem})
        return HistoriesUnavailableError(f"{self.problem}; nothing was changed", retry_after_s=RETRY_S)

    def _refusal(self, error: OSError | JournalError) -> str:
        if isinstance(error, OSError):
            return f"the file of histories {self._name} cannot be written ({error.strerror}); check its disk"
        return (
            f"another program has locked, moved or changed the file of histories {self._name}; set {SETTING} to a "
            "different file for each process, and restart the service after a change of the file"
        )


def _line(records: Sequence[Record]) -> bytes:
    return _ENCODER.encode(records) + b"\n"


def _batched(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, RECORDS_PER_LINE)):
        yield batch
