"""/admin/replicas: the replicas of the service, and what each serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import Request

from service.http.admin_route import admin_router
from service.http.app_state import state_of
from service.http.dependencies import service_of
from service.schemas.replicas import ReplicaBody, ReplicasAnswer
from service.versions.members import Member, Target

router = admin_router()


@router.get("/replicas")
async def list_replicas(request: Request) -> ReplicasAnswer:
    """All replicas that follow the journal, with what they serve of it. Without Redis, this one only."""
    state = state_of(request.app)
    administration = service_of(request).administration
    known = await administration.membership.known()
    target = administration.replica.target()
    members = sorted(known.members, key=lambda each: (not each.is_self, each.report.identity.name))
    hide = state.private_paths.hide
    return ReplicasAnswer(
        replicas=[_replica_body(each, target, hide) for each in members],
        revisions=dict(target.revisions),
        lease_s=state.settings.replica_lease_s,
        problem=hide(known.problem) if known.problem else None,
    )


def _replica_body(member: Member, target: Target, hide: Callable[[str], str]) -> ReplicaBody:
    identity, standing = member.report.identity, member.standing(target)
    is_serving = standing.state == "serving"
    return ReplicaBody(
        id=identity.id,
        name=identity.name,
        host=identity.host,
        pid=identity.pid,
        release=identity.release,
        started_at=_in_utc(identity.started_at),
        is_self=member.is_self,
        state=standing.state,
        reason=None if is_serving else hide(standing.reason),
        behind_since=None if is_serving else _in_utc(time.time() - member.behind_s),
        heartbeat_age_s=round(member.age_s, 3),
        revisions=dict(member.report.revisions),
    )


def _in_utc(timestamp_s: float) -> str:
    return datetime.fromtimestamp(timestamp_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
