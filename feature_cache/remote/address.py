"""Redis URLs: one server, servers behind Sentinel, or a cluster.

    redis://[user:password@]host[:port][/db]         rediss:// for TLS; unix:///path/to/socket
    redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]
    redis+cluster://[user:password@]host[:port][,host[:port]…]

`rediss+sentinel` and `rediss+cluster` use TLS. Options of redis-py may follow, such as `?ssl_ca_certs=/etc/ca.pem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import urlsplit

from redis.asyncio.connection import parse_url

from feature_cache.errors import RedisAddressError

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
# Time limits and the number of connections come from the settings, not from the URL.
OWN_OPTIONS = {"socket_timeout", "socket_connect_timeout", "max_connections", "timeout", "protocol", "retry_on_timeout"}


@dataclass(frozen=True)
class RedisAddress:
    """A Redis to connect to. Its text holds no credentials."""

    kind: Literal["single", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...]  # empty for a socket
    service: str = ""  # as Sentinel names it
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, username: str | None = None, password: str | None = None) -> RedisAddress:
        """`username` and `password` override those of the URL. Raises RedisAddressError, without credentials."""
        scheme, _, kind = url.partition("://")[0].partition("+")
        if url.partition("://")[0] not in SCHEMES or "://" not in url:
            raise RedisAddressError(f"a Redis URL must start with one of {', '.join(f'{each}://' for each in SCHEMES)}")
        authority, path, query = _split(url)
        userinfo, _, hosts_text = authority.rpartition("@")
        given = [userinfo + "@" if userinfo else "", f"?{query}" if query else ""]
        service, db = "", path
        if kind == "sentinel":
            service, _, db = path.strip("/").partition("/")
            if not service:
                raise RedisAddressError(
                    "a redis+sentinel URL must end with the name of the service, as in …:26379/mymaster"
                )
        if scheme != "unix" and db.strip("/") and not db.strip("/").isdecimal():
            raise RedisAddressError(f"{db.strip('/')!r} is not a database number; end the URL with /0, /1, …")
        options = _options(f"{scheme}://{given[0]}{'' if scheme == 'unix' else 'host'}/{db.lstrip('/')}{given[1]}")
        if kind == "cluster" and options.get("db"):
            raise RedisAddressError("a Redis cluster has only database 0; remove the number from the URL")
        for name, value in (("username", username), ("password", password)):
            if value is not None:
                options[name] = value
        address_kind = cast("Literal['single', 'sentinel', 'cluster']", kind or "single")
        hosts = () if scheme == "unix" else _hosts(hosts_text, DEFAULT_PORTS[address_kind])
        if address_kind == "single" and len(hosts) > 1:
            raise RedisAddressError(
                f"{hosts_text} names {len(hosts)} servers; use redis+sentinel:// or redis+cluster:// for several"
            )
        return cls(address_kind, hosts, service, options)

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts) or str(self.options.get("path"))
        return f"{where}/{self.service}" if self.service else where


def _split(url: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RedisAddressError("the Redis URL cannot be read; check its brackets") from error
    return parts.netloc, parts.path, parts.query


def _options(url: str) -> dict[str, object]:
    """Options of redis-py in the URL of one server."""
    try:
        found: dict[str, object] = dict(parse_url(url))
    except (ValueError, TypeError) as error:
        raise RedisAddressError(f"the Redis URL cannot be read: {error}") from None  # its cause may hold a password
    if refused := sorted(OWN_OPTIONS & found.keys()):
        raise RedisAddressError(
            f"the Redis URL has {', '.join(refused)}, which the settings control; remove it from the URL"
        )
    kept = {name: value for name, value in found.items() if name not in ("connection_class", "host", "port")}
    return kept | ({"ssl": True} if url.startswith("rediss://") else {})


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for each in text.split(","):
        try:
            parts = urlsplit(f"//{each}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise RedisAddressError(f"{each!r} is not a host and a port; write host:port") from error
        if not host:
            raise RedisAddressError(f"{text!r} names no host; write host or host:port")
        hosts.append((host, default_port if port is None else port))
    return tuple(hosts)
