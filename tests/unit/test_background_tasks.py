"""No task, thread or back-off of the service and the feature cache is outside of what watches over them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_cache.tiered import WATCHER
from service.observability.metrics.metrics import BACKGROUND_TASKS

ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text()
    for package in ("service", "feature_cache")
    for path in sorted((ROOT / package).rglob("*.py"))
}
WATCHED = {
    # Those of a body's requests are a task group's; what was shown is written by a task that its maker waits for. On
    # Ray, who makes a task waits for it, or its failure is logged where it ends.
    "create_task": {
        "feature_cache/background.py",
        "service/answering/bulk.py",
        "service/histories/shown_log.py",
        "service/ray/forwarded.py",
        "service/ray/replica.py",
        "service/ray/residents.py",
    },
    "ensure_future": set[str](),
    "run_in_executor": set[str](),
    "run_coroutine_threadsafe": {"service/ray/prediction.py"},  # whose results are waited for
    # A lane's failure ends the service; what the writers of the log and the audit log do not write is reported.
    # An actor of Ray asks its event loop for each answer, and waits.
    "Thread": {
        "service/batching/lane.py",
        "service/observability/audit.py",
        "service/observability/log_writer.py",
        "service/ray/prediction.py",
    },
    # One shuts a socket down at a deadline, for `vip5 features encode`; one ends a process that does not end in time.
    "Timer": {"feature_cache/encoding/connections.py", "service/http/ending.py"},
    "print": set[str](),  # it waits for whoever reads
}
LANES = {"lane-ranking", "lane-text"}  # each lane counts under the name of its thread
REDIS_BACKOFFS = {"feature_cache/remote/link.py": "retries=2"}  # redis-py's overflow after some 1,024 failures


def calls_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Attribute(attr=name) | ast.Name(id=name):
                    yield name


@pytest.mark.parametrize("name", WATCHED)
def test_a_call_that_could_fail_in_silence_is_made_in_known_places_only(name: str) -> None:
    found = {
        path
        for path, text in SOURCES.items()
        if name in text and not path.startswith("service/cli/") and name in calls_of(ast.parse(text))
    }

    assert found == WATCHED[name]


def test_back_offs_of_redis_py_are_used_for_a_bounded_number_of_attempts_only() -> None:
    users = {path: text for path, text in SOURCES.items() if "redis.backoff" in text}

    assert users.keys() == REDIS_BACKOFFS.keys()
    for name, bound in REDIS_BACKOFFS.items():
        assert users[name].count("Backoff(") == users[name].count(bound)


def test_the_metric_of_failures_lists_exactly_the_tasks_that_are_started() -> None:
    """So that the counter of a task is there before its first failure, and a misspelt name is noticed."""
    started: set[str] = set()
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or path == "feature_cache/background.py":
                continue
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="kept" | "once" | "count_background_failure"),
                    args=[ast.Constant(str(name)), *_],
                ):
                    started.add(name)
                case ast.Call(func=ast.Attribute(attr="kept"), args=[ast.Name(id="WATCHER"), *_]):
                    started.add(WATCHER)

    assert started | LANES == set(BACKGROUND_TASKS)
