"""The log's writer: nobody who logs waits, nothing is lost without being counted, and lines stay whole."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from service.observability.json_logging import QueueingHandler
from service.observability.log_writer import LogWriter

PIPE_BYTES = 4096
QUEUE_BYTES = 2000
LINE = b"x" * 99 + b"\n"
NUM_QUEUED = QUEUE_BYTES // len(LINE)


def dropped_line(num_lines: int) -> bytes:
    return b"dropped %d\n" % num_lines


@dataclass
class Pipe:
    """A small pipe whose reader reads when the test says so."""

    reading: int
    writing: int
    dropped: list[int] = field(default_factory=list)

    def writer(self) -> LogWriter:
        writer = LogWriter(self.writing, dropped_line, QUEUE_BYTES)
        writer.on_drop = self.dropped.append
        writer.start()
        return writer

    def stalled_writer(self) -> LogWriter:
        """A writer whose queue is full of lines, since the pipe is full."""
        assert os.write(self.writing, b"#" * PIPE_BYTES) == PIPE_BYTES
        writer = self.writer()
        for _ in range(NUM_QUEUED):
            writer.put(LINE)
        assert not self.dropped
        return writer

    def read(self, num_bytes: int) -> bytes:
        content = b""
        while len(content) < num_bytes:
            content += os.read(self.reading, num_bytes - len(content))
        return content


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield Pipe(reading, writing)
    os.close(reading)
    os.close(writing)


def test_a_reader_that_stalls_costs_lines_and_no_time_and_is_told_how_many(pipe: Pipe) -> None:
    writer = pipe.stalled_writer()
    for _ in range(10):
        writer.put(LINE)
    stalled = writer.problems
    report = dropped_line(10)
    pipe.read(PIPE_BYTES)
    read = pipe.read(NUM_QUEUED * len(LINE) + len(report))

    assert sum(pipe.dropped) == 10
    assert stalled == ["the log is not read or cannot be written; 10 lines were dropped"]
    assert read == LINE * NUM_QUEUED + report
    assert writer.flush()
    assert writer.problems == []
    writer.put(b"next\n")
    assert pipe.read(5) == b"next\n"
    writer.close()


def test_the_end_does_not_wait_for_a_reader_that_stalls(pipe: Pipe) -> None:
    writer = pipe.stalled_writer()

    writer.close(timeout_s=0)
    writer.put(LINE)

    assert sum(pipe.dropped) == 1
    assert pipe.read(PIPE_BYTES + NUM_QUEUED * len(LINE)).endswith(LINE)  # lets the thread end
    writer._thread.join(10)
    assert not writer._thread.is_alive()


def test_the_end_waits_for_lines_that_are_still_queued(pipe: Pipe) -> None:
    writer = pipe.writer()
    for number in range(15):
        writer.put(b"%d\n" % number)
    writer.close()

    assert os.read(pipe.reading, PIPE_BYTES).split() == [b"%d" % number for number in range(15)]
    writer._thread.join(10)
    assert not writer._thread.is_alive()


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = pipe.stalled_writer()

    assert pipe.read(PIPE_BYTES + NUM_QUEUED * len(LINE)).endswith(LINE * NUM_QUEUED)
    writer.close()


@pytest.mark.parametrize("num_written", [0, 40, 100, 140])
def test_a_write_that_fails_counts_its_lines_and_the_next_begins_on_a_line_of_its_own(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, num_written: int
) -> None:
    """As on a disk that is full after `num_written` bytes, and then is not."""
    room = [0, num_written] if num_written else [0]

    def write_some(content: bytes) -> int:
        num_bytes = room.pop() if room else len(content)
        if not num_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(pipe.writing, content[:num_bytes])

    writer = LogWriter(pipe.writing, dropped_line, QUEUE_BYTES)
    writer.on_drop = pipe.dropped.append
    monkeypatch.setattr(writer, "_write_some", write_some)
    for _ in range(3):
        writer.put(LINE)
    writer.start()
    assert writer.flush(10)
    writer.put(b"next\n")
    assert writer.flush(10)
    writer.close()

    lines = os.read(pipe.reading, PIPE_BYTES).split(b"\n")
    num_whole = num_written // 100
    assert sum(pipe.dropped) == 3 - num_whole
    assert lines.count(LINE[:-1]) == num_whole
    assert lines[-3:] == [b"next", b"dropped %d" % (3 - num_whole), b""]


def test_a_reader_that_is_gone_is_no_reason_to_spin_or_to_fail(pipe: Pipe) -> None:
    os.close(pipe.reading)
    writer = pipe.writer()
    for _ in range(3):
        writer.put(LINE)
    assert writer.flush(10)
    writer.close()
    writer._thread.join(10)

    assert sum(pipe.dropped) == 3
    pipe.reading = os.open(os.devnull, os.O_RDONLY)


def test_arguments_are_rendered_when_they_are_logged_and_a_bad_record_is_told(pipe: Pipe) -> None:
    handler = QueueingHandler(pipe.writing)
    logger = logging.Logger("test")  # noqa: LOG001  # for this test alone
    logger.addHandler(handler)
    stages = {"plan": 1}
    logger.warning("request %s", stages, extra={"stages_ms": stages})
    logger.warning("request %d", "not a number")
    stages["plan"] = 2
    handler.writer.start()
    handler.writer.close()

    first, second = map(json.loads, os.read(pipe.reading, PIPE_BYTES).splitlines())
    assert (first["event"], first["stages_ms"]) == ("request {'plan': 1}", {"plan": 1})
    assert (second["event"], second["template"]) == ("log_record_refused", "request %d")
    assert second["reason"].startswith("TypeError")
