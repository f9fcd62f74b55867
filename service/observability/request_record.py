"""The log record of a request, which is made, rendered and handled for each one and therefore kept cheap."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from service.observability.trace import RequestTrace

EVENT = "request"


class RequestRecord(logging.LogRecord):
    """A record with the fields of one request, as any handler and formatter reads it.

    logging.LogRecord would also note thread, process, task and place in the code, of which nothing is logged.
    """

    def __init__(self, logger_name: str, level: int, fields: dict[str, Any]) -> None:
        created = time.time()
        self.__dict__.update(_DEFAULTS)
        self.__dict__.update(fields)
        self.name = logger_name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.created = created
        self.msecs = created % 1 * 1000
        self._fields = fields

    def json(self) -> bytes:
        """The line without its end, as the JSON formatter would write it for a record with these extra fields."""
        line = {
            "event": EVENT,
            "level": self.levelname,
            "logger": self.name,
            **self._fields,
            "time": datetime.fromtimestamp(self.created, UTC).isoformat(),
        }
        return msgspec.json.format(_ENCODER.encode(line), indent=0)


_DEFAULTS = vars(logging.makeLogRecord({"msg": EVENT, "args": None}))
_ENCODER = msgspec.json.Encoder()


def fields_of(trace: RequestTrace, status: int, duration_s: float) -> dict[str, Any]:
    fields = {
        "request_id": trace.request_id,
        "trace_id": trace.trace_id,
        "key_id": trace.client or None,
        "route": trace.route,
        "domain": trace.domain,
        "status": status,
        "duration_ms": round(duration_s * 1000, 3),
        "stages_ms": trace.stages_ms,
        "num_items": trace.num_items,
        "degraded": list(trace.degraded),
        "error": trace.error_code,
    }
    if trace.num_requests is not None:
        fields |= {"num_requests": trace.num_requests, "num_failed": trace.num_failed}
    return fields
