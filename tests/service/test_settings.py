"""Settings come from the command line, then from variables; anything unknown or bad stops the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VIP5_")]:
        monkeypatch.delenv(name)


def test_options_win_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", "from-variable")
    monkeypatch.setenv("VIP5_PORT", "1234")
    monkeypatch.setenv("VIP5_MAX_WAITING", "7")

    settings = load_settings({"port": 5678, "host": None})

    assert settings.bundle == Path("from-variable")
    assert settings.port == 5678
    assert settings.host == "127.0.0.1"
    assert settings.queue_limits.max_waiting == 7


def test_groups_hold_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_MAX_BODY_BYTES", "10")
    monkeypatch.setenv("VIP5_MAX_HISTORY", "20")
    monkeypatch.setenv("VIP5_MAX_CANDIDATES", "30")
    monkeypatch.setenv("VIP5_DEFAULT_DEADLINE_MS", "1500")

    limits = load_settings({"bundle": "b"}).request_limits

    assert (limits.max_body_bytes, limits.max_history, limits.max_candidates) == (10, 20, 30)
    assert limits.default_deadline_s == 1.5


def test_settings_do_not_change() -> None:
    settings = Settings(bundle=Path("b"))

    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_a_missing_bundle_says_how_to_give_one() -> None:
    with pytest.raises(SettingsError, match="setting bundle is missing: give --bundle or set VIP5_BUNDLE"):
        load_settings()


@pytest.mark.parametrize("name", ["VIP5_BUNDEL", "VIP5_", "vip5_prot"])
def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")

    with pytest.raises(SettingsError, match=f"unknown setting {name}: remove it or use one of VIP5_ADMIN_HOST, "):
        load_settings({"bundle": "b"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VIP5_PORT", "-1"),
        ("VIP5_PORT", "http"),
        ("VIP5_DEVICE", "cuda:x"),
        ("VIP5_NUM_THREADS", "0"),
        ("VIP5_DRAIN_S", "inf"),
        ("VIP5_LOG_LEVEL", "loud"),
        ("VIP5_MAX_BATCH_TOKENS", "0"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=rf"\({name}\) is '{value}'"):
        load_settings({"bundle": "b"})


def test_all_bad_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_PORT", "-1")
    monkeypatch.setenv("VIP5_NUM_THREADS", "0")

    with pytest.raises(SettingsError, match=r"VIP5_PORT.*; .*VIP5_NUM_THREADS"):
        load_settings({"bundle": "b"})


def test_indexes_are_kept_in_the_users_cache_in_a_folder_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_settings({"bundle": "b"}).index_folder == tmp_path / "vip5-serve" / "indexes"
    monkeypatch.setenv("VIP5_INDEX_CACHE", "/srv/indexes")
    assert load_settings({"bundle": "b"}).index_folder == Path("/srv/indexes")
    monkeypatch.setenv("VIP5_INDEX_CACHE", "off")
    assert load_settings({"bundle": "b"}).index_folder is None
