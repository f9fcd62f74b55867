"""/admin: changes the served versions and their catalogs.

A change is answered once it is in the journal and applies to every later request.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from model.planning.boosts import num_values
from service.http.admin_route import (
    BODILESS_CHANGE_ERRORS,
    CHANGE_ERRORS,
    DOMAIN,
    WAITS,
    Admin,
    admin_router,
)
from service.http.app_state import state_of
from service.http.dependencies import DomainPath, service_of
from service.http.openapi import problems
from service.schemas.admin import (
    AdminDomainBody,
    AdminDomainsAnswer,
    BoostCounts,
    CanaryBody,
    CanaryRequest,
    DrainAnswer,
    JournalBody,
    LoadRequest,
    ResolveRequest,
    ShadowRequest,
    SwapRequest,
    VersionBody,
)
from service.versions.administration import Administration
from service.versions.domains import Serving

router = admin_router()


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


@router.post(DOMAIN + "/load", responses=CHANGE_ERRORS, dependencies=WAITS)
async def load_version(name: DomainPath, body: LoadRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Load a version while others are served. It is verified, placed and warmed up when this answers."""
    await admin.roles.load(name, body.bundle, body.domain or name, activates=body.activate)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/load", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def discard_version(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Discard the version in the role `loaded`."""
    await admin.roles.discard_loaded(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/swap", responses=CHANGE_ERRORS, dependencies=WAITS)
async def swap_versions(name: DomainPath, body: SwapRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Make a loaded version the stable one. Running requests complete on their version."""
    await admin.roles.swap(name, body.version, body.expected)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/rollback", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def roll_back(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Swap back to the previous version."""
    await admin.roles.roll_back(name)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN, status_code=204, responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def unload_domain(name: DomainPath, admin: Admin) -> None:
    """Stop serving a domain."""
    await admin.roles.unload(name)


@router.post(DOMAIN + "/canary", responses=CHANGE_ERRORS, dependencies=WAITS)
async def set_canary(name: DomainPath, body: CanaryRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Route a fixed share of the users to a loaded version."""
    await admin.roles.set_canary(name, body.version, body.share, body.salt)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/canary", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def end_canary(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Route all users to the stable version again."""
    await admin.roles.end_canary(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/canary/promote", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def promote_canary(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Make the canary the stable version."""
    await admin.roles.promote_canary(name)
    return _domain_answer(admin, name, response)


@router.post(DOMAIN + "/shadow", responses=CHANGE_ERRORS, dependencies=WAITS)
async def set_shadow(name: DomainPath, body: ShadowRequest, admin: Admin, response: Response) -> AdminDomainBody:
    """Repeat requests on a loaded version; its answers go to the metrics only."""
    await admin.roles.set_shadow(name, body.version)
    return _domain_answer(admin, name, response)


@router.delete(DOMAIN + "/shadow", responses=BODILESS_CHANGE_ERRORS, dependencies=WAITS)
async def end_shadow(name: DomainPath, admin: Admin, response: Response) -> AdminDomainBody:
    """Stop repeating requests on the shadow version."""
    await admin.roles.end_shadow(name)
    return _domain_answer(admin, name, response)


@router.post("/journal/resolve", responses=CHANGE_ERRORS, dependencies=WAITS)
async def resolve_journal(request: Request, body: ResolveRequest) -> JournalBody:
    """Decide which history all replicas follow, after the journal in Redis was replaced or damaged."""
    administration = service_of(request).administration
    await administration.resolve_journal(body.keep)
    return _journal_body(administration, state_of(request.app).private_paths.hide)


@router.post("/drain")
async def drain(request: Request) -> DrainAnswer:
    """Reject new requests and complete the running ones."""
    state = state_of(request.app)
    state.readiness.drain()
    await state.followers.told()
    return DrainAnswer(status="draining")


def _journal_body(administration: Administration, hide: Callable[[str], str]) -> JournalBody:
    journal = administration.replica.journal
    return JournalBody(
        kind=journal.kind,
        problems=[hide(fault) for fault in administration.replica.problems],
        is_broken=journal.is_broken,
        num_unread=journal.num_unread,
    )


def _domain_answer(administration: Administration, name: str, response: Response) -> AdminDomainBody:
    body = _domain_body(administration, name, administration.replica.domains.serving(name))
    response.headers["ETag"] = f'"{body.catalog_revision}"'
    return body


def _domain_body(administration: Administration, name: str, serving: Serving) -> AdminDomainBody:
    canary, state = serving.roles.canary, administration.replica.state(name)
    roles_of: dict[str, list[str]] = {}
    for role, ref in serving.roles.assigned:
        roles_of.setdefault(ref.version, []).append(role)
    return AdminDomainBody(
        name=name,
        catalog_revision=state.catalog_revision,
        boosts=BoostCounts(num_values=num_values(state.boosts), num_items=len(state.boosts.items)),
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
        is_loading=administration.roles.is_loading(name),
    )
