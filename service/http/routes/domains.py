"""GET /domains and the paths below it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from model.bundle.catalog import Catalog
from model.bundle.columns import Scalar
from model.errors import InputError
from model.network.config import Task
from model.planning.domain import ServedDomain
from model.prompts.templates import templates_of
from service.http.callers import require_domain
from service.http.dependencies import DomainPath, ItemPath, Trace, known_row, service_of
from service.http.identity import key_of
from service.http.openapi import problems
from service.http.route_classes import BrowseRoute, ItemsRoute, UsersRoute
from service.schemas.base import ItemId
from service.schemas.domains import (
    CatalogItem,
    ColumnBody,
    ColumnsAnswer,
    ColumnValue,
    DomainBody,
    DomainsAnswer,
    EncoderBody,
    ItemsAnswer,
    KnownUser,
    TemplatesBody,
    UsersAnswer,
)
from service.schemas.filters import Where
from service.versions.domain_version import DomainVersion
from service.versions.domains import Serving

MAX_VALUES = 50

router = APIRouter(prefix="/domains", tags=["domains"], route_class=BrowseRoute, responses=problems(500))
items = APIRouter(prefix="/domains", tags=["domains"], route_class=ItemsRoute, responses=problems(404, 422, 429, 500))
users = APIRouter(prefix="/domains", tags=["domains"], route_class=UsersRoute, responses=problems(404, 422, 429, 500))


class Page(BaseModel):
    """Query parameters of a page."""

    model_config = ConfigDict(extra="forbid")

    offset: int = Field(default=0, ge=0, le=2**31 - 1, description="Number of entries to skip.")
    limit: int = Field(default=50, ge=1, le=200, description="Maximum number of entries to return.")
    q: str = Field(default="", max_length=256, description="Only entries that contain this text.")


@router.get("")
async def list_domains(request: Request) -> DomainsAnswer:
    """The served domains that the key may use."""
    key = key_of(request)
    domains = service_of(request).domains
    seen = [name for name in domains.stable if key is None or key.allows_domain(name)]
    return DomainsAnswer(domains=[_domain_body(domains.version(name), domains.serving(name)) for name in seen])


@router.get("/{name}", responses=problems(404))
async def show_domain(name: DomainPath, request: Request, trace: Trace) -> DomainBody:
    """One domain."""
    require_domain(request, name)
    domains = service_of(request).domains
    version = domains.version(name)
    trace.domain = version.domain.name
    return _domain_body(version, domains.serving(name))


class ItemsPage(Page):
    """Query parameters of a page of items."""

    item_id: list[ItemId] = Field(default=[], max_length=200, description="Only these items, as far as they are known.")
    where: str = Field(
        default="",
        max_length=4096,
        description='Only items that match this filter, as JSON in the form of `where`: `{"colour": ["green"]}`.',
    )


_Where = TypeAdapter(Where, config=ConfigDict(strict=True))


@items.get("/{name}/columns")
async def list_columns(name: DomainPath, request: Request, trace: Trace) -> ColumnsAnswer:
    """The columns that `where` can filter by, with their most frequent values."""
    require_domain(request, name)
    domain = service_of(request).domains.domain(name)
    trace.domain = domain.name
    return await asyncio.to_thread(_columns, domain.catalog)


@items.get("/{name}/items")
async def list_items(
    name: DomainPath, page: Annotated[ItemsPage, Query()], request: Request, trace: Trace
) -> ItemsAnswer:
    """A page of the catalog."""
    require_domain(request, name)
    domain = service_of(request).domains.domain(name)
    trace.domain = domain.name
    catalog = domain.catalog
    if page.item_id:
        known = [row for item_id in page.item_id if (row := catalog.row_of(item_id)) is not None]
        shown = known[page.offset : page.offset + page.limit]
        return ItemsAnswer(items=[_item(catalog, row) for row in shown], total=len(known), offset=page.offset)
    # In a thread, because searching a large catalog would block the event loop.
    rows, total = await asyncio.to_thread(catalog.search, page.q, page.offset, page.limit, _where_of(page))
    return ItemsAnswer(items=[_item(catalog, int(row)) for row in rows], total=total, offset=page.offset)


@router.get("/{name}/items/{item_id:path}", responses=problems(404, 422))
async def show_item(name: DomainPath, item_id: ItemPath, request: Request, trace: Trace) -> CatalogItem:
    """One item of the catalog."""
    require_domain(request, name)
    domain = service_of(request).domains.domain(name)
    trace.domain = domain.name
    return _item(domain.catalog, known_row(domain, item_id))


@users.get("/{name}/users")
async def list_users(name: DomainPath, page: Annotated[Page, Query()], request: Request, trace: Trace) -> UsersAnswer:
    """A page of the known users; empty if the bundle has no users table."""
    require_domain(request, name)
    domain = service_of(request).domains.domain(name)
    trace.domain = domain.name
    if domain.users is None:
        return UsersAnswer(users=[], total=0, offset=page.offset)
    found, total = await asyncio.to_thread(domain.users.search, page.q, page.offset, page.limit)
    known = [KnownUser(user_id=user.user_id, name=user.name) for user in found]
    return UsersAnswer(users=known, total=total, offset=page.offset)


def _item(catalog: Catalog, row: int) -> CatalogItem:
    return CatalogItem(
        item_id=catalog.item_ids[row],
        index=catalog.indices[row],
        title=catalog.titles[row],
        image=catalog.images[row],
        is_active=bool(catalog.is_active[row]),
        attributes=catalog.attributes(row),
    )


def _where_of(page: ItemsPage) -> dict[str, tuple[Scalar, ...]] | None:
    if not page.where:
        return None
    try:
        return _Where.validate_json(page.where)
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"]
        raise InputError(
            f'where is not a filter: {reason}; write a JSON object such as {{"colour": ["green"]}}', field="where"
        ) from error


def _columns(catalog: Catalog) -> ColumnsAnswer:
    columns = []
    for name in catalog.attribute_columns:
        values, num_values = catalog.values(name, MAX_VALUES)
        shown = [ColumnValue(value=value, num_items=num_items) for value, num_items in values]
        columns.append(ColumnBody(name=name, values=shown, num_values=num_values))
    return ColumnsAnswer(columns=columns)


def _roles(serving: Serving) -> dict[str, str]:
    """The short names of the versions that answer requests."""
    return {role: ref.version for role, ref in serving.roles.assigned if role in ("stable", "canary")}


def _domain_body(version: DomainVersion, serving: Serving) -> DomainBody:
    domain = version.domain
    spec = domain.spec
    return DomainBody(
        name=domain.name,
        bundle=domain.bundle_hash,
        catalog_revision=version.catalog_revision,
        num_items=len(domain.catalog),
        num_active_items=int(domain.catalog.is_active.sum()),
        num_users=None if domain.users is None else len(domain.users),
        roles=_roles(serving),
        columns=list(domain.catalog.attribute_columns),
        encoder=None if spec.encoder is None else EncoderBody.model_validate(asdict(spec.encoder)),
        visual_tokens=spec.layout.visual_tokens,
        is_trained=spec.trained,
        templates=TemplatesBody(
            sequential=_templates(domain, "sequential"),
            direct=_templates(domain, "direct"),
            explanation=_templates(domain, "explanation"),
        ),
        default_templates={"sequential": spec.prompts.sequential, "direct": spec.prompts.direct},
    )


def _templates(domain: ServedDomain, task: Task) -> list[str]:
    return [template.template_id for template in templates_of(task, domain.templates)]
