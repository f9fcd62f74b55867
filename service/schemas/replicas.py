"""Answer of GET /admin/replicas."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from service.schemas import examples
from service.schemas.base import AnswerBody


class ReplicaBody(AnswerBody):
    """One replica of the service."""

    id: str = Field(description="Its identity, new at each start.")
    name: str = Field(description="VIP5_REPLICA_NAME, or host name and process id.")
    host: str = Field(description="Its host's name.")
    pid: int = Field(description="Its process id on that host; with workers, that of the engine's process.")
    release: str = Field(description="Its release of the service.")
    started_at: str = Field(description="When it started, in UTC.")
    is_self: bool = Field(description="Whether it is the replica that answers.")
    state: str = Field(
        description="`serving` (all that the journal holds), `loading` (what others have changed), `behind`, `failed` "
        "(the next change may help) or `lost` (its lease has ended)."
    )
    reason: str | None = Field(description="Why it does not serve the journal as it is; null if it does.")
    behind_since: str | None = Field(description="Since when it does not, in UTC; null if it does.")
    heartbeat_age_s: float = Field(description="Seconds since it was last heard of.")
    revisions: dict[str, int] = Field(
        description="By domain, the last revision of the journal that all its answers are from; 0 is left out."
    )


class ReplicasAnswer(AnswerBody):
    """All replicas that are known, the lost ones too."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REPLICAS_ANSWER]})

    replicas: list[ReplicaBody] = Field(description="This one first, the others by name.")
    revisions: dict[str, int] = Field(
        description="By domain, the last revision in the journal as this replica read it."
    )
    lease_s: float = Field(description="A replica is lost when it was not heard of for so many seconds.")
    problem: str | None = Field(description="Why other replicas may be missing from the list; null if none is.")
