"""Connections to Redis: one server, servers behind Sentinel, or a cluster.

Uses redis-py's asyncio clients over RESP3. Callers set the time limits.
"""

# N items that are read

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from feature_cache.errors import RedisUnavailableError
from feature_cache.remote.address import RedisAddress

CONNECT_TIMEOUT_S = 1.0
LARGEST_READ = 262_144
CLUSTER_SLICES = 64
ONLY_NODE = "redis"
ANY_KEY = "vip5:"
"""Never present; asking for it shows whether Redis answers."""

# Reads many buckets with one command; a key that is not a hash gives an error in its own place only. One HGET per item
# takes redis-py three times as long.
_READ = "local v = {} for i = 1, #KEYS do v[i] = redis.pcall('HGET', KEYS[i], ARGV[i]) end return v"

Reply: TypeAlias = Any
"""A reply of Redis, which may be an error."""
Command: TypeAlias = Sequence[str | int | bytes]

FAULTS = (RedisError, OSError, TimeoutError)
"""Errors of a Redis that is slow, down or refuses a command."""


class Link(Protocol):
    """A connection to Redis."""

    num_slices: int
    """Number of slices that a new edition's buckets are divided into."""

    def node_of(self, key: str) -> str:
        """The node that holds a key. Raises one of FAULTS if none does."""
        ...

    def read(self, keys: Sequence[str], fields: Sequence[str]) -> Coroutine[Any, Any, list[Reply]]:
        """The field of each key, for N keys on one node. Raises one of FAULTS if none could be read."""
        ...

    def ping(self, node: str) -> Coroutine[Any, Any, None]:
        """Raises one of FAULTS."""
        ...

    async def refresh(self) -> None:
        """Discover the nodes again. Raises one of FAULTS."""
        ...

    async def run(self, *command: str | int | bytes) -> Reply:
        """Run one command. Raises one of FAULTS."""
        ...

    async def run_all(self, commands: Iterable[Command]) -> list[Reply]:
        """Run several commands in one pipeline; replies may be errors."""
        ...

    async def close(self) -> None: ...


class SingleLink:
    """One server, found by its address or through Sentinel."""

    num_slices = 1

    def __init__(self, client: Redis, sentinels: Sequence[Redis] = ()) -> None:
        self._client = client
        self._sentinels = sentinels

    def node_of(self, _: str) -> str:
        return ONLY_NODE

    async def read(self, keys: Sequence[str], fields: Sequence[str]) -> list[Reply]:
        replies: list[Reply] = await self._client.execute_command("EVAL", _READ, len(keys), *keys, *fields)
        return replies

    async def ping(self, _: str) -> None:
        await self._client.execute_command("PING")

    async def refresh(self) -> None:
        pass  # every new connection asks Sentinel

    async def run(self, *command: str | int | bytes) -> Reply:
        return await self._client.execute_command(*command)

    async def run_all(self, commands: Iterable[Command]) -> list[Reply]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        for client in (self._client, *self._sentinels):
            await client.aclose()


class ClusterLink:
    """A cluster. Callers read from one node at a time."""

    num_slices = CLUSTER_SLICES

    def __init__(self, client: RedisCluster) -> None:
        self._client = client

    def node_of(self, key: str) -> str:
        return self._node(key).name

    async def read(self, keys: Sequence[str], fields: Sequence[str]) -> list[Reply]:
        """Sends one command for each slot."""
        places_of: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            places_of.setdefault(self._client.keyslot(key), []).append(place)
        commands: list[Command] = [
            ("EVAL", _READ, len(places), *(keys[place] for place in places), *(fields[place] for place in places))
            for places in places_of.values()
        ]
        replies: list[Reply] = [None] * len(keys)
        for places, found in zip(places_of.values(), await self.run_all(commands), strict=True):
            for offset, place in enumerate(places):
                replies[place] = found if isinstance(found, Exception) else found[offset]
        return replies

    async def ping(self, node: str) -> None:
        found = self._client.get_node(node_name=node)
        if found is None:  # it has left the cluster
            return
        await self._client.execute_command("PING", target_nodes=found)

    async def refresh(self) -> None:
        await self._client.initialize()
        await self._client.nodes_manager.initialize()

    async def run(self, *command: str | int | bytes) -> Reply:
        return await self._client.execute_command(*command)

    async def run_all(self, commands: Iterable[Command]) -> list[Reply]:
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        await self._client.aclose()

    def _node(self, key: str) -> ClusterNode:
        try:
            node = self._client.get_node_from_key(key)
        except (KeyError, AttributeError) as error:  # no node was reached yet
            raise RedisConnectionError("the cluster's nodes are not known yet") from error
        if node is None:
            raise RedisConnectionError("no node of the cluster holds the key")
        return node


def connect(address: RedisAddress) -> Link:
    """A link that connects on first use."""
    shared: dict[str, Any] = {
        **address.options,
        "protocol": 3,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_read_size": LARGEST_READ,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    retry = Retry(
        ExponentialWithJitterBackoff(base=0.002, cap=0.05), retries=2, supported_errors=(RedisConnectionError,)
    )
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        shared |= {"socket_timeout": CONNECT_TIMEOUT_S, "require_full_coverage": False, "retry": retry}
        return ClusterLink(RedisCluster(startup_nodes=nodes, **shared))
    shared |= {"socket_timeout": None, "retry": retry}  # callers limit the total time
    if address.kind == "sentinel":
        return _behind_sentinel(address, shared)
    if not address.hosts:
        return SingleLink(Redis(unix_socket_path=shared.pop("path"), **shared))
    host, port = address.hosts[0]
    return SingleLink(Redis(host=host, port=port, **shared))


def _behind_sentinel(address: RedisAddress, shared: dict[str, Any]) -> SingleLink:
    """The URL's user and password are for the servers; Sentinels get those of `?sentinel_password=…`, or none."""
    sentinel_options = {name: value for name, value in shared.items() if name.startswith("ssl")}
    for name in ("username", "password"):
        if (value := shared.pop(f"sentinel_{name}", None)) is not None:
            sentinel_options[name] = value
    limits = {"socket_timeout": CONNECT_TIMEOUT_S / 2, "socket_connect_timeout": CONNECT_TIMEOUT_S / 2}
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=sentinel_options | limits)
    return SingleLink(sentinel.master_for(address.service, **shared), sentinel.sentinels)


@asynccontextmanager
async def linked(address: RedisAddress, timeout_s: float) -> AsyncIterator[Link]:
    """A link for work that requires Redis. Raises RedisUnavailableError if Redis does not answer."""
    link = connect(address)
    try:
        try:
            async with asyncio.timeout(timeout_s):
                await link.refresh()
                await link.run("EXISTS", ANY_KEY)
        except FAULTS as error:
            raise RedisUnavailableError(f"Redis at {address} does not answer: {_reason(error)}") from error
        try:
            yield link
        except FAULTS as error:
            raise RedisUnavailableError(f"Redis at {address} failed: {_reason(error)}") from error
    finally:
        await link.close()


def checked(replies: Sequence[Reply]) -> Sequence[Reply]:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _reason(error: BaseException) -> str:
    return str(error) or f"no reply in time ({type(error).__name__})"
