"""What a long run has finished, in a folder beside its output, so that the next run goes on there after a kill.

Each part holds the answers to consecutive requests. It is written under another name, and its final name, which says
what it holds, makes it count; so a part is there as a whole or not at all. The output is made of all parts at the end
and takes its place in one step. Where a run is killed after that, the next one makes it of the same parts again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model.errors import ExistsError

RUN = "run.json"
LOCK = "lock"
_PART = re.compile(r"(\d{12})-(\d+)-(\d+)")
_OURS = re.compile(rf"({RUN}|{LOCK}|{_PART.pattern}\.\w+)(\.new)?")


@dataclass(frozen=True)
class Counts:
    """Numbers of answers and of problem documents."""

    num_answered: int = 0
    num_failed: int = 0

    @property
    def total(self) -> int:
        return self.num_answered + self.num_failed

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.num_answered + other.num_answered, self.num_failed + other.num_failed)


class PartFiles:
    """The parts of one output, of which one process writes at a time."""

    def __init__(self, out: Path, run: Mapping[str, object]) -> None:
        """`run` is what the answers depend on. Use `opened`."""
        self._out = out
        self._run = run
        self._folder = folder_of(out)
        self.done = Counts()
        """What is in parts."""

    @classmethod
    @contextmanager
    def opened(cls, out: Path, run: Mapping[str, object], *, restarts: bool = False) -> Iterator[PartFiles]:
        """The parts of an earlier run of the same, if there are any; with `restarts`, they are removed.

        Raises ExistsError if the folder is in use, has parts of another run, or holds something else. A run that fails
        before its first part leaves no folder.
        """
        parts = cls(out, run)
        parts._folder.mkdir(exist_ok=True)
        parts._check_folder()
        with (parts._folder / LOCK).open("w") as lock:
            parts._lock(lock.fileno())
            try:
                parts._begin(restarts=restarts)
                yield parts
            except BaseException:
                if not parts._parts():
                    parts._discard()
                raise

    def add(self, write: Callable[[Path], None], counts: Counts) -> None:
        """Keep the next part, which `write` writes to a path."""
        name = f"{self.done.total:012}-{counts.num_answered}-{counts.num_failed}.part"
        self._publish(self._folder / name, write)
        self.done += counts

    def finish(self, join: Callable[[Sequence[Path], Path], None]) -> None:
        """Make the output: `join` writes all parts to a path. Then remove the parts."""
        paths = [path for path, _ in self._parts()]
        self._publish(self._out, lambda path: join(paths, path))
        self._discard()

    def _discard(self) -> None:
        """Remove the folder and what is in it."""
        self._remove(RUN)  # what is left without it counts for nothing
        self._clear()
        self._remove(LOCK)
        self._folder.rmdir()

    def _check_folder(self) -> None:
        for each in self._folder.iterdir():
            if not _OURS.fullmatch(each.name):
                raise ExistsError(
                    f"{self._folder} is for unfinished answers, and holds {each.name!r}; move it, or use another --out"
                )

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExistsError(
                f"another process is writing {self._out}; wait for it, or choose another --out"
            ) from error

    def _begin(self, *, restarts: bool) -> None:
        run = self._folder / RUN
        found = _read(run)
        if found is not None and found != self._run and self._parts() and not restarts:
            differing = ", ".join(sorted(key for key in self._run if found.get(key) != self._run[key]))
            raise ExistsError(
                f"{self._folder} has answers of an interrupted run with other {differing or 'options'}; repeat that "
                "run to finish it, or give --restart to discard them"
            )
        if found != self._run or restarts:
            self._remove(RUN)
            self._clear()
            self._publish(run, self._write_run)
        for path in self._folder.glob("*.new"):
            path.unlink()
        self.done = sum((counts for _, counts in self._parts()), Counts())

    def _parts(self) -> list[tuple[Path, Counts]]:
        """All parts, in order."""
        found = []
        for path in sorted(self._folder.iterdir()):
            named = _PART.fullmatch(path.stem)
            if named is not None and path.suffix != ".new":
                found.append((path, Counts(int(named[2]), int(named[3]))))
        return found

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            if path.name != LOCK:
                path.unlink()

    def _write_run(self, path: Path) -> None:
        path.write_text(json.dumps(self._run), encoding="utf-8")

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).unlink()
        _sync(self._folder)

    def _publish(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a file so that it is there as a whole or, after a kill or a loss of power, not at all.

        What fails, on a full disk for instance, leaves nothing of it.
        """
        new = path.with_name(f"{path.name}.new")
        try:
            write(new)
            _sync(new)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def folder_of(out: Path) -> Path:
    """The folder of an output's parts."""
    return out.with_name(f"{out.name}.parts")


def _read(path: Path) -> dict[str, object] | None:
    """What a run was, or None; what cannot be read is of no run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
