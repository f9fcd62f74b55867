"""Writes the log from a thread of its own, so that whoever logs never waits for whoever reads.

Lines wait in a bounded queue. While nobody reads, the queue fills and further lines are dropped and counted.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

MAX_QUEUED_BYTES = 4 << 20
FLUSH_S = 2.0
"""Longest wait for lines to be written when the process ends."""
BYTES_PER_WRITE = 65_536
GATHER_S = 0.02
"""How long lines gather before they are written, so that not each of them wakes the thread, which takes the GIL."""


class LogWriter:
    """A queue of lines, and the thread that writes them to a file descriptor.

    The thread is a daemon: one that waits for a reader does not keep the process from ending.
    """

    def __init__(self, descriptor: int, line_of_dropped: Callable[[int], bytes], max_queued_bytes: int) -> None:
        """`line_of_dropped` makes the line that says how many are missing."""
        self._descriptor = descriptor
        self._line_of_dropped = line_of_dropped
        self._max_queued_bytes = max_queued_bytes
        self._lines: deque[bytes] = deque()
        self._num_queued_bytes = 0  # including the lines that are being written
        self._num_unreported = 0
        self._is_mid_line = False
        self._is_closed = False
        self._is_resting = False
        self._num_flushing = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self.on_drop: Callable[[int], None] = lambda _: None
        """Called with a number of dropped lines, on the thread that logs or the one that writes."""

    def start(self) -> None:
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line, or several at once, or drop them if the queue is full. Never waits for the reader.

        Lines end in a newline.
        """
        with self._changed:
            has_room = self._num_queued_bytes + len(line) <= self._max_queued_bytes and not self._is_closed
            if has_room:
                self._lines.append(line)
                self._num_queued_bytes += len(line)
                if self._is_resting or self._is_urgent():
                    self._changed.notify_all()
        if not has_room:
            self._note_dropped(line.count(b"\n"))

    @property
    def problems(self) -> list[str]:
        """Why the log is incomplete, until it is written again."""
        num_lines = self._num_unreported
        return [f"the log is not read or cannot be written; {num_lines} lines were dropped"] if num_lines else []

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all queued lines are written; whether they are."""
        with self._changed:
            self._num_flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._is_closed or not self._num_queued_bytes, timeout_s)
            finally:
                self._num_flushing -= 1

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what is queued, as far as that takes no longer than `timeout_s`, and accept no more."""
        self.flush(timeout_s)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_urgent(self) -> bool:
        """Whether queued lines are to be written at once."""
        return self._is_closed or self._num_flushing > 0 or self._num_queued_bytes >= BYTES_PER_WRITE

    # On the writer's thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_urgent, GATHER_S)
                if not self._lines:
                    if self._is_closed:
                        return
                    self._rest()
                    continue
                lines = self._take()
            is_written = self._write(lines)
            if is_written and self._num_unreported and not self._lines:
                self._report()
            with self._changed:
                self._num_queued_bytes -= sum(map(len, lines))
                if self._num_flushing:
                    self._changed.notify_all()

    def _rest(self) -> None:
        """Wait for a line, after an interval without any. While lines come, there is one wake-up for each interval."""
        self._is_resting = True
        self._changed.wait_for(lambda: self._lines or self._is_closed)
        self._is_resting = False

    def _take(self) -> list[bytes]:
        lines, num_bytes = [self._lines.popleft()], 0
        while self._lines and num_bytes + len(self._lines[0]) < BYTES_PER_WRITE:
            num_bytes += len(self._lines[0])
            lines.append(self._lines.popleft())
        return lines

    def _write(self, lines: list[bytes]) -> bool:
        """Write lines, or count those that could not be written whole as dropped; whether all were written."""
        content = (b"\n" if self._is_mid_line else b"") + b"".join(lines)
        num_written = 0
        while num_written < len(content):
            try:
                num_written += self._write_some(content[num_written:])
            except BlockingIOError:  # somebody made the pipe non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:  # nobody reads any more, or the disk is full: a later write may succeed
                if num_written:
                    self._is_mid_line = content[num_written - 1 : num_written] != b"\n"
                self._note_dropped(min(b"".join(lines).count(b"\n"), content.count(b"\n", num_written)))
                return False
        self._is_mid_line = False
        return True

    def _write_some(self, content: bytes) -> int:
        return os.write(self._descriptor, content)

    def _report(self) -> None:
        """Say how many lines are missing at this place of the log."""
        num_lines = self._num_unreported
        if self._write([self._line_of_dropped(num_lines)]):
            with self._changed:
                self._num_unreported -= num_lines

    def _note_dropped(self, num_lines: int) -> None:
        with self._changed:
            self._num_unreported += num_lines
        self.on_drop(num_lines)
