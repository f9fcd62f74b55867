"""Which addresses pictures may come from: public ones, and hosts of the shop's own network that somebody named."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

from feature_cache.encoding.errors import EncodingError
from feature_cache.encoding.sources import PictureError

Address: TypeAlias = IPv4Address | IPv6Address

PORTS = (80, 443)

_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds give credentials to machines that ask."""


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts that may have private addresses or unusual ports, each as `host` or `host:port`."""

    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, texts: list[str]) -> AllowedHosts:
        """Raises EncodingError for anything but hosts, such as URLs and patterns."""
        for text in texts:
            host, _, port = text.rpartition(":") if text.count(":") == 1 else (text.strip("[]"), "", "")
            is_host = bool(host) and not set(host) & set("/*@? ") and (not port or port.isdecimal())
            if not is_host:
                raise EncodingError(f"--allow-host {text!r} is not a host; give one such as images.internal:8080")
        return cls(frozenset(text.lower() for text in texts))

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses to connect to. Raises PictureError if the host has one that is not allowed."""
        name = host.lower().strip("[]").rstrip(".")
        is_allowed = f"{name}:{port}" in self.hosts or (name in self.hosts and port in PORTS)
        if port not in PORTS and not is_allowed:
            raise PictureError(
                f"port {port} of {name} is not allowed, only {PORTS[0]} and {PORTS[1]} are; to allow it, give "
                f"--allow-host {name}:{port}"
            )
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise PictureError(f"it cannot be downloaded (the host {name!r} cannot be resolved: {error})") from error
        addresses = list(dict.fromkeys(str(place[0]) for _, _, _, _, place in found))
        for address in addresses:
            _check(ip_address(address), name, port, is_allowed=is_allowed)
        return addresses


def _check(address: Address, name: str, port: int, *, is_allowed: bool) -> None:
    for each in (address, *_embedded(address)):
        if each in _METADATA or each.is_link_local or each.is_multicast or each.is_unspecified:
            raise PictureError(f"{name} has the address {address}, which is never a server of pictures")
        if not is_allowed and not _is_public(each):
            raise PictureError(
                f"{name} has the private address {address}; to allow it, give --allow-host "
                f"{name if port in PORTS else f'{name}:{port}'}"
            )


def _is_public(address: Address) -> bool:
    """Whether anybody can reach it: not private, loopback, shared (CGNAT), reserved or for documentation."""
    if _embedded(address):
        return True  # the address within decides
    return address.is_global and not address.is_reserved and not getattr(address, "is_site_local", False)


def _embedded(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    is_compatible = number >> 32 == 0 and number > 1
    last = IPv4Address(number & 0xFFFFFFFF) if is_compatible or any(address in network for network in _NAT64) else None
    found = (address.ipv4_mapped, address.sixtofour, address.teredo[1] if address.teredo else None, last)
    return [each for each in found if each is not None]
