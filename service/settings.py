"""Settings of the service, read once at the start from the variables whose names start with VIP5_.

Facts about a model live in its bundle, never here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "VIP5_"

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(Exception):
    """A setting that is unknown or has a bad value; the service does not start."""


@dataclass(frozen=True)
class RequestLimits:
    """How large a request may be, beyond what the schemas fix."""

    max_body_bytes: int
    max_history: int
    max_candidates: int
    default_deadline_s: float


@dataclass(frozen=True)
class QueueLimits:
    """How much a lane may hold, and how much of it one batch may take."""

    max_waiting: int
    max_batch_rows: int
    max_batch_tokens: int


class Settings(BaseSettings):
    """Everything that an operator may choose."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundle: Path = Field(description="The bundle to serve.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where the model runs.")
    num_threads: Count | None = Field(default=None, description="CPU threads of the model; left out: all cores.")
    max_body_bytes: Count = Field(default=1_048_576, description="Longest request body.")
    max_history: Count = Field(default=1_000, description="Most items in a history.")
    max_candidates: Count = Field(default=1_000, description="Most candidates of one request.")
    default_deadline_ms: Count = Field(default=30_000, description="Deadline of a request that names none.")
    max_waiting: Count = Field(default=256, description="Most requests waiting in each lane; more are refused.")
    max_batch_rows: Count = Field(default=64, description="Most prompts in one batch.")
    max_batch_tokens: Count = Field(default=16_384, description="Most tokens in one batch, padding included.")
    drain_s: Seconds = Field(default=30.0, description="Longest wait for running requests at the end.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    @property
    def request_limits(self) -> RequestLimits:
        return RequestLimits(
            max_body_bytes=self.max_body_bytes,
            max_history=self.max_history,
            max_candidates=self.max_candidates,
            default_deadline_s=self.default_deadline_ms / 1000,
        )

    @property
    def queue_limits(self) -> QueueLimits:
        return QueueLimits(
            max_waiting=self.max_waiting,
            max_batch_rows=self.max_batch_rows,
            max_batch_tokens=self.max_batch_tokens,
        )


def load_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the environment; `overrides` (the command line's options, None for not given) win over it.

    Raises SettingsError naming each unknown variable, missing setting and bad value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: remove it or take one of {', '.join(sorted(known))}"
        )
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks what the types cannot
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_line(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
        ) from error


def _line(location: tuple[int | str, ...], message: str, value: object) -> str:
    name = ".".join(map(str, location))
    if message == "Field required":
        return f"setting {name} is missing: give --{name.replace('_', '-')} or set {PREFIX}{name.upper()}"
    return f"setting {name} ({PREFIX}{name.upper()}) is {value!r}: {message}"
