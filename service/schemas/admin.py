"""Bodies of /admin."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from model.bundle.changes import CatalogChanges, Cell
from service.schemas.base import LARGEST_INT, AnswerBody, DomainName, ItemId, ItemIds, RequestBody
from service.schemas.filters import MOST_VALUES, SCALAR_SCHEMA, Column, scalar_of

BundleName: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
VersionName: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Revision: TypeAlias = Annotated[int, Field(ge=0, le=LARGEST_INT)]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]

_CELL_SCHEMA: dict[str, Any] = {
    "anyOf": [
        *SCALAR_SCHEMA,
        {"type": "array", "items": {"anyOf": SCALAR_SCHEMA}, "maxItems": MOST_VALUES},
        {"type": "null"},
    ]
}


def cell_of(given: object) -> Cell:
    """A value of a catalog. Raises ValueError."""
    if given is None:
        return None
    if isinstance(given, list):
        if len(given) > MOST_VALUES:
            raise ValueError(f"a list holds at most {MOST_VALUES} values, not {len(given)}")
        return [scalar_of(value) for value in given]
    return scalar_of(given)


CellBody: TypeAlias = Annotated[Cell, PlainValidator(cell_of), WithJsonSchema(_CELL_SCHEMA)]
Cells: TypeAlias = Annotated[dict[Column, CellBody], Field(max_length=256)]
Embedding: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=16_384)]


class LoadRequest(RequestBody):
    """Which version to load."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bundle": "summer", "activate": True}]})

    bundle: BundleName = Field(description="Name of the bundle's folder, below the configured one.")
    domain: DomainName | None = Field(default=None, description="Its name in the bundle; left out: the same name.")
    activate: bool = Field(default=False, description="Whether to swap to it as soon as it is loaded.")


class SwapRequest(RequestBody):
    """Which version to make the stable one."""

    version: VersionName | None = Field(default=None, description="Left out: the one that was loaded last and waits.")
    expected: VersionName | None = Field(default=None, description="Refuse unless this is the stable version now.")


class CanaryRequest(RequestBody):
    """Which version a share of the users gets."""

    version: VersionName = Field(description="A loaded version.")
    share: float = Field(gt=0, le=1, description="Share of the users.")
    salt: Key | None = Field(default=None, description="Another one chooses other users; left out: the version.")


class ShadowRequest(RequestBody):
    """Which version answers along, unseen."""

    version: VersionName = Field(description="A loaded version.")


class ConditionalRequest(RequestBody):
    """A change of the catalog."""

    expected_revision: Revision | None = Field(
        default=None, description="Refuse unless the catalog is at this revision; the header If-Match says the same."
    )
    idempotency_key: Key | None = Field(default=None, description="A change with the same key is made once only.")


class CatalogRequest(ConditionalRequest):
    """Changes of items, all of which are made, or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"deactivate": ["toy-0001"], "activate": ["toy-0002"]}]})

    deactivate: ItemIds = Field(default=[], description="Items that may not be recommended from now on.")
    activate: ItemIds = Field(default=[], description="Items that may be recommended again.")
    set: Annotated[dict[ItemId, Cells], Field(max_length=10_000)] = Field(
        default={}, description="Columns to change, by item: title, image, category and any other but the identifiers."
    )
    add: Annotated[list[Cells], Field(max_length=10_000)] = Field(
        default=[], description="New items, with at least `item_id` and `index`."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = sorted(set(self.activate) & set(self.deactivate))
        if both:
            raise ValueError(f"activate and deactivate both name {both[0]!r}; say one of them")
        if not (self.deactivate or self.activate or self.set or self.add):
            raise ValueError("nothing is to be changed; give deactivate, activate, set or add")
        return self

    @property
    def changes(self) -> CatalogChanges:
        active = dict.fromkeys(self.activate, True) | dict.fromkeys(self.deactivate, False)
        return CatalogChanges(active=active, values=self.set, added=tuple(self.add))


class FeaturesRequest(ConditionalRequest):
    """Embeddings of items."""

    features: Annotated[dict[ItemId, Embedding], Field(min_length=1, max_length=10_000)] = Field(
        description="By item, as wide as the domain's encoder makes them."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for item_id, row in self.rows.items():
            if not np.isfinite(row).all():
                raise ValueError(f"the embedding of {item_id!r} has values beyond those of single precision")
        return self

    @property
    def rows(self) -> dict[str, NDArray[np.float32]]:
        with np.errstate(over="ignore"):
            return {item_id: np.asarray(row, dtype=np.float32) for item_id, row in self.features.items()}


class VersionBody(AnswerBody):
    """A version that is loaded."""

    version: str = Field(description="Names it in other requests and in the metrics.")
    roles: list[str] = Field(description="`stable`, `previous`, `loaded` (waits for a role), `canary`, `shadow`.")
    bundle: str = Field(description="Hash of the bundle.")
    bundle_name: str | None = Field(description="Name of the bundle; null for the service's own.")
    domain: str = Field(description="The domain's name in the bundle.")
    num_items: int = Field(description="Items in its catalog, inactive ones included.")
    num_active_items: int = Field(description="Items that may be recommended.")
    slot: int = Field(description="Its place in the engine.")
    num_requests: int = Field(description="Requests that hold on to it.")


class CanaryBody(AnswerBody):
    """Who gets the canary."""

    share: float = Field(description="Share of the users.")
    salt: str = Field(description="Chooses the users.")


class AdminDomainBody(AnswerBody):
    """The versions of a domain."""

    name: str = Field(description="Its name.")
    catalog_revision: int = Field(description="How often the catalog or its embeddings have been changed.")
    versions: list[VersionBody] = Field(description="All that are loaded.")
    canary: CanaryBody | None = Field(description="Null where there is none.")
    is_loading: bool = Field(description="Whether another version is being loaded.")


class JournalBody(AnswerBody):
    """Where changes are kept."""

    kind: str = Field(description="`file`, `redis` or `none`.")
    problems: list[str] = Field(description="What is wrong with it, or not served as it says.")


class AdminDomainsAnswer(AnswerBody):
    """All that can be changed."""

    domains: list[AdminDomainBody] = Field(description="In the order of their names.")
    journal: JournalBody = Field(description="Where changes are kept.")
    num_slots: int = Field(description="Places of the engine that are taken.")


class CatalogAnswer(AnswerBody):
    """A change of the catalog was made; no answer that comes from now on is older than it."""

    domain: str = Field(description="The domain's name.")
    catalog_revision: int = Field(description="The revision that the change led to.")


class DrainAnswer(AnswerBody):
    """No new request is taken."""

    status: str = Field(description="`draining`.")
