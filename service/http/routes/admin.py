"""/admin: changes the served versions and their catalogs.

A change is answered once it is in the journal and applies to every later request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from model.errors import InputError
from service.errors import ClientDisconnectedError, ForbiddenError, UnauthorizedError
from service.http.admin_tokens import Right
from service.http.app_state import state_of
from service.http.auditing import audit_call, audit_refusal
from service.http.dependencies import DomainPath, Trace, service_of
from service.http.json_body import with_json_body
from service.http.openapi import problems
from service.http.problems import trace_of
from service.schemas.admin import (
    AdminDomainBody,
    AdminDomainsAnswer,
    CanaryBody,
    CanaryRequest,
    CatalogAnswer,
    CatalogRequest,
    ConditionalRequest,
    DrainAnswer,
    FeaturesRequest,
    JournalBody,
    LoadRequest,
    ResolveRequest,
    ShadowRequest,
    SwapRequest,
    VersionBody,
)
from service.versions.administration import Administration, Precondition
from service.versions.domains import Serving

MAX_DIGITS = 18


def right_of(path: str, methods: set[str]) -> Right:
    """What a token must be allowed for this path."""
    if methods <= {"GET", "HEAD"}:
        return "read"
    return "catalog" if path.endswith(("/catalog", "/features")) else "roles"


class AdminRoute(APIRoute):
    """A route that checks the admin token and its right before anything else; bodies are JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        right = right_of(self.path, self.methods or set())

        async def check_and_handle(request: Request) -> Response:
            tokens = state_of(request.app).admin_tokens
            assert tokens is not None, "/admin is served only with a token"
            actor: str | None = None
            body = b""
            try:
                token = tokens.check(request.headers.get("authorization", ""))
                actor = trace_of(request).client = token.id
                token.require(right)
                if self.body_field:
                    request = await with_json_body(request)
                    body = await request.body()
                response = await handler(request)
            except (UnauthorizedError, ForbiddenError) as error:
                audit_refusal(request, actor, error)
                raise
            except asyncio.CancelledError:  # the change may have been made
                audit_refusal(request, actor, ClientDisconnectedError("the client closed the connection"))
                raise
            except Exception as error:
                await audit_call(request, actor, body, error)
                raise
            await audit_call(request, actor, body, response.status_code)
            return response

        return check_and_handle


router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False, description="The admin token."))],
    responses=problems(401, 403, 500),
)
DOMAIN = "/domains/{name}"
CHANGE_ERRORS = problems(400, 404, 408, 409, 413, 415, 422, 503, 504)
BODILESS_CHANGE_ERRORS = problems(404, 409, 422, 503, 504)


def administration_of(request: Request, name: DomainPath, trace: Trace) -> Administration:
    trace.domain = name if name in service_of(request).domains.stable else ""
    return service_of(request).administration


Admin = Annotated[Administration, Depends(administration_of)]


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


@router.get("/domains")
async def list_versions(request: Request) -> AdminDomainsAnswer:
    """All versions of all domains, with their roles."""
    service = service_of(request)
    administration = service.administration
    return AdminDomainsAnswer(
        domains=[_domain_body(administration, name, serving) for name, serving in service.domains.items()],
        journal=_journal_body(administration, state_of(request.app).private_paths.hide),
        num_slots=administration.num_slots,
    )


@router.get(DOMAIN, responses=problems(404, 422))
async def show_versions(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """The versions of one domain. The ETag is the revision of its catalog."""
    admin.replica.require(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/load", responses=CHANGE_ERRORS)
async def load_version(name: DomainPath, body: LoadRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Load a version while others are served. It is verified, placed and warmed up when this answers."""
    await admin.load(name, body.bundle, body.domain or name, activates=body.activate)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/load", responses=BODILESS_CHANGE_ERRORS)
async def discard_version(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Discard the version in the role `loaded`."""
    await admin.discard_loaded(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/swap", responses=CHANGE_ERRORS)
async def swap_versions(name: DomainPath, body: SwapRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Make a loaded version the stable one. Running requests complete on their version."""
    await admin.swap(name, body.version, body.expected)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/rollback", responses=BODILESS_CHANGE_ERRORS)
async def roll_back(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Swap back to the previous version."""
    await admin.roll_back(name)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN, status_code=204, responses=BODILESS_CHANGE_ERRORS)
async def unload_domain(name: DomainPath, admin: Admin) -> None:
    """Stop serving a domain."""
    await admin.unload(name)


@router.post(DOMAIN + "/canary", responses=CHANGE_ERRORS)
async def set_canary(name: DomainPath, body: CanaryRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Route a fixed share of the users to a loaded version."""
    await admin.set_canary(name, body.version, body.share, body.salt)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/canary", responses=BODILESS_CHANGE_ERRORS)
async def end_canary(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Route all users to the stable version again."""
    await admin.end_canary(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/canary/promote", responses=BODILESS_CHANGE_ERRORS)
async def promote_canary(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Make the canary the stable version."""
    await admin.promote_canary(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/shadow", responses=CHANGE_ERRORS)
async def set_shadow(name: DomainPath, body: ShadowRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Repeat requests on a loaded version; its answers go to the metrics only."""
    await admin.set_shadow(name, body.version)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/shadow", responses=BODILESS_CHANGE_ERRORS)
async def end_shadow(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Stop repeating requests on the shadow version."""
    await admin.end_shadow(name)
    return _domain_answer(admin, name, response)


@router.patch(DOMAIN + "/catalog", responses=CHANGE_ERRORS)
async def change_catalog(
    name: DomainPath, body: CatalogRequest, admin: Admin, if_match: IfMatch, response: Response
) -> CatalogAnswer:
    """Deactivate, activate, change and add items. No later answer uses the catalog before the change."""
    revision = await admin.change_catalog(name, body.changes, _precondition(body, if_match))
    return _catalog_answer(name, revision, response)


@router.put(DOMAIN + "/features", responses=CHANGE_ERRORS)
async def put_features(
    name: DomainPath, body: FeaturesRequest, admin: Admin, if_match: IfMatch, response: Response
) -> CatalogAnswer:
    """Put embeddings of items, which override the bundle's."""
    revision = await admin.put_features(name, body.rows, _precondition(body, if_match))
    return _catalog_answer(name, revision, response)


@router.post("/journal/resolve", responses=CHANGE_ERRORS)
async def resolve_journal(request: Request, body: ResolveRequest) -> JournalBody:
    """Decide which history all replicas follow, after the journal in Redis was replaced or damaged."""
    administration = service_of(request).administration
    await administration.resolve_journal(body.keep)
    return _journal_body(administration, state_of(request.app).private_paths.hide)


@router.post("/drain")
async def drain(request: Request) -> DrainAnswer:
    """Reject new requests and complete the running ones."""
    state_of(request.app).readiness.drain()
    return DrainAnswer(status="draining")


def _journal_body(administration: Administration, hide: Callable[[str], str]) -> JournalBody:
    journal = administration.replica.journal
    return JournalBody(
        kind=journal.kind,
        problems=[hide(fault) for fault in administration.replica.problems],
        is_broken=journal.is_broken,
        num_unread=journal.num_unread,
    )


def _precondition(body: ConditionalRequest, if_match: int | None) -> Precondition:
    """The caller's precondition, from the body or the If-Match header."""
    revision = if_match if body.expected_revision is None else body.expected_revision
    return Precondition(revision, body.idempotency_key)


def _catalog_answer(name: str, revision: int, response: Response) -> CatalogAnswer:
    response.headers["ETag"] = f'"{revision}"'
    return CatalogAnswer(domain=name, catalog_revision=revision)


def _domain_answer(administration: Administration, name: str, response: Response) -> AdminDomainBody:
    body = _domain_body(administration, name, administration.replica.domains.serving(name))
    response.headers["ETag"] = f'"{body.catalog_revision}"'
    return body


def _domain_body(administration: Administration, name: str, serving: Serving) -> AdminDomainBody:
    canary = serving.roles.canary
    roles_of: dict[str, list[str]] = {}
    for role, ref in serving.roles.assigned:
        roles_of.setdefault(ref.version, []).append(role)
    return AdminDomainBody(
        name=name,
        catalog_revision=administration.replica.state(name).catalog_revision,
        versions=[
            VersionBody(
                version=ref.version,
                roles=roles_of[ref.version],
                bundle=ref.bundle_hash,
                bundle_name=ref.bundle or None,
                domain=ref.domain,
                num_items=len(version.domain.catalog),
                num_active_items=int(version.domain.catalog.is_active.sum()),
                slot=version.placed.slot,
                num_requests=version.placed.references.num_requests,
            )
            for ref, version in serving.versions.items()
        ],
        canary=None if canary is None else CanaryBody(share=canary.share, salt=canary.salt),
        is_loading=administration.is_loading(name),
    )
