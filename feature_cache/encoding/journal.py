"""Progress of a run on disk, so that a killed run can be resumed.

A work folder holds `run.json` (what identifies the run), `rows.f16` (embeddings in the order in which batches were
finished) and `journal.jsonl` (a line for each batch, written after its rows). A line whose rows do not match their
checksum is ignored. One run at a time may use a folder.
"""

# N pictures in all, n rows of a batch, D width of an embedding

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import filelock
import numpy as np
from numpy.typing import NDArray

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.sources import Fault

_PIECE_ROWS = 4096


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Embeddings of the pictures of a batch that can be read."""

    number: int
    places: tuple[int, ...]  # positions of the rows among all pictures
    features: NDArray[np.float16]  # [n, D]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class _Entry:
    """One line of the journal."""

    number: int
    start: int  # row of the first embedding
    places: list[int]
    crc32: int
    faults: list[Fault]


class Journal:
    """The work folder of one run; a context manager, which keeps other runs out of the folder."""

    def __init__(self, folder: Path, run: Mapping[str, str | int], dim: int, *, restart: bool = False) -> None:
        """`run` identifies the run; the folder of another run is refused, or emptied if `restart` is set.

        Raises EncodingError.
        """
        self._folder = folder
        self._dim = dim
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / "lock")
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise EncodingError(f"another run is using {folder}; wait for it, or choose another --out") from error
        try:
            self._claim(run, restart=restart)
            self._entries = self._read()
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the batches that need not be encoded again."""
        return frozenset(self._entries)

    @property
    def faults(self) -> list[Fault]:
        """Faults of all batches, in the order of the batches."""
        return [fault for number in sorted(self._entries) for fault in self._entries[number].faults]

    def add(self, batch: EncodedBatch) -> None:
        content = np.ascontiguousarray(batch.features, dtype="<f2").tobytes()
        entry = _Entry(batch.number, self._end, list(batch.places), zlib.crc32(content), list(batch.faults))
        self._rows.write(content)
        self._rows.flush()
        self._lines.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._lines.flush()
        self._entries[batch.number] = entry
        self._end += len(batch.places)

    def places(self) -> NDArray[np.int64]:
        """Positions of all pictures that have an embedding, in ascending order."""
        return np.flatnonzero(self._row_of_place() >= 0)

    def pieces(self) -> Iterator[NDArray[np.float16]]:
        """All embeddings in the order of `places`, in pieces [n, D]."""
        row_of_place = self._row_of_place()
        rows = row_of_place[row_of_place >= 0]
        with self._rows_path.open("rb") as file:
            for start in range(0, len(rows), _PIECE_ROWS):
                yield self._read_rows(file, rows[start : start + _PIECE_ROWS])

    def remove(self) -> None:
        """Delete the folder."""
        self._close()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def _rows_path(self) -> Path:
        return self._folder / "rows.f16"

    def _claim(self, run: Mapping[str, str | int], *, restart: bool) -> None:
        path = self._folder / "run.json"
        if restart:
            for name in ("run.json", "journal.jsonl", "rows.f16"):
                (self._folder / name).unlink(missing_ok=True)
        if not path.exists() or not self._has_entries():
            path.write_text(json.dumps(dict(run)), encoding="utf-8")
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        changed = [name for name, value in run.items() if before.get(name) != value]
        if changed:
            raise EncodingError(
                f"{self._folder} holds an unfinished run with another {' and '.join(changed)}; finish it with its own"
                " options, or discard it with --restart"
            )

    def _has_entries(self) -> bool:
        """Whether a batch was finished; until then, nothing is lost if another run begins here."""
        path = self._folder / "journal.jsonl"
        return path.exists() and any(_parse(line) is not None for line in path.read_bytes().splitlines())

    def _read(self) -> dict[int, _Entry]:
        """Entries whose rows match their checksum."""
        path = self._folder / "journal.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        entries = {}
        row_bytes = 2 * self._dim
        with self._append("rows.f16") as rows:
            pass
        with self._rows_path.open("rb") as rows:
            for line in lines:
                entry = _parse(line)
                if entry is None:
                    continue
                rows.seek(entry.start * row_bytes)
                if zlib.crc32(rows.read(len(entry.places) * row_bytes)) == entry.crc32:
                    entries[entry.number] = entry
        return entries

    def _open(self) -> None:
        self._end = max((entry.start + len(entry.places) for entry in self._entries.values()), default=0)
        self._rows = self._append("rows.f16")
        self._rows.truncate(self._end * 2 * self._dim)
        self._lines = self._append("journal.jsonl")
        self._lines.write(b"\n")  # ends a truncated line
        self._lines.flush()

    def _append(self, name: str) -> BinaryIO:
        return (self._folder / name).open("ab")

    def _close(self) -> None:
        self._rows.close()
        self._lines.close()
        self._lock.release()

    def _read_rows(self, file: BinaryIO, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read, not mapped: a mapped file that somebody truncates would end the process. Raises EncodingError."""
        size = 2 * self._dim
        content = b"".join(os.pread(file.fileno(), size, row * size) for row in rows.tolist())
        if len(content) < len(rows) * size:
            raise EncodingError(f"{self._rows_path} became shorter while it was read; encode again with --restart")
        return np.frombuffer(content, dtype="<f2").reshape(len(rows), self._dim)

    def _row_of_place(self) -> NDArray[np.int64]:
        """[N], -1 for pictures without an embedding; N ends with the last picture that has one."""
        last = max((entry.places[-1] for entry in self._entries.values() if entry.places), default=-1)
        row_of_place = np.full(last + 1, -1, dtype=np.int64)
        for entry in self._entries.values():
            row_of_place[entry.places] = np.arange(entry.start, entry.start + len(entry.places))
        return row_of_place


def _parse(line: bytes) -> _Entry | None:
    """None for a truncated line, or one of another form."""
    try:
        fields = json.loads(line)
        return _Entry(**fields | {"faults": [Fault(**fault) for fault in fields["faults"]]})
    except (ValueError, TypeError, KeyError):
        return None
