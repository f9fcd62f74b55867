"""Waits until all live replicas serve a change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from service.errors import LateReplica, ReplicasDifferError
from service.versions.members import Target
from service.versions.membership import Members, Membership

FIRST_LOOK_S = 0.01
LONGEST_PAUSE_S = 0.1
MAX_NAMED = 5
"""Most replicas that the text of an error names."""


async def wait_for_all(membership: Membership, target: Target, timeout_s: float) -> None:
    """Return when every replica that holds a lease answers from the target or a later state.

    Raises ReplicasDifferError, which names the others: after `timeout_s`, or as soon as all of them have failed.
    """
    loop = asyncio.get_running_loop()
    ends_at, pause_s = loop.time() + timeout_s, FIRST_LOOK_S
    while True:
        known = await membership.known()
        late = [*_late(known, target)]
        if known.is_complete and not late:
            return
        is_final = known.is_complete and all(each.state == "failed" for each in late)
        left_s = ends_at - loop.time()
        if is_final or left_s <= 0:
            raise ReplicasDifferError(_told(known, late, timeout_s, is_final=is_final), late)
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _late(known: Members, target: Target) -> Iterator[LateReplica]:
    for member in known.members:
        standing = member.standing(target)
        if standing.state not in {"serving", "lost"}:
            yield LateReplica(member.report.identity.name, standing.state, standing.reason)


def _told(known: Members, late: list[LateReplica], timeout_s: float, *, is_final: bool) -> str:
    named = [f"{each.name} ({each.state}: {each.reason})" for each in late[:MAX_NAMED]]
    more = [f"{len(late) - MAX_NAMED} more"] if len(late) > MAX_NAMED else []
    problem = [known.problem] if known.problem else []
    after = "" if is_final else f" after {timeout_s:g} s"
    return (
        f"the change is made and this replica answers from it, but not all replicas do{after}: "
        f"{'; '.join([*named, *more, *problem])}; GET /admin/replicas shows how they go on"
    )
