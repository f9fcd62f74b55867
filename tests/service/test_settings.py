"""Settings come from the command line, then from variables; anything unknown or bad stops the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.processes.engine import num_workers_of
from service.settings.loading import SettingsError, load_settings
from service.settings.settings import Settings


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


LINKS = {
    f"{service}{name}": value
    for service in ("VIP5", "VIP5_ADMIN", "VIP5_2")
    for name, value in {
        "_SERVICE_HOST": "10.0.0.1",
        "_SERVICE_PORT": "80",
        "_SERVICE_PORT_HTTP": "80",
        "_PORT": "tcp://10.0.0.1:80",
        "_PORT_80_TCP": "tcp://10.0.0.1:80",
        "_PORT_80_TCP_PROTO": "tcp",
        "_PORT_80_TCP_PORT": "80",
        "_PORT_80_TCP_ADDR": "10.0.0.1",
    }.items()
}
"""What Kubernetes sets for the Services `vip5`, `vip5-admin` and `vip5-2`."""


def test_what_kubernetes_sets_for_services_is_not_taken_for_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)

    settings = load_settings({"bundle": "b"})

    assert settings.port == 8000
    assert settings.admin_port is None


def test_a_port_that_is_set_beside_a_service_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LINKS | {"VIP5_PORT": "1234"}).items():
        monkeypatch.setenv(name, value)

    assert load_settings({"bundle": "b"}).port == 1234


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [("VIP5_SERVICE_POTR", "80", "unknown setting VIP5_SERVICE_POTR"), ("VIP5_PORT", "tcp//10.0.0.1", "setting port")],
)
def test_a_variable_that_kubernetes_does_not_set_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fault: str
) -> None:
    for link, address in (LINKS | {name: value}).items():
        monkeypatch.setenv(link, address)

    with pytest.raises(SettingsError, match=fault):
        load_settings({"bundle": "b"})


def test_an_address_without_its_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_PORT", "tcp://10.0.0.1:80")

    with pytest.raises(SettingsError, match="setting port"):
        load_settings({"bundle": "b"})


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
        ("VIP5_IMAGES_ROOT", ""),
        ("VIP5_BUNDLES_ROOT", ""),
        ("VIP5_HISTORY_FILE", ""),
    ],
)
def test_a_bad_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=rf"\({name}\) is '{value}'"):
        load_settings({"bundle": "b"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("workers", "many", "'many': write a number from 0 to 256, or auto"),
        ("workers", "-1", "'-1': write a number from 0 to 256, or auto"),
        ("trusted_proxies", "[1]", "1: Input should be a valid string"),
        ("rate_limit", "often", "'often': 'often' is not a rate limit; write a number per unit of time"),
    ],
)
def test_a_bad_value_has_one_message_without_the_names_of_types(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"VIP5_{name.upper()}", value)
    with pytest.raises(SettingsError) as raised:
        load_settings({"bundle": "b"})
    assert str(raised.value).startswith(f"setting {name} (VIP5_{name.upper()}) is {message}")
    assert "; setting" not in str(raised.value)


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


def test_embedded_histories_are_beside_the_bundle_also_with_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_BUNDLE", "bundle")
    monkeypatch.setenv("VIP5_HISTORY_STORE", "embedded")
    monkeypatch.setenv("VIP5_WORKERS", "2")
    settings = load_settings()
    assert num_workers_of(settings) == 2
    assert settings.history_options.path.name == "bundle.histories.jsonl"
    monkeypatch.setenv("VIP5_HISTORY_STORE", "redis")
    with pytest.raises(SettingsError, match="VIP5_HISTORY_STORE=redis and VIP5_REDIS_URL; set both"):
        load_settings()
