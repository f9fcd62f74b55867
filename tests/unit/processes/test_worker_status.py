"""A worker says at once that something has changed, and otherwise now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from service.channel.messages import Status
from service.processes.worker_status import STATUS_S, StatusReport


@dataclass
class Heard:
    sent: list[Status] = field(default_factory=list)

    def send(self, message: Status) -> None:
        self.sent.append(message)


def test_a_change_is_said_at_once_and_the_same_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, problems, is_up, now = Heard(), [""], [True], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    report = StatusReport(heard, lambda: Status([*filter(None, problems)], is_up[0], {}, {}))  # type: ignore[arg-type]
    for _ in range(3):
        report._send_if_due()
    assert len(heard.sent) == 1

    problems[0] = "a file was changed"
    report._send_if_due()
    is_up[0] = False
    report._send_if_due()
    problems[0] = ""
    report._send_if_due()
    report._send_if_due()
    assert [(each.problems, each.is_redis_up) for each in heard.sent[1:]] == [
        (["a file was changed"], True),
        (["a file was changed"], False),
        ([], False),
    ]

    now[0] += STATUS_S
    report._send_if_due()
    assert len(heard.sent) == 5
