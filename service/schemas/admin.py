"""Bodies of /admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, WithJsonSchema, model_validator

from model.bundle.changes import CatalogChanges, Cell
from service.schemas import examples
from service.schemas.base import MAX_INT, AnswerBody, DomainName, ItemId, ItemIds, RequestBody
from service.schemas.boosts import FactorsBody
from service.schemas.filters import MAX_VALUES, SCALAR_SCHEMA, Column, scalar_of

BundleName: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
VersionName: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]
Revision: TypeAlias = Annotated[int, Field(ge=0, le=MAX_INT)]
Key: TypeAlias = Annotated[str, Field(min_length=1, max_length=128)]

_CELL_SCHEMA: dict[str, Any] = {
    "anyOf": [
        *SCALAR_SCHEMA,
        {"type": "array", "items": {"anyOf": SCALAR_SCHEMA}, "maxItems": MAX_VALUES},
        {"type": "null"},
    ]
}


def cell_of(given: object) -> Cell:
    """A value in a catalog column. Raises ValueError."""
    if given is None:
        return None
    if isinstance(given, list):
        if len(given) > MAX_VALUES:
            raise ValueError(f"a list may contain at most {MAX_VALUES} values, not {len(given)}")
        return [scalar_of(value) for value in given]
    return scalar_of(given)


CellBody: TypeAlias = Annotated[Cell, PlainValidator(cell_of), WithJsonSchema(_CELL_SCHEMA)]
Cells: TypeAlias = Annotated[dict[Column, CellBody], Field(max_length=256)]
MAX_WIDTH = 16_384
Embedding: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=MAX_WIDTH)]
_CELLS: TypeAdapter[dict[str, Cell]] = TypeAdapter(Cells)


FEATURE = "feature"
"""The key of an added row that has its item's embedding; a column of this name has no lists of numbers."""

_NEW_ITEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "maxProperties": 256,
    "properties": {
        FEATURE: {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": MAX_WIDTH},
                *_CELL_SCHEMA["anyOf"],
            ],
            "description": "The embedding of the item's picture.",
        }
    },
    "additionalProperties": _CELL_SCHEMA,
}


@dataclass(frozen=True)
class NewItem:
    """A row of the catalog, and the embedding [F] that came with it."""

    cells: dict[str, Cell]
    embedding: NDArray[np.float32] | None


def new_item_of(given: object) -> NewItem:
    """An added row. Raises ValueError and ValidationError."""
    if not isinstance(given, dict):
        raise ValueError("a new item must be an object with at least item_id")  # noqa: TRY004 - pydantic's rule
    feature = given.get(FEATURE)
    if not (isinstance(feature, list) and feature and all(type(value) in {int, float} for value in feature)):
        return NewItem(_CELLS.validate_python(given), None)
    cells = _CELLS.validate_python({name: value for name, value in given.items() if name != FEATURE})
    if len(feature) > MAX_WIDTH:
        raise ValueError(f"feature has {len(feature)} numbers; an embedding may have at most {MAX_WIDTH}")
    with np.errstate(over="ignore"):
        embedding = np.asarray([float(value) for value in feature], dtype=np.float32)
    if not np.isfinite(embedding).all():
        raise ValueError("feature contains values outside of the float32 range")
    return NewItem(cells, embedding)


class LoadRequest(RequestBody):
    """The version to load."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.LOAD})

    bundle: BundleName = Field(description="Name of the bundle's folder in the bundles root.")
    domain: DomainName | None = Field(
        default=None, description="The domain's name in the bundle (default: the name in the path)."
    )
    activate: bool = Field(default=False, description="Swap to the version as soon as it is loaded.")


class SwapRequest(RequestBody):
    """The version to make the stable one."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.SWAP})

    version: VersionName | None = Field(
        default=None, description="A loaded version (default: the one in the role `loaded`)."
    )
    expected: VersionName | None = Field(
        default=None, description="Reject the swap unless this is the current stable version."
    )


class CanaryRequest(RequestBody):
    """The canary version and its share of the users."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.CANARY})

    version: VersionName = Field(description="A loaded version.")
    share: float = Field(gt=0, le=1, description="Share of the users who get the canary.")
    salt: Key | None = Field(
        default=None, description="Hash salt that selects the users (default: the version's name)."
    )


class ShadowRequest(RequestBody):
    """The version that requests are repeated on; its answers go to the metrics only."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.SHADOW})

    version: VersionName = Field(description="A loaded version.")


class ConditionalRequest(RequestBody):
    """A change with a precondition."""

    expected_revision: Revision | None = Field(
        default=None,
        description="Reject the change unless the catalog is at this revision; overrides the If-Match header.",
    )
    idempotency_key: Key | None = Field(default=None, description="Changes with the same key are made only once.")


class CatalogRequest(ConditionalRequest):
    """Changes of items, applied atomically."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.CATALOG})

    deactivate: ItemIds = Field(default=[], description="Items to exclude from recommendations.")
    activate: ItemIds = Field(default=[], description="Items to include in recommendations again.")
    set: Annotated[dict[ItemId, Cells], Field(max_length=10_000)] = Field(
        default={}, description="New column values by item; all columns except the identifiers can be changed."
    )
    add: Annotated[
        list[Annotated[NewItem, PlainValidator(new_item_of), WithJsonSchema(_NEW_ITEM_SCHEMA)]],
        Field(max_length=10_000),
    ] = Field(
        default=[],
        description="New items, with at least `item_id`, and `index` in domains without a codebook. `feature` is the "
        "embedding of the item's picture, which is stored with it, and which an index is made from if there is none.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = sorted(set(self.activate) & set(self.deactivate))
        if both:
            raise ValueError(f"{both[0]!r} is in both activate and deactivate; put it in one of them")
        if not (self.deactivate or self.activate or self.set or self.add):
            raise ValueError("the body contains no change; give deactivate, activate, set or add")
        return self

    @property
    def changes(self) -> CatalogChanges:
        active = dict.fromkeys(self.activate, True) | dict.fromkeys(self.deactivate, False)
        return CatalogChanges(active=active, values=self.set, added=tuple(item.cells for item in self.add))

    @property
    def embeddings(self) -> dict[str, NDArray[np.float32]]:
        """Embeddings that came with new items, by item."""
        rows = ((str(item.cells.get("item_id")), item.embedding) for item in self.add)
        return {item_id: embedding for item_id, embedding in rows if embedding is not None}


class FeaturesRequest(ConditionalRequest):
    """Embeddings of items."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.FEATURES})

    features: Annotated[dict[ItemId, Embedding], Field(min_length=1, max_length=10_000)] = Field(
        description="Embeddings by item, with the width of the domain's image encoder."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for item_id, row in self.rows.items():
            if not np.isfinite(row).all():
                raise ValueError(f"the embedding of {item_id!r} contains values outside of the float32 range")
        return self

    @property
    def rows(self) -> dict[str, NDArray[np.float32]]:
        with np.errstate(over="ignore"):
            return {item_id: np.asarray(row, dtype=np.float32) for item_id, row in self.features.items()}


class BoostsRequest(ConditionalRequest, FactorsBody):
    """The domain's boosts, which replace those before."""

    model_config = ConfigDict(json_schema_extra={"examples": examples.BOOSTS})


class ResolveRequest(RequestBody):
    """Which of two histories of the journal goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keep": "served"}]})

    keep: Literal["served", "stored"] = Field(
        description="`served`: what this replica serves is stored, and all replicas follow it; `stored`: all replicas "
        "follow what Redis holds."
    )


class VersionBody(AnswerBody):
    """A loaded version."""

    version: str = Field(description="The version's name in other requests and in metrics.")
    roles: list[str] = Field(description="`stable`, `previous`, `loaded` (serves no requests yet), `canary`, `shadow`.")
    bundle: str = Field(description="Hash of the bundle.")
    bundle_name: str | None = Field(
        description="Name of the bundle's folder; null for the bundle that the service was started with."
    )
    domain: str = Field(description="The domain's name in the bundle.")
    num_items: int = Field(description="Items in its catalog, including inactive ones.")
    num_active_items: int = Field(description="Items that may be recommended.")
    slot: int = Field(description="Its slot in the engine.")
    num_requests: int = Field(description="Running requests that use it.")


class BoostCounts(AnswerBody):
    """How many boosts a domain has; GET /admin/domains/{name}/boosts lists them."""

    num_values: int = Field(description="Values of columns with a factor.")
    num_items: int = Field(description="Items with a factor of their own.")


class CanaryBody(AnswerBody):
    """The canary's share of the users."""

    share: float = Field(description="Share of the users who get the canary.")
    salt: str = Field(description="Hash salt that selects the users.")


class AdminDomainBody(AnswerBody):
    """The versions of a domain."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ADMIN_DOMAIN_ANSWER]})

    name: str = Field(description="The domain's name.")
    catalog_revision: int = Field(description="Number of changes made to the catalog and its embeddings.")
    boosts: BoostCounts = Field(description="The domain's boosts.")
    versions: list[VersionBody] = Field(description="The loaded versions.")
    canary: CanaryBody | None = Field(description="The canary's share of the users; null if there is no canary.")
    is_loading: bool = Field(description="Whether another version is being loaded.")


class JournalBody(AnswerBody):
    """The journal of changes."""

    kind: str = Field(description="`file`, `redis` or `none`.")
    problems: list[str] = Field(description="Faults of the journal, and domains that are not served as it says.")
    is_broken: bool = Field(
        description="Whether changes are refused because the journal is another one, damaged or incomplete."
    )
    num_unread: int = Field(description="Entries that this release cannot read; they are kept and not served.")


class AdminDomainsAnswer(AnswerBody):
    """All domains, the journal and the engine's slots."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ADMIN_DOMAINS_ANSWER]})

    domains: list[AdminDomainBody] = Field(description="Sorted by name.")
    journal: JournalBody = Field(description="The journal of changes.")
    num_slots: int = Field(description="Allocated slots of the engine.")


class CatalogAnswer(AnswerBody):
    """A completed change of the catalog; no later answer uses the catalog before it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CATALOG_ANSWER]})

    domain: str = Field(description="The domain's name.")
    catalog_revision: int = Field(description="The catalog's revision after the change.")
    indices: dict[str, str] | None = Field(
        default=None, description="The identifiers that were chosen for added rows without index, by item."
    )


class BoostsAnswer(AnswerBody):
    """The domain's boosts; no later answer uses those before them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BOOSTS_ANSWER]})

    domain: str = Field(description="The domain's name.")
    catalog_revision: int = Field(description="The catalog's revision, which changes of boosts raise too.")
    columns: dict[str, dict[str, float]] = Field(description="Factors by column and value.")
    items: dict[str, float] = Field(description="Factors by item.")


class DrainAnswer(AnswerBody):
    """The service rejects new requests."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DRAIN_ANSWER]})

    status: str = Field(description="`draining`.")
