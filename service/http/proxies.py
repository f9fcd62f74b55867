"""What a request says of the client, the host and the path, corrected by proxies that the operator trusts.

Anyone can send `X-Forwarded-*`. They count only if the connection comes from one of `VIP5_TRUSTED_PROXIES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UnknownHostError
from service.http.cross_origin import CrossOrigin
from service.http.problems import problem_response
from service.problem_documents import problem_of
from service.settings.fields import ROOT_PATH_PATTERN, UNIX_PEER
from service.settings.options import ProxyOptions

Address: TypeAlias = IPv4Address | IPv6Address

ANY_HOST_PATHS = ("/health/", "/v2/", "/metrics")
"""Probes and scrapes reach a replica by its address."""
HOST_LENGTH = 255


class Proxies:
    """ASGI middleware: sets client, scheme, host and root path of the scope, and makes redirects relative.

    Refuses hosts that are not allowed. A HEAD request is answered as GET without the body.
    """

    def __init__(self, app: ASGIApp, options: ProxyOptions, cross_origin: CrossOrigin) -> None:
        self._app = app
        self._cross_origin = cross_origin
        self._trusted = TrustedProxies(options.trusted)
        self._hosts = AllowedHosts(options.allowed_hosts)
        self._root_path = options.root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._correct(scope)
        try:
            if not scope["path"].removeprefix(scope["root_path"]).startswith(ANY_HOST_PATHS):
                self._hosts.check(Headers(scope=scope).getlist("host"))
        except UnknownHostError as error:
            await self._cross_origin.wrap(_refusal(error, scope))(scope, receive, send)
            return
        method = scope["method"]
        is_head = method == "HEAD"
        if is_head:
            scope["method"] = "GET"  # routes have no method HEAD
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"range"]  # GET's alone: RFC 9110, 14.2

        async def send_as_asked(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["method"] = method  # the server looks at it to leave out the body
                if "route" not in scope:  # the router's own redirection; routes may redirect elsewhere
                    _make_redirect_relative(message)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, send_as_asked)

    def _correct(self, scope: Scope) -> None:
        peer = _peer_of(scope)
        prefix = ""
        if self._trusted.trusts(peer):
            headers = MutableHeaders(scope=scope)
            peer = self._trusted.client_of(peer, headers.getlist("x-forwarded-for"))
            prefix = _prefix_of(headers.getlist("x-forwarded-prefix"))
            scheme = _first(headers.getlist("x-forwarded-proto")).lower()
            if scheme in {"http", "https"}:
                scope["scheme"] = scheme
            host = _first(headers.getlist("x-forwarded-host"))
            if host:
                headers["host"] = host
        scope["client"] = None if peer == UNIX_PEER else (peer, scope["client"][1] if scope["client"] else 0)
        _set_root_path(scope, prefix or self._root_path, was_removed=bool(prefix))


class TrustedProxies:
    """Addresses and networks, and `unix` for the clients of a Unix socket."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusts_unix = UNIX_PEER in trusted
        self._networks = tuple(ip_network(each, strict=False) for each in trusted if each != UNIX_PEER)

    def trusts(self, host: str) -> bool:
        if host == UNIX_PEER:
            return self._trusts_unix
        address = _address_of(host)
        return address is not None and any(address in network for network in self._networks)

    def client_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """The rightmost address that is not a trusted proxy's: those to the left of it can be made up.

        What is not an address ends the search at the proxy that passed it on.
        """
        client = peer
        for hop in reversed([hop for line in forwarded_for for hop in line.split(",")]):
            address = _address_of(_without_port(hop.strip()))
            if address is None:
                return client
            client = str(address)
            if not self.trusts(client):
                return client
        return client


class AllowedHosts:
    """Names of the service; `*.example.org` stands for all names below it, and no list for any name."""

    def __init__(self, allowed: Iterable[str] | None) -> None:
        self._names = None if allowed is None else frozenset(each.lower() for each in allowed)

    def check(self, hosts: list[str]) -> None:
        """Raises UnknownHostError unless all Host headers name the service."""
        if len(hosts) > 1:
            raise UnknownHostError("the request has several Host headers; send one")
        if self._names is None:
            return
        name = _without_port(hosts[0] if hosts else "").lower().rstrip(".")
        parents = (f"*.{name.split('.', n)[-1]}" for n in range(1, name.count(".") + 1))
        if name not in self._names and self._names.isdisjoint(parents):
            raise UnknownHostError(
                f"the host {name[:HOST_LENGTH]!r} is not one of this service's names; use one of them, or add it to "
                "VIP5_ALLOWED_HOSTS"
            )


def _peer_of(scope: Scope) -> str:
    """The address at the other end of the connection; that of an IPv4 client is one on a dual-stack socket, too."""
    if not scope.get("client"):
        return UNIX_PEER
    host = str(scope["client"][0])
    address = _address_of(host)
    return host if address is None else str(address)


def _address_of(host: str) -> Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _without_port(host: str) -> str:
    """The name or address of `name`, `name:port`, `[address]:port` or a bare address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _first(values: list[str]) -> str:
    """The value next to the client: proxies append theirs."""
    return values[0].partition(",")[0].strip() if values else ""


def _prefix_of(values: list[str]) -> str:
    """The joined prefixes of all proxies on the way; empty if it is not a plain path, which would end up in /docs."""
    prefix = "".join(part.strip().rstrip("/") for line in values for part in line.split(","))
    return prefix if re.fullmatch(ROOT_PATH_PATTERN, prefix) else ""


def _set_root_path(scope: Scope, root_path: str, *, was_removed: bool) -> None:
    """`path` contains the root path (ASGI). A proxy that names the prefix has removed it; others may have."""
    scope["root_path"] = root_path
    path = scope["path"]
    if was_removed or (path != root_path and not path.startswith(f"{root_path}/")):
        scope["path"] = root_path + path
        scope["raw_path"] = root_path.encode() + scope.get("raw_path", path.encode())


def _refusal(error: UnknownHostError, scope: Scope) -> Response:
    trace = scope["state"]["trace"]
    trace.error_code = error.code
    return problem_response(problem_of(error, trace.request_id))


def _make_redirect_relative(message: Message) -> None:
    """A redirect within the service needs no host, which would be whatever the request says."""
    headers = MutableHeaders(scope=message)
    location = headers.get("location")
    if location is not None:
        target = urlsplit(location)
        query = f"?{target.query}" if target.query else ""
        headers["location"] = f"/{target.path.lstrip('/')}{query}"
