"""URLs of Redis are understood in all their forms, and what is wrong with one is said without its password."""

from __future__ import annotations

import pytest

from feature_cache.errors import RedisAddressError
from feature_cache.remote.address import RedisAddress


def test_one_server() -> None:
    address = RedisAddress.parse("redis://ann:se%40cret@db.local:7000/3")

    assert (address.kind, address.hosts) == ("single", (("db.local", 7000),))
    assert address.options == {"username": "ann", "password": "se@cret", "db": 3}


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://a", (("a", 6379),)),
        ("redis://[::1]:7000", (("::1", 7000),)),
        ("redis+cluster://a,b:7001", (("a", 6379), ("b", 7001))),
        ("redis+sentinel://a,b:7001/shop", (("a", 26379), ("b", 7001))),
        ("unix:///run/redis.sock", ()),
    ],
)
def test_hosts_have_the_ports_given_or_usual(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert RedisAddress.parse(url).hosts == hosts


def test_a_socket() -> None:
    assert RedisAddress.parse("unix://ann:secret@/run/redis.sock").options == {
        "path": "/run/redis.sock",
        "username": "ann",
        "password": "secret",
    }


def test_sentinel_names_the_service_and_perhaps_a_database() -> None:
    address = RedisAddress.parse("rediss+sentinel://:pw@a,b/shop/2?sentinel_password=other")

    assert (address.kind, address.service) == ("sentinel", "shop")
    assert address.options == {"password": "pw", "db": 2, "ssl": True, "sentinel_password": "other"}


def test_tls_takes_the_options_of_the_library() -> None:
    options = RedisAddress.parse("rediss+cluster://a?ssl_ca_certs=/ca.pem&ssl_check_hostname=no").options

    assert options == {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}


def test_credentials_given_apart_win() -> None:
    options = RedisAddress.parse("redis://ann:old@a", "ben", "new").options

    assert options == {"username": "ben", "password": "new"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("a:6379", "must start with one of redis://"),
        ("http://a", "must start with one of"),
        ("redis+other://a", "must start with one of"),
        ("redis://:secret@a,b", "use redis\\+sentinel:// or redis\\+cluster://"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@a:seven", "not a host and a port"),
        ("redis://:secret@a/first", "'first' is not a database number"),
        ("redis+sentinel://:secret@a", "must end with the name of the service"),
        ("redis+cluster://:secret@a/1", "has only database 0"),
        ("redis://:secret@a?socket_timeout=1", "socket_timeout, which the settings control"),
        ("redis://:secret@a?db=x", "Invalid value for 'db'"),
        ("redis://:secret@[a", "brackets"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, words: str) -> None:
    with pytest.raises(RedisAddressError, match=words) as refusal:
        RedisAddress.parse(url)

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["redis://ann:secret@a/1", "redis+sentinel://ann:secret@a,b/s", "unix://:secret@/x"])
def test_text_and_repr_hold_no_credentials(url: str) -> None:
    address = RedisAddress.parse(url, password="secret")

    assert "secret" not in f"{address} {address!r}"
    assert "ann" not in f"{address} {address!r}"
