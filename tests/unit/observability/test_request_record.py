"""The line of a request is the one that the JSON formatter would write."""

from __future__ import annotations

import json
import logging

import pytest

from model.degradation import DegradationKind
from service.observability.json_logging import _formatter, log_request
from service.observability.request_record import RequestRecord, fields_of
from service.observability.trace import RequestTrace


def trace() -> RequestTrace:
    return RequestTrace(
        "id-1",
        route="/recommend/sequential",
        domain="toys",
        client="shöp",
        num_items=2,
        degraded=(DegradationKind.MISSING_FEATURES,),
        error_code="deadline_exceeded",
        stages_ms={"plan": 0.125},
    )


@pytest.mark.parametrize("noted", [RequestTrace("id-2"), trace()])
def test_the_line_is_the_formatters(noted: RequestTrace) -> None:
    fields = fields_of(noted, 200, 0.0123456)
    record = RequestRecord("service.x", logging.INFO, fields)
    plain = logging.makeLogRecord(
        {"name": "service.x", "levelno": 20, "levelname": "INFO", "msg": "request", "created": record.created, **fields}
    )
    formatter = _formatter()
    assert json.loads(formatter.format(record)) == json.loads(formatter.format(plain))
    assert formatter.format(record).encode() == formatter.format(plain).replace("\\u00f6", "ö").encode(), (
        "blanks and order"
    )


def test_other_handlers_read_the_record_like_any(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_request(trace(), 504, 0.5)
        log_request(RequestTrace("id-3", route="/health/live"), 200, 0.001)
    (record,) = caplog.records
    assert record.getMessage() == "request"
    assert vars(record)["status"] == 504
    # Not those of a record of this process, to which Ray adds some once it is imported.
    names = set(vars(logging.LogRecord("", logging.INFO, "", 0, "", (), None)))
    assert all(hasattr(record, name) for name in names), "what formats refer to"
