"""The output of worker processes becomes lines of the engine's log: whole, and with the worker's number.

Workers write log lines to standard output, as a single process does. Whatever else a process prints, on standard error
above all, becomes a log line `worker_output`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable

logger = logging.getLogger(__name__)

CHUNK_BYTES = 65_536
MAX_LINE_BYTES = 1 << 20
MAX_READS_AT_END = 64
"""A process that outlives the worker may go on writing; a pipe usually holds one chunk."""


class WorkerLog:
    """Two pipes, which a worker gets as `stdout` and `stderr`, and what the engine does with their content.

    Call `start` once the worker is started and `close` once it is reaped. Reading never waits, and at most a line of
    `MAX_LINE_BYTES` is held for each pipe: the log's writer drops and counts lines that nobody reads.
    """

    def __init__(self, number: int, write: Callable[[bytes], None], on_drop: Callable[[int], None]) -> None:
        """`write` gets log lines with their newlines, those that were read together at once.

        `on_drop` gets the number of lines that were too long.
        """
        self._number = number
        self._write = write
        self._on_drop = on_drop
        self._head = b'{"worker":%d,' % number
        self._logs, self._prints = _Pipe("stdout"), _Pipe("stderr")
        self.stdout, self.stderr = self._logs.writing, self._prints.writing

    def start(self) -> None:
        """Read from now on, on the running event loop. Only the worker holds the other ends of the pipes then."""
        loop = asyncio.get_running_loop()
        for pipe in (self._logs, self._prints):
            pipe.close_writing()
            loop.add_reader(pipe.reading, self._read, pipe)

    def close(self) -> None:
        """Log what is left, and close the pipes; also if the worker could not be started."""
        for pipe in (self._logs, self._prints):
            pipe.close_writing()
            for _ in range(MAX_READS_AT_END):
                if pipe.is_closed or not self._read(pipe):
                    break
            self._end(pipe)

    def _read(self, pipe: _Pipe) -> bool:
        """Log the lines that end in the next chunk; whether there was one."""
        try:
            chunk = os.read(pipe.reading, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._end(pipe)
            return False
        self._log(pipe, pipe.lines.feed(chunk))
        return True

    def _end(self, pipe: _Pipe) -> None:
        if pipe.is_closed:
            return
        pipe.close()
        rest = pipe.lines.finish() or b""
        if pipe is self._logs and rest.startswith(b"{") and not _is_document(rest):  # even if it ends in "}"
            rest += b" (cut off)"
        self._log(pipe, [rest])

    def _log(self, pipe: _Pipe, lines: list[bytes]) -> None:
        texts: list[bytes] = []  # what was printed together, such as a traceback, becomes one line
        entries: list[bytes] = []
        for line in lines:
            if pipe is self._logs and line.startswith(b'{"') and line.endswith(b"}"):
                if texts:
                    self._log_text(pipe, texts)
                    texts = []
                entries += (self._head, line[1:], b"\n")
            else:
                self._flush(entries)
                texts.append(line)
        self._flush(entries)
        self._log_text(pipe, texts)
        num_too_long, pipe.lines.num_too_long = pipe.lines.num_too_long, 0
        if num_too_long:
            self._on_drop(num_too_long)
            fields = {"worker": self._number, "num_lines": num_too_long, "max_bytes": MAX_LINE_BYTES}
            logger.warning("worker_lines_too_long", extra=fields)

    def _flush(self, entries: list[bytes]) -> None:
        if entries:
            self._write(b"".join(entries))
            entries.clear()

    def _log_text(self, pipe: _Pipe, lines: list[bytes]) -> None:
        text = b"\n".join(lines).decode(errors="backslashreplace").strip("\n")
        if text:
            logger.warning("worker_output", extra={"worker": self._number, "stream": pipe.name, "text": text})


class _Pipe:
    """A pipe that this process reads, and the lines in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.lines = Lines(MAX_LINE_BYTES)
        self.is_closed = False
        self._is_writable = True

    def close_writing(self) -> None:
        if self._is_writable:
            os.close(self.writing)
            self._is_writable = False

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.reading)
        os.close(self.reading)
        self.is_closed = True


class Lines:
    """Makes whole lines of chunks. Lines of more than `max_bytes` are left out and counted."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._num_bytes = 0
        self.num_too_long = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, without their newlines."""
        first, *others = chunk.split(b"\n")
        self._hold(first)
        if not others:
            return []
        *whole, last = others
        line = self.finish()
        self._hold(last)
        return whole if line is None else [line, *whole]

    def finish(self) -> bytes | None:
        """The line that was begun, as if it ended here; none if it is too long."""
        line = b"".join(self._parts) if self._num_bytes <= self._max_bytes else None
        self.num_too_long += line is None
        self._parts, self._num_bytes = [], 0
        return line

    def _hold(self, part: bytes) -> None:
        self._num_bytes += len(part)
        if self._num_bytes <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts.clear()


def _is_document(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
