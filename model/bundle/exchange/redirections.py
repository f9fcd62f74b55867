"""Where a web server that serves a store of bundles may lead by redirections: not further inside than it is itself.

A store on the internet that could name addresses of the puller's network would have requests sent there from within.
Names are checked as they are resolved, and the address that is checked is the one that is connected to.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from model.errors import BundleStoreError

_GLOBAL_V6 = ip_network("2000::/3")
_TUNNELS = (ip_network("2001::/32"), ip_network("2002::/16"))
"""Teredo and 6to4, which lead to IPv4 addresses."""
_CREDENTIALS = frozenset(
    map(ip_address, ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds give credentials to machines that ask."""


class Scope(IntEnum):
    """Who reaches an address, from everybody to this machine."""

    PUBLIC = 0
    NETWORK = 1
    MACHINE = 2
    NOBODY = 3
    """Addresses that never have a store, such as those where clouds give credentials."""


def scope_of(address: IPv4Address | IPv6Address) -> Scope:
    """Who reaches an address. IPv6 addresses that may lead to an IPv4 address count as those that nobody reaches."""
    if address in _CREDENTIALS or address.is_link_local or address.is_multicast or address.is_unspecified:
        return Scope.NOBODY
    if address.is_loopback:
        return Scope.MACHINE
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return Scope.NETWORK if address.is_private and address.ipv4_mapped is None else Scope.NOBODY
    if any(address in network for network in _TUNNELS):
        return Scope.NOBODY
    return Scope.PUBLIC if address.is_global and not address.is_reserved else Scope.NETWORK


@dataclass
class Redirections:
    """Checks addresses. The store's own host may have any, which decides how far inside others may be."""

    host: str
    scope: Scope = Scope.PUBLIC

    def check(self, host: str, addresses: list[str]) -> None:
        """Raises BundleStoreError for a host of which an address is further inside than the store."""
        found = max((scope_of(ip_address(each.partition("%")[0])) for each in addresses), default=Scope.PUBLIC)
        if host == self.host:
            self.scope = min(found, Scope.MACHINE)
        elif found > self.scope:
            raise BundleStoreError(
                f"the store at {self.host} redirects to {host}, which has the address {', '.join(addresses)} further "
                "inside your network than the store is; this is not followed, so use that address for the store itself"
            )

    async def check_next(
        self, _session: aiohttp.ClientSession, _context: object, found: aiohttp.TraceRequestRedirectParams
    ) -> None:
        """Called for each redirection: addresses in it are not resolved, and not checked there."""
        headers, parse = found.response.headers, type(found.url)  # as aiohttp reads it
        host = found.url.join(parse(headers.get("Location") or headers.get("URI") or "")).host or ""
        if _is_address(host):
            self.check(host, [host])


class CheckedResolver(AbstractResolver):
    """Resolves what may be connected to."""

    def __init__(self, redirections: Redirections) -> None:
        self._redirections = redirections
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        self._redirections.check(host, [each["host"] for each in found])
        return found

    async def close(self) -> None:
        await self._resolver.close()


async def open_session(url: str, **options: object) -> aiohttp.ClientSession:
    """A session for a store at a URL, with fsspec's options for sessions."""
    redirections = Redirections(urlsplit(url).hostname or "")
    if _is_address(redirections.host):
        redirections.check(redirections.host, [redirections.host])
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(redirections.check_next)
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(redirections))
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace], **options)  # type: ignore[arg-type]


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
