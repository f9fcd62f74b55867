"""Settings of the service, read once at the start from variables whose names start with VIP5_.

Facts about a model belong in its bundle, never here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from limits import parse_many
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feature_cache.errors import RedisAddressError
from feature_cache.remote.address import RedisAddress
from feature_cache.signing import MIN_SECRET, Signing
from model.bundle.index.folder import usual_folder
from model.engine.names import EngineName
from service.origins import origins_of

PREFIX = "VIP5_"
REDIS_JOURNAL = "redis"
NO_INDEX_CACHE = "off"
UNIX_PEER = "unix"
"""Stands for the clients of a Unix socket, which have no address."""
ROOT_PATH_PATTERN = r"^(/[A-Za-z0-9._~-]+)+$"
OWN_PATHS = frozenset(
    {"admin", "docs", "domains", "explain", "health", "metrics", "openapi.json", "page", "recommend", "status", "v2"}
)
HOST_PATTERN = r"^(\*\.)?[A-Za-z0-9:._-]+$"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _read_list(value: object) -> object:
    """A list from the environment, which is written as JSON."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ValueError('write a JSON list of texts, such as ["a", "b"]')  # noqa: TRY004  # as pydantic wants it
    return found


S = TypeVar("S", bound=BaseSettings)
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_list)]


class SettingsError(Exception):
    """An unknown setting, or one with a bad value; the service does not start."""


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
class AdminOptions:
    """Who may change what is served and where, which folder holds the bundles, and how long a change may wait."""

    token: str | None
    tokens_file: Path | None
    wait_s: float
    endpoint: Endpoint | None
    bundles_root: Path | None

    @property
    def is_enabled(self) -> bool:
        return self.token is not None or self.tokens_file is not None


@dataclass(frozen=True)
class TraceOptions:
    """Where spans are sent, and the share of requests traced; without an endpoint, none are."""

    endpoint: str | None
    sample_ratio: float


SIGNING_SECRETS = ("signing_secret", "signing_secret_other")
SECRETS = ("admin_token", "redis_url", "redis_password", *SIGNING_SECRETS)
"""Settings that may also be given by a file, named in the variable with `_FILE` at its end."""


class SigningSettings(BaseSettings):
    """What signs the data in Redis, for the service and for commands."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    signing_secret: SecretStr | None = Field(
        default=None,
        min_length=MIN_SECRET,
        repr=False,
        description="Secret that signs embeddings and the journal in Redis (default: they are not signed).",
    )
    signing_secret_other: SecretStr | None = Field(
        default=None,
        min_length=MIN_SECRET,
        repr=False,
        description="Another secret whose signatures are accepted, while the secret is changed (default: none).",
    )
    signing_accepts_unsigned: bool = Field(
        default=False, description="Whether unsigned data in Redis is accepted, while signing is introduced."
    )

    @property
    def signing(self) -> Signing | None:
        if self.signing_secret is None:
            return None
        other = None if self.signing_secret_other is None else self.signing_secret_other.get_secret_value()
        return Signing(self.signing_secret.get_secret_value(), other, self.signing_accepts_unsigned)

    @model_validator(mode="after")
    def _check_signing(self) -> Self:
        if self.signing_secret is None and (self.signing_secret_other is not None or self.signing_accepts_unsigned):
            raise ValueError(
                f"{PREFIX}SIGNING_SECRET_OTHER and {PREFIX}SIGNING_ACCEPTS_UNSIGNED have no effect without "
                f"{PREFIX}SIGNING_SECRET; set it, or remove them"
            )
        return self


class Settings(SigningSettings):
    """Everything that an operator can configure."""

    bundle: Path = Field(description="The bundle to serve.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    unix_socket: Path | None = Field(
        default=None, description="Unix socket to listen on instead of host and port (default: none)."
    )
    unix_socket_mode: str = Field(
        default="660", pattern=r"^0?[0-7]{3}$", description="Permissions of the Unix socket, in octal."
    )
    root_path: str = Field(
        default="", description="Path under which a proxy serves the service, such as /recommender (default: none)."
    )
    trusted_proxies: Texts = Field(
        default=(), description="Addresses and networks whose X-Forwarded-* headers count, as a JSON list."
    )
    allowed_hosts: Texts | None = Field(
        default=None, description="Names of the service in requests, as a JSON list (default: any name)."
    )
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where the model runs.")
    engine: EngineName = Field(
        default="auto",
        description="What computes the model; auto takes onnx on a CPU, graphs-tfloat32 on CUDA.",
    )
    graph_buckets: Path | None = Field(
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
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        default=0,
        description="Processes that speak HTTP for the engine; 0: the engine's process does so itself; `auto`: by the "
        "number of cores.",
    )
    worker_ack_s: Seconds = Field(
        default=10.0, description="A worker that does not follow a change for this long, or hangs, is replaced."
    )
    drain_s: Seconds = Field(default=30.0, description="Longest wait for running requests at shutdown.")
    rate_limit: str | None = Field(
        default=None, description="Most requests of one client, such as 100/second (default: no limit)."
    )
    min_beams: Count | None = Field(
        default=None, description="Minimum beam width under load (default: beams are not reduced)."
    )
    beam_table: Path | None = Field(
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
        default=None, description="URL of the Redis that holds embeddings, the journal or both."
    )
    redis_username: str | None = Field(default=None, description="Redis user name; overrides the one in the URL.")
    redis_password: SecretStr | None = Field(default=None, description="Redis password; overrides the one in the URL.")
    redis_connections: Count = Field(default=16, description="Most concurrent requests to Redis.")
    api_keys_file: Path | None = Field(
        default=None, description="File of the API keys that are accepted (default: no key is required)."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="JSON list of the origins whose pages may call the service, or of `*` alone (default: none).",
    )
    admin_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Bearer token for /admin with all rights (default: /admin is disabled without a tokens file).",
    )
    admin_tokens_file: Path | None = Field(
        default=None, description="File of named tokens for /admin and their rights (default: none)."
    )
    admin_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of /admin and /metrics (default: the public port)."
    )
    audit_log: Path | None = Field(
        default=None, description="File that records administrative calls and refused credentials (default: none)."
    )
    admin_host: str = Field(default="127.0.0.1", description="Address of the port of /admin and /metrics.")
    admin_wait_s: Seconds = Field(
        default=45.0, description="Longest wait of a change for another one, and for requests that began before it."
    )
    images_root: Path | None = Field(
        default=None, description="Folder of the items' pictures (default: a folder in or beside the bundle)."
    )
    page: bool | None = Field(
        default=None, description="Whether the page at / is served (default: unless API keys are required)."
    )
    bundles_root: Path | None = Field(default=None, description="Folder of the bundles that /admin may load.")
    trusted_keys: Path | None = Field(
        default=None, description="File of public keys; only bundles that one of them signed are served (default: any)."
    )
    index_cache: Path | None = Field(
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
        description="Name of the journal in Redis, which replicas share.",
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
            bundles_root=self.bundles_root,
        )

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """Folders of files that messages name, none of which is a client's business."""
        files = (self.bundle, self.api_keys_file, self.journal_options.path, self.beam_table, self.graph_buckets)
        folders = [file.parent for file in (*files, self.trusted_keys) if file is not None]
        roots = [each for each in (self.images_root,) if each is not None]
        return (*folders, self.bundle, *roots, *(() if self.bundles_root is None else (self.bundles_root,)))

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
            redis=self._redis_address() if self.journal == REDIS_JOURNAL else None,
            service_id=self.service_id,
            path=beside if self.journal is None else Path(self.journal),
            is_wanted=self.admin_options.is_enabled or self.journal is not None,
            is_written=self.admin_options.is_enabled,
            signing=self.signing,
        )

    @property
    def trace_options(self) -> TraceOptions:
        return TraceOptions(endpoint=self.traces_endpoint, sample_ratio=self.traces_sample_ratio)

    @field_validator("host", "admin_host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        if not host:
            raise ValueError("an address is missing; use 127.0.0.1, or 0.0.0.0 or :: for all interfaces")
        return host.removeprefix("[").removesuffix("]")

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and re.fullmatch(ROOT_PATH_PATTERN, path) is None:
            raise ValueError(f"{path!r} is not a plain path; write it like /recommender")
        if path.split("/")[1:2] and path.split("/")[1] in OWN_PATHS:
            raise ValueError(f"{path!r} begins like a path of the service itself; choose another first part")
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            try:
                _ = each == UNIX_PEER or ip_network(each, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"{each!r} is not an address; write addresses, networks such as 10.0.0.0/8, or {UNIX_PEER!r} for "
                    "the clients of the Unix socket"
                ) from error
        return proxies

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for each in hosts or ():
            if re.fullmatch(HOST_PATTERN, each) is None:
                raise ValueError(f"{each!r} is not a host name; write names without a port, or *.example.org")
        return hosts

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, limits: str | None) -> str | None:
        if limits is None:
            return None
        try:
            parse_many(limits)
        except ValueError as error:
            raise ValueError(
                f"{limits!r} is not a rate limit; write a number per unit of time, such as 100/second, or several "
                "separated by ;"
            ) from error
        return limits

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _check_cors_origins(cls, given: object) -> object:
        return origins_of(given)

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
        uses_redis = self.feature_store == "redis" or self.journal == REDIS_JOURNAL
        if uses_redis != (self.redis_url is not None):
            raise RedisAddressError(
                f"{PREFIX}FEATURE_STORE=redis and {PREFIX}REDIS_URL go together, and so do {PREFIX}JOURNAL=redis and "
                f"{PREFIX}REDIS_URL; set both, or neither"
            )
        if self.redis_url is None:
            return None
        password = None if self.redis_password is None else self.redis_password.get_secret_value()
        return RedisAddress.parse(self.redis_url.get_secret_value(), self.redis_username, password)


def load_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the environment; `overrides`, a command line's options, take precedence where they are not None.

    Raises SettingsError that names each unknown variable, missing setting and bad value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}: remove it or use one of {', '.join(sorted(known))}")
    given = _secrets_of_files(SECRETS) | {name: value for name, value in (overrides or {}).items() if value is not None}
    return _checked(Settings, given)


def load_signing() -> Signing | None:
    """What signs the data in Redis, from the environment, for commands. Raises SettingsError."""
    return _checked(SigningSettings, _secrets_of_files(SIGNING_SECRETS)).signing


def _checked(kind: type[S], given: Mapping[str, object]) -> S:
    try:
        return kind(**given)  # type: ignore[arg-type]  # pydantic checks what the types cannot
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_line(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
        ) from error


def _secrets_of_files(names: Iterable[str]) -> dict[str, str]:
    """Secrets whose `…_FILE` variable names a file, as container platforms mount them. Raises SettingsError."""
    found = {}
    for name in names:
        variable = f"{PREFIX}{name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if path is None:
            continue
        if variable in os.environ:
            raise SettingsError(f"{variable} and {variable}_FILE are both set; set one of them")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable}_FILE is {path!r}, which cannot be read as text: {error}") from error
    return found


def _line(location: tuple[int | str, ...], message: str, value: object) -> str:
    name = ".".join(map(str, location))
    if not name:  # about several settings, which the message names; the value is all of them, secrets too
        return message.removeprefix("Value error, ")
    if message == "Field required":
        return f"setting {name} is missing: give --{name.replace('_', '-')} or set {PREFIX}{name.upper()}"
    shown = "" if name in SECRETS else f" is {value!r}"
    return f"setting {name} ({PREFIX}{name.upper()}){shown}: {message}"
