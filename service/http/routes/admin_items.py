"""/admin: changes items of a domain, their embeddings and boosts."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Response

from model.errors import InputError
from model.planning.boosts import NO_FACTORS, BoostFactors
from service.http.admin_route import (
    BODILESS_CHANGE_ERRORS,
    CHANGE_ERRORS,
    DOMAIN,
    WAITS,
    Admin,
    admin_router,
)
from service.http.dependencies import DomainPath
from service.http.openapi import problems
from service.schemas.admin import (
    BoostsAnswer,
    BoostsRequest,
    CatalogAnswer,
    CatalogRequest,
    ConditionalRequest,
    FeaturesRequest,
)
from service.versions.administration import Administration
from service.versions.item_changes import Precondition

MAX_DIGITS = 18

router = admin_router()


def revision_of(
    if_match: Annotated[
        str | None,
        Header(max_length=64, description="The ETag of an earlier answer: change the catalog only at this revision."),
    ] = None,
) -> int | None:
    """The revision in the If-Match header. Raises InputError."""
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
        raise InputError(f'If-Match is {if_match!r}; send the ETag of an earlier answer, such as "7"', field="if-match")
    return int(digits)


IfMatch = Annotated[int | None, Depends(revision_of)]


@router.patch(DOMAIN + "/catalog", responses=CHANGE_ERRORS, dependencies=WAITS, response_model_exclude_none=True)
async def change_catalog(
    name: DomainPath, body: CatalogRequest, admin: Admin, if_match: IfMatch, response: Response
) -> CatalogAnswer:
    """Deactivate, activate, change and add items. No later answer uses the catalog before the change."""
    made = await admin.items.change_catalog(name, body.changes, _precondition(body, if_match), body.embeddings)
    answer = _catalog_answer(name, made.revision, response)
    return answer.model_copy(update={"indices": dict(made.indices)}) if made.indices else answer


@router.put(DOMAIN + "/features", responses=CHANGE_ERRORS, dependencies=WAITS, response_model_exclude_none=True)
async def put_features(
    name: DomainPath, body: FeaturesRequest, admin: Admin, if_match: IfMatch, response: Response
) -> CatalogAnswer:
    """Put embeddings of items, which override the bundle's."""
    revision = await admin.items.put_features(name, body.rows, _precondition(body, if_match))
    return _catalog_answer(name, revision, response)


@router.get(DOMAIN + "/boosts", responses=problems(404, 422))
async def show_boosts(name: DomainPath, admin: Admin, response: Response) -> BoostsAnswer:
    """The domain's boosts. The ETag is the revision of its catalog."""
    admin.replica.require(name)
    return _boosts_answer(admin, name, response)


@router.put(DOMAIN + "/boosts", responses=CHANGE_ERRORS, dependencies=WAITS)
async def put_boosts(
    name: DomainPath, body: BoostsRequest, admin: Admin, if_match: IfMatch, response: Response
) -> BoostsAnswer:
    """Replace the domain's boosts, which apply to all requests that do not decline them."""
    await admin.items.put_boosts(name, BoostFactors(body.columns, body.items), _precondition(body, if_match))
    return _boosts_answer(admin, name, response)


@router.delete(DOMAIN + "/boosts", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def delete_boosts(name: DomainPath, admin: Admin, if_match: IfMatch, response: Response) -> BoostsAnswer:
    """Remove the domain's boosts."""
    await admin.items.put_boosts(name, NO_FACTORS, Precondition(if_match))
    return _boosts_answer(admin, name, response)


def _precondition(body: ConditionalRequest, if_match: int | None) -> Precondition:
    """The caller's precondition, from the body or the If-Match header."""
    revision = if_match if body.expected_revision is None else body.expected_revision
    return Precondition(revision, body.idempotency_key)


def _catalog_answer(name: str, revision: int, response: Response) -> CatalogAnswer:
    response.headers["ETag"] = f'"{revision}"'
    return CatalogAnswer(domain=name, catalog_revision=revision)


def _boosts_answer(administration: Administration, name: str, response: Response) -> BoostsAnswer:
    state = administration.replica.state(name)
    response.headers["ETag"] = f'"{state.catalog_revision}"'
    columns = {column: dict(values) for column, values in state.boosts.columns.items()}
    items = dict(state.boosts.items)
    return BoostsAnswer(domain=name, catalog_revision=state.catalog_revision, columns=columns, items=items)
