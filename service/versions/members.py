"""What replicas say of themselves, how that is stored, and whether one serves a change. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from feature_cache.signing import Signer

SIGNED = b"signed "
SIGNATURE_BYTES = 32
MAX_REASON = 500
"""Characters of a reason; longer ones are cut."""
WHOLE = ""
"""Stands for the journal as a whole in the place of a domain."""

MemberState: TypeAlias = Literal["serving", "loading", "behind", "failed", "lost"]


@dataclass(frozen=True)
class Identity:
    """Who a replica is; the id is new at each start."""

    id: str
    name: str
    host: str
    pid: int
    release: str
    started_at: float
    """Unix time."""


@dataclass(frozen=True)
class Failure:
    """Why a replica does not serve a domain as the journal says at a revision."""

    revision: int
    reason: str


@dataclass(frozen=True)
class Report:
    """What a replica says of itself."""

    identity: Identity
    history: str
    """The history of the journal that it follows; the revisions are those of this history."""
    revisions: Mapping[str, int]
    """By domain, the revision that all its answers are from."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """By domain; under WHOLE, of the journal."""
    is_applying: bool = False
    behind_s: float = 0.0


@dataclass(frozen=True)
class Target:
    """A state of the journal: a history, and a revision of each domain that counts."""

    history: str
    revisions: Mapping[str, int]


@dataclass(frozen=True)
class Standing:
    """How a replica stands to a target, and why."""

    state: MemberState
    reason: str = ""


@dataclass(frozen=True)
class Member:
    """A replica, as another one sees it."""

    report: Report
    age_s: float
    """Of its last heartbeat."""
    lease_s: float
    is_self: bool = False

    @property
    def is_lost(self) -> bool:
        return self.age_s > self.lease_s

    @property
    def behind_s(self) -> float:
        """Seconds since it served all that the journal held, as far as it has said."""
        return self.report.behind_s + self.age_s

    def standing(self, target: Target) -> Standing:
        """Whether it serves a target. `failed` is final until the next change; of a lost one, nothing is known."""
        if self.is_lost:
            return Standing("lost", f"it has not been heard of for {self.age_s:.0f} s, and its lease has ended")
        report = self.report
        if (failure := report.failures.get(WHOLE)) is not None:
            return Standing("failed", failure.reason)
        if report.history != target.history:
            return Standing("loading" if report.is_applying else "behind", "it follows another history of the journal")
        late: list[str] = []
        for name, revision in target.revisions.items():
            failure = report.failures.get(name)
            if failure is not None and failure.revision >= revision:
                return Standing("failed", failure.reason)
            served = report.revisions.get(name, 0)
            if served < revision or failure is not None:
                late.append(f"it serves revision {served} of {name!r}, not {revision}")
        if late:
            return Standing("loading" if report.is_applying else "behind", "; ".join(late))
        return Standing("serving")


_REPORTS: TypeAdapter[Report] = TypeAdapter(Report)


def encode_report(report: Report, signer: Signer | None) -> bytes:
    """The signature, if there is a signer, and the report as JSON."""
    content = _REPORTS.dump_json(report)
    return content if signer is None else SIGNED + signer.sign(report.identity.id, content) + content


def decode_report(stored_id: str, content: bytes, signer: Signer | None) -> Report | None:
    """None for what cannot be read, or was not signed for this id as it must be."""
    is_signed = content.startswith(SIGNED)
    signature, body = content[len(SIGNED) : len(SIGNED) + SIGNATURE_BYTES], content
    if is_signed:
        body = content[len(SIGNED) + SIGNATURE_BYTES :]
    if signer is not None:
        is_trusted = signer.is_valid(signature, stored_id, body) if is_signed else signer.accepts_unsigned
        if not is_trusted:
            return None
    try:
        report = _REPORTS.validate_json(body)
    except ValidationError:
        return None
    return report if report.identity.id == stored_id else None
