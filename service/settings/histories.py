"""What the service keeps of users, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from service.settings.fields import Count, File
from service.settings.signing import SigningSettings

DAY_S = 86_400.0


class HistorySettings(SigningSettings):
    """The part of the settings that is about histories."""

    history_store: Literal["none", "embedded", "redis"] = Field(
        default="none",
        description="Where users' histories are kept: nowhere, in this process and a file, or in Redis.",
    )
    history_file: File | None = Field(
        default=None, description="File of the embedded histories (default: a file beside the bundle)."
    )
    history_events: int = Field(default=100, ge=1, le=10_000, description="Most events kept of a user, the newest.")
    history_days: Annotated[float, Field(gt=0, le=36_500)] = Field(
        default=365.0, description="Days for which an event is kept."
    )
    history_users: Count = Field(
        default=50_000, description="Most users in the embedded histories; those not heard of for longest are dropped."
    )
    history_timeout_ms: Count = Field(default=50, description="Longest wait of a request for a history in Redis.")
    popularity_half_life_days: Annotated[float, Field(ge=0.01, le=3_650)] = Field(
        default=14.0, description="Days after which an event counts half in the popularity of items."
    )
