"""What workers print becomes whole lines of the engine's log that name the worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability import worker_log
from service.observability.worker_log import Lines, WorkerLog

MANY = """
import json, os, sys
number, sizes = int(sys.argv[1]), [0, 100, 70_000, 300_000]
for count in range(60):
    line = json.dumps({"event": "request", "count": count, "from": number, "text": "x" * sizes[count % 4]}) + "\\n"
    for start in range(0, len(line), 50_000):
        os.write(1, line[start : start + 50_000].encode())
"""

LOGS = """
import logging, warnings
from service.observability.json_logging import logging_in_background
with logging_in_background("INFO"):
    logging.getLogger("shop").info("hello", extra={"text": "x" * 100_000})
    warnings.warn("old")
"""

DIES_MID_LINE = """
import os, signal
os.write(1, b'{"event": "whole"}\\n{"event": "cut", "stages_ms": {"plan": 1}')
os.kill(os.getpid(), signal.SIGKILL)
"""

CRASHES = """
import faulthandler, json, sys
faulthandler.enable()
print(json.dumps({"event": "before"}), flush=True)
faulthandler._sigsegv()
"""

PRINTS = """
import os
os.write(1, b'{"event": "first"}\\nplain\\ntext\\n\\n{"event": "second"}\\n{no json}\\n')
os.write(2, b'{"event": "on stderr"}\\n\\xff\\n')
"""


@dataclass
class EngineLog:
    """The engine's log, as WorkerLog and `logging` fill it."""

    lines: list[bytes] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def documents(self) -> list[dict[str, Any]]:
        assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in self.lines)
        return [json.loads(line) for line in self.lines]

    def _write(self, lines: bytes) -> None:
        assert lines.endswith(b"\n")
        self.lines += [line + b"\n" for line in lines[:-1].split(b"\n")]

    @contextmanager
    def of_worker(self, number: int) -> Iterator[WorkerLog]:
        log = WorkerLog(number, self._write, self.dropped.append)
        try:
            yield log
        finally:
            log.close()


@pytest.fixture
def log() -> EngineLog:
    return EngineLog()


def printed(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, str]]:
    records = [vars(record) for record in caplog.records if record.message == "worker_output"]
    return [(record["worker"], record["stream"], record["text"]) for record in records]


@contextmanager
def started(code: str, log: WorkerLog, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", code, str(log._number)]
    with subprocess.Popen(command, stdin=stdin, stdout=log.stdout, stderr=log.stderr) as process:
        log.start()
        try:
            yield process
        finally:
            process.kill()


async def run(code: str, number: int, engine: EngineLog) -> int:
    """Run a worker to its end; its exit status."""
    with engine.of_worker(number) as log, started(code, log) as process:
        return await asyncio.to_thread(process.wait)


async def test_long_lines_of_several_workers_stay_whole_and_name_them(log: EngineLog) -> None:
    statuses = await asyncio.gather(*(run(MANY, number, log) for number in (1, 2, 3)))

    found = log.documents()
    assert statuses == [0, 0, 0]
    for number in (1, 2, 3):
        own = [document for document in found if document["worker"] == number]
        assert {document["from"] for document in own} == {number}
        assert [document["count"] for document in own] == list(range(60))
    assert not log.dropped


async def test_a_workers_own_log_is_handed_on(log: EngineLog) -> None:
    await run(LOGS, 7, log)

    event, warning = log.documents()
    assert (event["worker"], event["event"], event["logger"], len(event["text"])) == (7, "hello", "shop", 100_000)
    assert (warning["worker"], warning["logger"]) == (7, "py.warnings")


async def test_what_a_killed_worker_leaves_is_a_line_of_its_own(
    log: EngineLog, caplog: pytest.LogCaptureFixture
) -> None:
    await run(DIES_MID_LINE, 4, log)

    assert log.documents() == [{"worker": 4, "event": "whole"}]
    assert printed(caplog) == [(4, "stdout", '{"event": "cut", "stages_ms": {"plan": 1} (cut off)')]


async def test_the_traceback_of_a_crash_is_logged(log: EngineLog, caplog: pytest.LogCaptureFixture) -> None:
    status = await run(CRASHES, 2, log)

    text = "\n".join(text for worker, stream, text in printed(caplog) if (worker, stream) == (2, "stderr"))
    assert status < 0
    assert "Fatal Python error: Segmentation fault" in text
    assert "in <module>" in text
    assert log.documents() == [{"worker": 2, "event": "before"}]


async def test_text_is_wrapped_in_its_place_and_standard_error_is_always_text(
    log: EngineLog, caplog: pytest.LogCaptureFixture
) -> None:
    await run(PRINTS, 1, log)

    assert [document["event"] for document in log.documents()] == ["first", "second"]
    assert printed(caplog) == [
        (1, "stdout", "plain\ntext"),
        (1, "stdout", "{no json}"),
        (1, "stderr", '{"event": "on stderr"}\n\\xff'),
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_whole_last_line_needs_no_newline(log: EngineLog) -> None:
    await run('import os; os.write(1, b\'{"event": "last"}\')', 1, log)

    assert log.documents() == [{"worker": 1, "event": "last"}]


async def test_a_line_that_is_too_long_is_dropped_counted_and_told(
    log: EngineLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_log, "MAX_LINE_BYTES", 100_000)
    code = (
        "import sys; sys.stdout.write('{\"a\": \"' + 'x' * 200_000 + '\"}\\n{\"event\": \"next\"}\\n' + 'y' * 100_001)"
    )
    await run(code, 1, log)

    assert log.documents() == [{"worker": 1, "event": "next"}]
    assert log.dropped == [1, 1]
    assert [record.message for record in caplog.records] == ["worker_lines_too_long"] * 2


async def test_a_line_is_handed_on_while_the_worker_runs(log: EngineLog) -> None:
    waits = 'import os, sys; os.write(1, b\'{"event": "up"}\\n\'); sys.stdin.read()'
    with log.of_worker(1) as worker, started(waits, worker, stdin=subprocess.PIPE):
        async with asyncio.timeout(60):
            while not log.lines:  # noqa: ASYNC110  # the loop reads meanwhile
                await asyncio.sleep(0.001)

    assert log.documents() == [{"worker": 1, "event": "up"}]


async def test_a_process_that_outlives_the_worker_does_not_keep_the_pipes_open(log: EngineLog) -> None:
    lives_on = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])"
    reading, writing = os.pipe()
    before = set(Path("/proc/self/fd").iterdir())
    with log.of_worker(1) as worker, started(lives_on, worker, stdin=reading) as process:
        await asyncio.to_thread(process.wait)

    assert set(Path("/proc/self/fd").iterdir()) == before
    for descriptor in (reading, writing):  # ends the process that lives on
        os.close(descriptor)


async def test_the_pipes_of_a_worker_that_could_not_be_started_are_closed(log: EngineLog) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with log.of_worker(1):
        pass

    assert set(Path("/proc/self/fd").iterdir()) == before


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.data())
def test_lines_are_the_same_however_they_are_cut_into_chunks(lines: list[bytes], data: st.DataObject) -> None:
    content = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    chunks = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    reader = Lines(max_bytes=8)
    found = [line for chunk in chunks if chunk for line in reader.feed(chunk)]

    short: Callable[[bytes], bool] = lambda line: len(line) <= 8  # noqa: E731
    assert [line for line in found if short(line)] == [line for line in lines if short(line)]
    assert len(found) + reader.num_too_long == len(lines)
