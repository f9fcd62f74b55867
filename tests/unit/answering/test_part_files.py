"""A run that is killed at any step, and repeated, gives the answers of one that was not."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from model.errors import ExistsError
from service.answering import part_files
from service.answering.answer_files import format_of
from service.answering.part_files import Counts, PartFiles, folder_of

ANSWERS = [json.dumps({"request_id": f"line-{number}", "items": []}) for number in range(1, 8)]
RUN = {"requests": "abc"}
STEPS = ("open", "fsync", "unlink", "rmdir", "mkdir", "rename", "replace")


def run(out: Path, **options: bool) -> Counts:
    """Answer in parts of three."""
    form = format_of(out)
    with PartFiles.opened(out, RUN, **options) as parts:
        while answers := ANSWERS[parts.done.total : parts.done.total + 3]:
            parts.add(lambda path, some=answers: form.write(some, path), Counts(len(answers)))  # type: ignore[misc]  # bound early
        parts.finish(form.join)
        return parts.done


def in_a_process(work: Callable[[], object]) -> int:
    """The signal that ended a process that did this, or 0."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Whether a process that did this was killed, right before the step of this number on the file system."""

    def counted() -> None:
        left = step
        for name in STEPS:
            original = getattr(os, name)

            def counting(*arguments: object, _original: Callable[..., object] = original, **named: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return _original(*arguments, **named)

            setattr(os, name, counting)
        work()

    return in_a_process(counted) == signal.SIGKILL


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out", "out.new", "out.2026-11-29"])
def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(tmp_path: Path, name: str) -> None:
    expected = tmp_path / "expected" / name
    expected.parent.mkdir()
    assert run(expected) == Counts(7)
    step = 0
    while True:
        out = tmp_path / str(step) / name
        out.parent.mkdir()
        out.write_text("an older output", encoding="utf-8")
        was_killed = killed_at(step, lambda out=out: run(out))  # type: ignore[misc]
        if was_killed:
            assert out.read_bytes() in (b"an older output", expected.read_bytes()), "the output is whole at any time"
            assert run(out) == Counts(7)
        assert out.read_bytes() == expected.read_bytes()
        assert [path.name for path in out.parent.iterdir()] == [name]
        if not was_killed:
            break
        step += 1
    assert step > 20


def test_a_second_kill_is_survived_too(tmp_path: Path) -> None:
    expected, out = tmp_path / "expected.jsonl", tmp_path / "out.jsonl"
    run(expected)
    for step in (9, 5, 12, 3, 20):
        killed_at(step, lambda: run(out))
    run(out)

    assert out.read_bytes() == expected.read_bytes()


def interrupt(out: Path) -> Path:
    """A run that ended after its first part; the folder of its parts."""
    with PartFiles.opened(out, RUN) as parts:
        parts.add(lambda path: format_of(out).write(ANSWERS[:3], path), Counts(2, 1))
    return folder_of(out)


def test_counts_go_on_where_they_ended(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    interrupt(out)

    assert run(out) == Counts(6, 1)


def test_a_run_of_something_else_needs_leave_to_begin(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = interrupt(out)
    (folder / part_files.RUN).write_text('{"requests": "other"}', encoding="utf-8")

    with pytest.raises(ExistsError, match=r"an interrupted run with other requests; .*--restart"):
        run(out)
    assert run(out, restarts=True) == Counts(7)


def test_a_run_that_fails_before_its_first_part_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("an older output", encoding="utf-8")

    def write_half(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), PartFiles.opened(out, RUN) as parts:
        parts.add(write_half, Counts(3))
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert out.read_text(encoding="utf-8") == "an older output"

    folder = interrupt(out)
    with pytest.raises(OSError, match="No space left"), PartFiles.opened(out, RUN) as parts:
        parts.add(write_half, Counts(3))
    with pytest.raises(OSError, match="No space left"), PartFiles.opened(out, RUN) as parts:
        parts.finish(lambda _, path: write_half(path))
    assert not list(tmp_path.rglob("*.new"))
    assert len(list(folder.glob("*.part"))) == 1, "what was finished stays"


def test_a_run_that_was_killed_before_its_first_part_keeps_no_other_from_beginning(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    def begin() -> None:
        with PartFiles.opened(out, {"requests": "other"}):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(begin) == signal.SIGKILL
    assert (folder_of(out) / part_files.RUN).is_file()
    assert run(out) == Counts(7)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    folder = interrupt(out)
    (folder / "diary.txt").touch()

    for restarts in (False, True):
        with pytest.raises(ExistsError, match=r"holds 'diary\.txt'"):
            run(out, restarts=restarts)
    assert len(list(folder.iterdir())) == 4


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with PartFiles.opened(out, RUN), pytest.raises(ExistsError, match="another process is writing"):
        run(out)
