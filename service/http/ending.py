"""Ends the process in the stated time, also while a thread is at work that cannot be interrupted."""

from __future__ import annotations

import logging
import os
import threading

from service.observability.log_writer import LogWriter

logger = logging.getLogger(__name__)

MARGIN_S = 5.0
"""What closing may take after running requests were waited for."""


class Ending:
    """Ends this process with status 0 at a time that is stated once the process was asked to end.

    Python joins all threads before it ends, among them one that reads a bundle for minutes.
    """

    def __init__(self, log: LogWriter) -> None:
        self._log = log

    def at_once(self) -> None:
        """End without closing anything: for a process that has not begun to serve."""
        logger.info("ended")
        self._log.flush()
        os._exit(0)

    def within(self, timeout_s: float) -> None:
        """End after this time unless the process has ended by then."""
        timer = threading.Timer(timeout_s, self._end_late, (timeout_s,))
        timer.daemon = True
        timer.start()

    def _end_late(self, timeout_s: float) -> None:
        threads = [each.name for each in threading.enumerate() if not each.daemon]
        logger.warning("ended_late", extra={"timeout_s": timeout_s, "threads": threads})
        self._log.flush()
        os._exit(0)
