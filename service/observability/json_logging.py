"""Logs as JSON lines on standard output. They never contain histories, names or keys.

A server writes them from a thread (log_writer.py), and sends what Python would print on standard error to them too.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pythonjsonlogger.json import JsonFormatter

from service.observability import log_writer
from service.observability.log_writer import LogWriter
from service.observability.request_record import RequestRecord, fields_of
from service.observability.trace import RequestTrace

logger = logging.getLogger(__name__)

QUIET_ROUTES = (
    "/metrics",
    "/health/live",
    "/health/ready",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}/ready",
)


class QueueingHandler(logging.Handler):
    """Renders records where they are logged, before their arguments can change, and leaves writing to a thread."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.setFormatter(_formatter())
        self.writer = LogWriter(descriptor, self._line_of_dropped, log_writer.MAX_QUEUED_BYTES)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line_of(record)
        except Exception as error:  # noqa: BLE001  # logging's own handling would print on standard error, and wait for its reader
            reason = f"{type(error).__name__}: {error}"
            line = self._line_of(_record(logging.ERROR, "log_record_refused", reason=reason, template=str(record.msg)))
        self.writer.put(line)

    def flush(self) -> None:
        self.writer.flush()

    def _line_of(self, record: logging.LogRecord) -> bytes:
        if isinstance(record, RequestRecord):
            return record.json() + b"\n"
        return self.format(record).encode(errors="backslashreplace") + b"\n"

    def _line_of_dropped(self, num_lines: int) -> bytes:
        return self._line_of(_record(logging.WARNING, "log_lines_dropped", num_lines=num_lines))


def configure_logging(level: str, handler: logging.Handler | None = None) -> None:
    """Configure the root logger; called once per process. Without a handler, lines are written at once."""
    if handler is None:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _descriptor_of_stdout() -> int:
    if sys.stdout is None:  # closed, and its descriptor may be another file's by now
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return sys.stdout.fileno()
    except io.UnsupportedOperation:  # replaced by an object in memory
        return sys.__stdout__.fileno() if sys.__stdout__ is not None else os.open(os.devnull, os.O_WRONLY)


@contextmanager
def logging_in_background(level: str) -> Iterator[LogWriter]:
    """Log without waiting for the log's reader, in a process that serves; the last lines are written at the end."""
    root = logging.getLogger()
    before = root.level, threading.excepthook, sys.unraisablehook
    handler = QueueingHandler(_descriptor_of_stdout())
    configure_logging(level, handler)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_failed_thread
    sys.unraisablehook = _log_unraisable
    handler.writer.start()
    try:
        yield handler.writer
    finally:
        handler.writer.close()
        root.setLevel(before[0])
        threading.excepthook, sys.unraisablehook = before[1:]
        logging.captureWarnings(capture=False)


class _Formatter(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return record.json().decode() if isinstance(record, RequestRecord) else super().format(record)


def _formatter() -> logging.Formatter:
    return _Formatter(
        "{message}{levelname}{name}",
        style="{",
        rename_fields={"levelname": "level", "name": "logger", "message": "event"},
        timestamp="time",
    )


def _record(level: int, event: str, **fields: str | int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": __name__, "levelno": level, "levelname": logging.getLevelName(level), "msg": event, **fields}
    )


def _log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread else ""
    logger.error("thread_failed", exc_info=failed.exc_value, extra={"thread_name": name})


def _log_unraisable(failed: sys.UnraisableHookArgs) -> None:
    logger.error("error_ignored", exc_info=failed.exc_value, extra={"reason": failed.err_msg or ""})


def log_request(trace: RequestTrace, status: int, duration_s: float) -> None:
    """Log a request in one line; probes and scrapes at level debug."""
    level = logging.DEBUG if trace.route in QUIET_ROUTES else logging.INFO
    if logger.isEnabledFor(level):
        logger.handle(RequestRecord(logger.name, level, fields_of(trace, status, duration_s)))
