"""Settings of the feature store go together, and what is wrong with them is said without a password."""

from __future__ import annotations

import os

import pytest

from service.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VIP5_")]:
        monkeypatch.delenv(name)


def test_without_redis_the_bundles_own_embeddings_are_used() -> None:
    assert load_settings({"bundle": "b"}).feature_options.redis is None


def test_redis_and_its_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FEATURE_STORE": "redis",
        "REDIS_URL": "redis+sentinel://:old@a,b/shop",
        "REDIS_PASSWORD": "new",
        "REDIS_CONNECTIONS": "3",
        "FEATURE_TIMEOUT_MS": "35",
        "FEATURE_REFRESH_MS": "500",
        "FEATURE_TIER_MB": "2",
        "FEATURE_FALLBACK": "none",
    }.items():
        monkeypatch.setenv(f"VIP5_{name}", value)

    options = load_settings({"bundle": "b"}).feature_options

    assert options.redis is not None
    assert (options.redis.kind, options.redis.service) == ("sentinel", "shop")
    assert options.redis.options["password"] == "new"
    assert (options.timeout_s, options.refresh_s, options.max_concurrent) == (0.035, 0.5, 3)
    assert options.tier_bytes == 2_000_000
    assert not options.has_last_resort


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FEATURE_STORE": "redis"}, "VIP5_FEATURE_STORE=redis and VIP5_REDIS_URL go together"),
        ({"REDIS_URL": "redis://:secret@a"}, "VIP5_FEATURE_STORE=redis and VIP5_REDIS_URL go together"),
        ({"FEATURE_STORE": "redis", "REDIS_URL": "http://:secret@a"}, r"redis_url \(VIP5_REDIS_URL\) is not valid"),
        ({"FEATURE_STORE": "redis", "REDIS_URL": "redis://:secret@a:x"}, "'a:x' is not a host and a port"),
        ({"FEATURE_STORE": "memcached"}, r"\(VIP5_FEATURE_STORE\) is 'memcached'"),
        ({"FEATURE_TIER_MB": "-1"}, r"\(VIP5_FEATURE_TIER_MB\) is '-1'"),
        ({"FEATURE_TIMEOUT_MS": "0"}, r"\(VIP5_FEATURE_TIMEOUT_MS\) is '0'"),
    ],
)
def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VIP5_{name}", value)

    with pytest.raises(SettingsError, match=words) as refusal:
        load_settings({"bundle": "b"})

    assert "secret" not in str(refusal.value)


def test_the_settings_do_not_show_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_FEATURE_STORE", "redis")
    monkeypatch.setenv("VIP5_REDIS_URL", "redis://:secret@a")
    monkeypatch.setenv("VIP5_REDIS_PASSWORD", "secret")

    settings = load_settings({"bundle": "b"})

    assert "secret" not in f"{settings!r} {settings} {settings.feature_options}"
