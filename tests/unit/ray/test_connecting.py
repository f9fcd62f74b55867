"""Which cluster of Ray a command uses."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Ray's own
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray, of the extra ray, is not installed"),
]


@pytest.mark.parametrize(
    ("named", "used"), [("192.0.2.1:6379", "192.0.2.1:6379"), ("auto", "auto"), ("", "local"), (None, "local")]
)
def test_the_cluster_that_the_variable_names_is_used_or_else_a_new_one(
    named: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from quiet_libraries.on_ray import connect

    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    if named is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", named)
    addresses: list[str] = []
    monkeypatch.setattr(ray, "init", lambda address, **_: addresses.append(address))

    connect()

    assert addresses == [used]
