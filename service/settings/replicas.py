"""What a replica tells the others, and when it stops answering because it does not hear of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.settings.fields import Seconds
from service.settings.histories import HistorySettings
from service.settings.options import ReplicaOptions


class ReplicaSettings(HistorySettings):
    """The part of the settings that is about replicas with a journal in Redis."""

    replica_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._:/-]{1,128}$",
        description="Name of this replica in /admin/replicas (default: host name and process id).",
    )
    replica_lease_s: Annotated[float, Field(ge=1, le=600)] = Field(
        default=10.0,
        description="Changes that wait for all replicas wait so long for one that is not heard of; equal for all.",
    )
    max_lag_s: Seconds | None = Field(
        default=None,
        description="Time after which a replica that cannot follow the journal in Redis is not ready (default: it "
        "stays ready).",
    )

    @property
    def replica_options(self) -> ReplicaOptions:
        return ReplicaOptions(self.replica_name, self.replica_lease_s, self.max_lag_s)
