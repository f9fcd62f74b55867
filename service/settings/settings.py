"""Everything that an operator can configure, as variables whose names start with VIP5_.

Facts about a model belong in its bundle, never here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from feature_cache.errors import RedisAddressError
from feature_cache.remote.address import RedisAddress
from model.bundle.exchange.place import StorePlace
from model.bundle.index.folder import user_cache, usual_folder
from model.engine.names import EngineName
from service.settings.fields import (
    PREFIX,
    Count,
    File,
    Host,
    HostNames,
    Origins,
    Proxies,
    RateLimit,
    RootPath,
    Seconds,
    Store,
    Workers,
)
from service.settings.histories import DAY_S
from service.settings.options import (
    AdminOptions,
    ConnectionLimits,
    Endpoint,
    FeatureOptions,
    HistoryOptions,
    JournalOptions,
    ProxyOptions,
    QueueLimits,
    ReductionOptions,
    RequestLimits,
    TraceOptions,
)
from service.settings.replicas import ReplicaSettings
from service.settings.signing import SIGNING_SECRETS

REDIS = "redis"
NO_INDEX_CACHE = "off"
SECRETS = ("admin_token", "redis_url", "redis_password", *SIGNING_SECRETS)
"""Settings that may also be given by a file, named in the variable with `_FILE` at its end."""


class Settings(ReplicaSettings):
    """Everything that an operator can configure."""

    bundle: File = Field(
        description="The bundle to serve: a folder, or the URL of a store: its latest, or that of the hash after #."
    )
    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    unix_socket: File | None = Field(
        default=None, description="Unix socket to listen on instead of host and port (default: none)."
    )
    unix_socket_mode: str = Field(
        default="660", pattern=r"^0?[0-7]{3}$", description="Permissions of the Unix socket, in octal."
    )
    root_path: RootPath = Field(
        default="", description="Path under which a proxy serves the service, such as /recommender (default: none)."
    )
    trusted_proxies: Proxies = Field(
        default=(), description="Addresses and networks whose X-Forwarded-* headers count, as a JSON list."
    )
    allowed_hosts: HostNames | None = Field(
        default=None, description="Names of the service in requests, as a JSON list (default: any name)."
    )
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where the model runs.")
    engine: EngineName = Field(
        default="auto",
        description="What computes the model; auto takes onnx on a CPU, graphs-tfloat32 on CUDA.",
    )
    graph_buckets: File | None = Field(
        default=None, description="Shapes to capture searches for on a GPU, as vip5 bench --out writes them."
    )
    num_threads: Count | None = Field(default=None, description="CPU threads of the model (default: all cores).")
    max_body_bytes: Count = Field(default=1_048_576, description="Longest request body.")
    max_bodies_bytes: Count = Field(
        default=33_554_432, description="Most bytes of bodies over 64 KiB held at once; more are rejected."
    )
    max_history: Count = Field(default=1_000, description="Most items in a history.")
    max_candidates: Count = Field(default=1_000, description="Most candidates of one request.")
    max_request_tokens: Count = Field(
        default=32_768, description="Most tokens of the prompts of one request, one prompt per candidate."
    )
    default_deadline_ms: Count = Field(default=30_000, description="Deadline of requests without one.")
    max_waiting: Count = Field(default=256, description="Most requests waiting in each lane; more are rejected.")
    max_batch_rows: Count = Field(default=64, description="Most prompts in one batch.")
    max_batch_tokens: Count = Field(default=16_384, description="Most tokens in one batch, padding included.")
    workers: Workers = Field(
        default=0,
        description="Processes that speak HTTP for the engine; 0: the engine's process does so itself; `auto`: by the "
        "number of cores.",
    )
    worker_ack_s: Seconds = Field(
        default=10.0, description="A worker that does not follow a change for this long, or hangs, is replaced."
    )
    drain_s: Seconds = Field(default=30.0, description="Longest wait for running requests at shutdown.")
    rate_limit: RateLimit | None = Field(
        default=None, description="Most requests of one client, such as 100/second (default: no limit)."
    )
    min_beams: Count | None = Field(
        default=None, description="Minimum beam width under load (default: beams are not reduced)."
    )
    beam_table: File | None = Field(
        default=None,
        description="JSON file with the cost and recall of each beam width, as vip5 bench --out writes it.",
    )
    receive_s: Seconds = Field(
        default=10.0, description="Longest time to receive the headers of a request, and again for its body."
    )
    send_s: Seconds = Field(
        default=30.0, description="Longest time that a client may leave an answer unread before it is disconnected."
    )
    connection_max_age_s: Seconds = Field(
        default=600.0,
        description="Age at which a connection is closed after an answer, so that clients spread over all workers.",
    )
    keep_alive_s: Seconds = Field(
        default=75.0, description="Longest time that a connection waits for its next request; more than the proxy's."
    )
    stall_s: Seconds = Field(
        default=60.0, description="Longest time in one batch before the process reports itself as stuck."
    )
    feature_store: Literal["embedded", "redis"] = Field(default="embedded", description="Source of image embeddings.")
    feature_fallback: Literal["embedded", "none"] = Field(
        default="embedded", description="Source of embeddings that Redis does not return."
    )
    feature_timeout_ms: Count = Field(default=20, description="Longest wait of a request for Redis.")
    feature_refresh_ms: Count = Field(default=250, description="Interval at which Redis is asked for changes.")
    feature_tier_mb: int = Field(default=64, ge=0, description="Memory for embeddings in this process; 0 for none.")
    redis_url: SecretStr | None = Field(
        default=None, description="URL of the Redis that holds embeddings, the journal, histories or several of them."
    )
    redis_username: str | None = Field(default=None, description="Redis user name; overrides the one in the URL.")
    redis_password: SecretStr | None = Field(default=None, description="Redis password; overrides the one in the URL.")
    redis_connections: Count = Field(default=16, description="Most concurrent requests to Redis.")
    api_keys_file: File | None = Field(
        default=None, description="File of the API keys that are accepted (default: no key is required)."
    )
    cors_origins: Origins = Field(
        default=(),
        description="JSON list of the origins whose pages may call the service, or of `*` alone (default: none).",
    )
    admin_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Bearer token for /admin with all rights (default: /admin is disabled without a tokens file).",
    )
    admin_tokens_file: File | None = Field(
        default=None, description="File of named tokens for /admin and their rights (default: none)."
    )
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /admin and /metrics (default: the public port)."
    )
    audit_log: File | None = Field(
        default=None, description="File that records administrative calls and refused credentials (default: none)."
    )
    admin_host: Host = Field(default="127.0.0.1", description="Address of the port of /admin and /metrics.")
    admin_wait_s: Seconds = Field(
        default=45.0, description="Longest wait of a change for another one, and for requests that began before it."
    )
    images_root: File | None = Field(
        default=None, description="Folder of the items' pictures (default: a folder in or beside the bundle)."
    )
    page: bool | None = Field(
        default=None, description="Whether the page at / is served (default: unless API keys are required)."
    )
    bundles_root: File | None = Field(
        default=None,
        description="Folder of the bundles that /admin may load and that are pulled (default: none; with a store, the "
        "user's cache).",
    )
    bundle_store: Store | None = Field(
        default=None,
        description="Store whose bundles /admin may load by hash, or as `latest` (default: VIP5_BUNDLE, if a URL).",
    )
    trusted_keys: File | None = Field(
        default=None, description="File of public keys; only bundles that one of them signed are served (default: any)."
    )
    index_cache: File | None = Field(
        default=None,
        description="Folder of compiled catalogs, or off to compile them at each start (default: in the user's cache).",
    )
    files_check_s: Seconds = Field(
        default=60.0, description="Interval at which the files of served bundles are checked for changes."
    )
    journal: str | None = Field(
        default=None,
        min_length=1,
        description="File that keeps changes, or `redis` (default: a file beside the bundle).",
    )
    service_id: str = Field(
        default="vip5",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the journal and of the histories in Redis, which replicas share.",
    )
    traces_endpoint: str | None = Field(
        default=None, pattern=r"^https?://", description="URL to send spans to, by OTLP over HTTP (default: no traces)."
    )
    traces_sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="Share of requests traced, unless the caller decides."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )

    @property
    def request_limits(self) -> RequestLimits:
        return RequestLimits(
            max_body_bytes=self.max_body_bytes,
            max_history=self.max_history,
            max_candidates=self.max_candidates,
            max_tokens=self.max_request_tokens,
            default_deadline_s=self.default_deadline_ms / 1000,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        return ConnectionLimits(self.receive_s, self.send_s, self.keep_alive_s, self.connection_max_age_s)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port, self.unix_socket, int(self.unix_socket_mode, 8))

    @property
    def proxy_options(self) -> ProxyOptions:
        return ProxyOptions(self.trusted_proxies, self.root_path, self.allowed_hosts)

    @property
    def queue_limits(self) -> QueueLimits:
        return QueueLimits(
            max_waiting=self.max_waiting,
            max_batch_rows=self.max_batch_rows,
            max_batch_tokens=self.max_batch_tokens,
        )

    @property
    def index_folder(self) -> Path | None:
        """Where indexes of catalogs are kept; None if they are not."""
        if self.index_cache == Path(NO_INDEX_CACHE):
            return None
        return self.index_cache or usual_folder()

    @property
    def reduction_options(self) -> ReductionOptions | None:
        if self.min_beams is None or self.beam_table is None:
            return None
        return ReductionOptions(min_beams=self.min_beams, table=self.beam_table)

    @property
    def feature_options(self) -> FeatureOptions:
        return FeatureOptions(
            redis=self._redis_address() if self.feature_store == "redis" else None,
            timeout_s=self.feature_timeout_ms / 1000,
            refresh_s=self.feature_refresh_ms / 1000,
            max_concurrent=self.redis_connections,
            tier_bytes=self.feature_tier_mb * 1_000_000,
            has_last_resort=self.feature_fallback == "embedded",
            signing=self.signing,
        )

    @property
    def admin_options(self) -> AdminOptions:
        token = None if self.admin_token is None else self.admin_token.get_secret_value()
        endpoint = None if self.admin_port is None else Endpoint(self.admin_host, self.admin_port)
        return AdminOptions(
            token=token,
            tokens_file=self.admin_tokens_file,
            wait_s=self.admin_wait_s,
            endpoint=endpoint,
            bundles_root=self.bundles_root if self.bundle_store is None else self.pulled_bundles,
            bundle_store=None if self.bundle_store is None else StorePlace.parse(self.bundle_store),
        )

    @property
    def pulled_bundles(self) -> Path:
        """The folder that bundles are pulled into."""
        root = self.bundles_root or user_cache("bundles")
        return Path("bundles") if root is None else root

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """Folders of files that messages name, none of which is a client's business."""
        files = (self.bundle, self.api_keys_file, self.journal_options.path, self.beam_table, self.graph_buckets)
        more = (self.trusted_keys, self.history_options.path)
        folders = [file.parent for file in (*files, *more) if file is not None]
        roots = [each for each in (self.images_root, self.admin_options.bundles_root) if each is not None]
        return (*folders, self.bundle, *roots)

    @property
    def has_page(self) -> bool:
        return self.api_keys_file is None if self.page is None else self.page

    @property
    def example_requests(self) -> Path:
        """A file beside the bundle, which need not exist."""
        bundle = self.bundle.resolve()
        return bundle.with_name(f"{bundle.name}-requests.jsonl")

    @property
    def journal_options(self) -> JournalOptions:
        bundle = self.bundle.resolve()
        beside = bundle.with_name(f"{bundle.name}.journal.jsonl")
        return JournalOptions(
            redis=self._redis_address() if self.journal == REDIS else None,
            service_id=self.service_id,
            path=beside if self.journal is None else Path(self.journal),
            is_wanted=self.admin_options.is_enabled or self.journal is not None,
            is_written=self.admin_options.is_enabled,
            signing=self.signing,
        )

    @property
    def history_options(self) -> HistoryOptions:
        bundle = self.bundle.resolve()
        return HistoryOptions(
            store=self.history_store,
            redis=self._redis_address() if self.history_store == "redis" else None,
            service_id=self.service_id,
            path=bundle.with_name(f"{bundle.name}.histories.jsonl") if self.history_file is None else self.history_file,
            max_events=self.history_events,
            lifetime_s=self.history_days * DAY_S,
            max_users=self.history_users,
            half_life_s=self.popularity_half_life_days * DAY_S,
            timeout_s=self.history_timeout_ms / 1000,
            max_concurrent=self.redis_connections,
        )

    @property
    def trace_options(self) -> TraceOptions:
        return TraceOptions(endpoint=self.traces_endpoint, sample_ratio=self.traces_sample_ratio)

    @model_validator(mode="after")
    def _check_beams(self) -> Self:
        if (self.min_beams is None) != (self.beam_table is None):
            raise ValueError(
                f"{PREFIX}MIN_BEAMS and {PREFIX}BEAM_TABLE go together, the minimum beam width and the measured cost "
                "of each width; set both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _check_redis(self) -> Self:
        try:
            self._redis_address()
        except RedisAddressError as error:
            raise ValueError(f"setting redis_url ({PREFIX}REDIS_URL) is not valid: {error}") from error
        return self

    def _redis_address(self) -> RedisAddress | None:
        users = (
            ("FEATURE_STORE", self.feature_store),
            ("JOURNAL", self.journal),
            ("HISTORY_STORE", self.history_store),
        )
        if any(value == REDIS for _, value in users) != (self.redis_url is not None):
            pairs = [f"{PREFIX}{name}=redis and {PREFIX}REDIS_URL" for name, _ in users]
            raise RedisAddressError(
                f"{pairs[0]} go together, and so do {', and '.join(pairs[1:])}; set both, or neither"
            )
        if self.redis_url is None:
            return None
        password = None if self.redis_password is None else self.redis_password.get_secret_value()
        return RedisAddress.parse(self.redis_url.get_secret_value(), self.redis_username, password)
