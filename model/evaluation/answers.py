"""The journal of answers: one JSON line per answer, from which an interrupted evaluation resumes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from model.errors import DatasetError

FORMAT_VERSION = 1


class RankedAnswer(msgspec.Struct, frozen=True, tag="ranked"):
    """The items recommended to a user, best first. `seconds` is the answer's share of its batch's time."""

    template: str
    user: int
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    exact_prefix: int
    num_candidates: int
    degraded: tuple[str, ...]
    seconds: float


class ExactAnswer(msgspec.Struct, frozen=True, tag="exact"):
    """The true top of the catalog, by certified search or by scoring every identifier."""

    template: str
    user: int
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    is_certified: bool
    num_beams: int
    seconds: float


class TextAnswer(msgspec.Struct, frozen=True, tag="text"):
    """A generated explanation; `star_rating` is the model's prediction, where the template asks for one."""

    template: str
    review: int
    text: str
    star_rating: float | None
    finish_reason: str
    degraded: tuple[str, ...]
    seconds: float


Answer: TypeAlias = RankedAnswer | ExactAnswer | TextAnswer


class Header(msgspec.Struct, frozen=True):
    """What a journal's answers belong to; only an evaluation of exactly the same may resume from them."""

    bundle: str
    domain: str
    dataset: str
    dataset_fingerprint: str
    options: dict[str, object]
    format: int = FORMAT_VERSION


class _Entry(msgspec.Struct, frozen=True):
    """`is_last` marks the last answer of a batch; incomplete batches are answered again."""

    answer: Answer
    is_last: bool


class Journal:
    """Answers on disk, or only in memory without a path."""

    def __init__(self, path: Path | None, header: Header) -> None:
        """Read an existing file. Raises DatasetError if it has the answers of another evaluation."""
        self._path = path
        self.answers: list[Answer] = []
        if path is None:
            return
        if path.exists() and not _has_no_answers(path):
            with path.open("r+b") as file:
                file.truncate(self._read(file, header))
        else:
            begun = path.with_name(f"{path.name}.new")
            begun.write_bytes(msgspec.json.encode(header) + b"\n")
            begun.replace(path)

    def append(self, batch: Sequence[Answer]) -> None:
        """Store the answers of a batch."""
        self.answers += batch
        if self._path is None:
            return
        entries = [_Entry(answer, is_last=place == len(batch)) for place, answer in enumerate(batch, start=1)]
        with self._path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, file: BinaryIO, header: Header) -> int:
        """Read the complete batches; returns the offset at which the last of them ends."""
        self._check_header(file.readline(), header)
        decoder = msgspec.json.Decoder(_Entry)
        batch: list[Answer] = []
        end = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DatasetError(
                    f"{self._path}: an answer is malformed ({error}); delete the file to start over"
                ) from error
            batch.append(entry.answer)
            if entry.is_last:
                self.answers += batch
                batch = []
                end = file.tell()
        return end

    def _check_header(self, line: bytes, header: Header) -> None:
        try:
            found = msgspec.json.decode(line, type=Header)
        except msgspec.MsgspecError as error:
            raise DatasetError(f"{self._path} is not a journal of answers ({error}); choose another file") from error
        wanted = msgspec.json.decode(msgspec.json.encode(header), type=Header)
        before, now = _flat(found), _flat(wanted)
        for name in sorted({*before, *now}):
            if before.get(name) != now.get(name):
                raise DatasetError(
                    f"{self._path} has the answers of another evaluation: its {name} is {before.get(name)}, now it is "
                    f"{now.get(name)}; delete the file to start over, or write the result elsewhere"
                )


def _has_no_answers(path: Path) -> bool:
    """Whether an evaluation ended before its first answer, of which nothing is lost if another begins here."""
    with path.open("rb") as file:
        header, answer = file.readline(), file.readline()
    try:
        msgspec.json.decode(header, type=Header)
    except msgspec.MsgspecError:
        return False  # another file, which is not overwritten
    return not answer


def _flat(header: Header) -> dict[str, object]:
    fields: dict[str, object] = msgspec.structs.asdict(header)
    return {**fields, **header.options, "options": None}


def read_answers(path: Path) -> list[Answer]:
    """All answers of a finished evaluation. Raises DatasetError for any other file."""
    try:
        _, *lines = path.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=_Entry).answer for line in lines]
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DatasetError(f"{path} is not a journal of answers: {error}; choose another file") from error
