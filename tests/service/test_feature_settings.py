"""Settings of the feature store go together, and what is wrong with them is said without a password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from feature_cache.signing import Signing
from service.settings.loading import SettingsError, load_settings, load_signing


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


def test_the_signing_secret_reaches_journal_and_embeddings_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    monkeypatch.setenv("VIP5_SIGNING_SECRET_FILE", str(file))
    monkeypatch.setenv("VIP5_SIGNING_SECRET_OTHER", "fedcba9876543210")

    settings = load_settings({"bundle": "b", "signing_accepts_unsigned": True})

    expected = Signing("0123456789abcdef", "fedcba9876543210", accepts_unsigned=True)
    assert settings.feature_options.signing == settings.journal_options.signing == expected
    shown = f"{settings!r} {settings.feature_options} {settings.journal_options} {expected.signer('journal')}"
    assert "0123456789abcdef" not in shown
    assert "fedcba9876543210" not in shown
    monkeypatch.delenv("VIP5_SIGNING_SECRET_OTHER")
    assert load_signing() == Signing("0123456789abcdef")


@pytest.mark.parametrize("name", ["SIGNING_SECRET", "ADMIN_TOKEN"])
def test_a_secret_that_is_too_short_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"VIP5_{name}", "tooshort")
    with pytest.raises(SettingsError, match=f"VIP5_{name}.: .*at least 16") as caught:
        load_settings({"bundle": "b"})
    assert "tooshort" not in str(caught.value)


def test_options_of_signing_without_a_secret_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIP5_SIGNING_ACCEPTS_UNSIGNED", "true")
    with pytest.raises(SettingsError, match="have no effect without VIP5_SIGNING_SECRET"):
        load_settings({"bundle": "b"})
