"""Groups of settings, one for each part of the service that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feature_cache.remote.address import RedisAddress
from feature_cache.signing import Signing
from model.bundle.exchange.place import StorePlace


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request that the schemas leave open."""

    max_body_bytes: int
    max_history: int
    max_candidates: int
    max_tokens: int
    default_deadline_s: float


@dataclass(frozen=True)
class ConnectionLimits:
    """Times in seconds that a connection may take to send a request, read an answer, and wait for another request.

    A connection older than `max_age_s` is closed after its next answer.
    """

    receive_s: float
    send_s: float
    keep_alive_s: float
    max_age_s: float


@dataclass(frozen=True)
class ProxyOptions:
    """Whose `X-Forwarded-*` headers count, the path before all paths, and the names of the service (None: any)."""

    trusted: tuple[str, ...]
    root_path: str
    allowed_hosts: tuple[str, ...] | None


@dataclass(frozen=True)
class Endpoint:
    """Where to listen: on a Unix socket, or else on a host and a port."""

    host: str
    port: int
    unix_socket: Path | None = None
    unix_socket_mode: int = 0


@dataclass(frozen=True)
class QueueLimits:
    """Capacity of a lane's queue and of one batch."""

    max_waiting: int
    max_batch_rows: int
    max_batch_tokens: int
    attribution_part_s: float = 0.03
    """About how long a part of an attribution may hold the engine."""


@dataclass(frozen=True)
class ReductionOptions:
    """Minimum beam width under load, and the file with the measured cost of each width."""

    min_beams: int
    table: Path


@dataclass(frozen=True)
class FeatureOptions:
    """Source of image embeddings; without a Redis, the bundle's own files."""

    redis: RedisAddress | None
    timeout_s: float
    refresh_s: float
    max_concurrent: int
    tier_bytes: int
    has_last_resort: bool
    signing: Signing | None = None


@dataclass(frozen=True)
class JournalOptions:
    """Where changes are kept: a Redis, or a file. Unless `is_wanted`, the file is read only if it exists.

    It is written if changes are possible (`is_written`).
    """

    redis: RedisAddress | None
    service_id: str
    path: Path
    is_wanted: bool
    is_written: bool
    signing: Signing | None = None


@dataclass(frozen=True)
class ReplicaOptions:
    """What others know this replica as, and for how long it counts without a sign of life.

    With `max_lag_s`, it answers nothing once it has not followed the others for so long.
    """

    name: str | None
    lease_s: float
    max_lag_s: float | None


@dataclass(frozen=True)
class HistoryOptions:
    """Where users' histories are kept: nowhere, in a Redis, or in this process and the file at `path`.

    `half_life_s` is the time in which an event loses half of its weight in the popularity of items.
    """

    store: Literal["none", "embedded", "redis"]
    redis: RedisAddress | None
    service_id: str
    path: Path
    max_events: int
    lifetime_s: float
    max_users: int
    half_life_s: float
    timeout_s: float
    max_concurrent: int


@dataclass(frozen=True)
class AdminOptions:
    """Who may change what is served and where, which folder holds the bundles, and how long a change may wait."""

    token: str | None
    tokens_file: Path | None
    wait_s: float
    endpoint: Endpoint | None
    bundles_root: Path | None
    bundle_store: StorePlace | None = None

    @property
    def is_enabled(self) -> bool:
        return self.token is not None or self.tokens_file is not None


@dataclass(frozen=True)
class TraceOptions:
    """Where spans are sent, and the share of requests traced; without an endpoint, none are."""

    endpoint: str | None
    sample_ratio: float
