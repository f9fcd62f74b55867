"""What the application on Ray Serve is built from: the `args` of its entry in a Serve config."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.versions.state import OWN_BUNDLE

DomainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DomainPlace(_Options):
    """Where a domain is found."""

    bundle: str = Field(
        default=OWN_BUNDLE,
        description="Hash of a bundle in VIP5_BUNDLE_STORE, or name of a folder below VIP5_BUNDLES_ROOT (default: the "
        "bundle that the service starts with).",
    )
    domain: str | None = Field(default=None, description="Its name in that bundle (default: the same name).")


class Scaling(_Options):
    """How many replicas there are."""

    min_replicas: int = Field(default=1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(
        default=8, gt=0, description="Requests at once that a replica should have; with more, replicas are added."
    )
    upscale_delay_s: float = Field(default=10, ge=0, description="How long there have to be more.")
    downscale_delay_s: float = Field(default=300, ge=0, description="How long there have to be fewer.")
    look_back_s: float = Field(default=30, gt=0, description="Time over which requests at once are averaged.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, more than max_replicas, {self.max_replicas}; raise max_replicas"
            )
        return self


class ReplicaOptions(_Options):
    """What a replica is made of; a change of it replaces replicas one by one."""

    settings: dict[str, object] = Field(
        default={}, description="Settings by name, such as `bundle`; they win over the variables VIP5_… of the nodes."
    )
    num_cpus: float = Field(default=1, gt=0, description="CPUs of a replica; num_threads is as many by default.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs of a replica; with some, the model runs on `cuda`.")
    domains_per_replica: int | None = Field(
        default=None,
        ge=1,
        description="Most domains that a replica holds at once (default: it holds all of its bundle, and no others).",
    )
    load_s: float = Field(
        default=10, gt=0, description="How long a request waits for its domain to be loaded before it is refused."
    )


class ApplicationOptions(ReplicaOptions):
    """The whole application."""

    scaling: Scaling = Scaling()
    ingress_scaling: Scaling = Scaling(target_ongoing_requests=32)
    ingress_cpus: float = Field(default=0.5, gt=0, description="CPUs of a replica of the ingress.")
    max_ongoing_requests: int = Field(
        default=64, ge=1, description="Most requests at once in a replica; with more, a domain gets another replica."
    )
    max_queued_requests: int = Field(
        default=256, ge=1, description="Most requests that wait in an ingress for a replica; more are refused."
    )
    domains: dict[DomainName, DomainPlace] = Field(
        default={},
        description="All domains, with domains_per_replica. Changed here, they replace the replicas; changed in the "
        "`user_config` of both deployments, `replica` and `ingress`, they do not.",
    )

    @model_validator(mode="after")
    def _check_domains(self) -> Self:
        if self.domains and self.domains_per_replica is None:
            raise ValueError("domains are given without domains_per_replica; say how many a replica holds at most")
        return self

    @property
    def replica(self) -> ReplicaOptions:
        return ReplicaOptions(**{name: getattr(self, name) for name in ReplicaOptions.model_fields})
